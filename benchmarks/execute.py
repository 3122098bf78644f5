"""Calls by name: the vendor's `/execute` and this one, with a small and a large payload, in one run.

`make bench-execute` runs it; it needs a quiet machine, and numpy. A call is measured as its caller sees it:
encoding the arguments, asking, decoding the result. The function gives back what it is given. The limit is a
raw ASGI function under uvicorn that gives back the body, asked by the same client with the same bytes.

Writes results/execute.json and, for people, execute.md.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy
import uvloop

from flash_runtime.rpc import envelope
from flash_runtime.rpc.client import Client
from tests import vendor
from tests.serving import free_port, serve, until, user_code

HERE = Path(__file__).parent
TOKEN = "benchmark"
SOURCE = "async def echo(value):\n    return value\n\nasync def route():\n    return 1\n"
_ECHO = """
async def app(scope, receive, send):
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    headers = [(b"content-type", b"x/y"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
PAYLOADS: dict[str, tuple[Callable[[], Any], int]] = {
    "a dict of 1 kB": (lambda: {f"key{number}": "x" * 20 for number in range(33)}, 300),
    "a float32 array of 1 MB": (lambda: numpy.random.default_rng(1).random(250_000, dtype="float32"), 60),
    "a float32 array of 64 MB": (lambda: numpy.random.default_rng(1).random(16_000_000, dtype="float32"), 5),
}
_VENDORS_LIMIT = 10 * 1024 * 1024
"""Bytes of an argument in base64 that the vendor's worker takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found: dict[str, dict[str, list[float]]] = {name: {} for name in PAYLOADS}
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        place = Path(directory)
        sides = {
            "flash-runtime": stack.enter_context(_ours(place)),
            "vendor's worker": stack.enter_context(_vendors(place)),
            "raw ASGI echo": stack.enter_context(_echo(place)),
        }
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        for number in range(rounds):
            for name, (make, count) in PAYLOADS.items():
                value = make()
                for side, (call, limit, pid) in sides.items():
                    if limit is not None and getattr(value, "nbytes", 0) * 4 / 3 > limit:
                        continue
                    if side == "flash-runtime" and "64" in name:
                        _reset_peak(pid)
                        before = _peak(pid)
                    seconds = runner.run(_measure(call, value, count))
                    found[name].setdefault(side, []).append(seconds)
                    if side == "flash-runtime" and "64" in name:
                        peaks.append((_peak(pid) - before) / value.nbytes)
            print(f"round {number + 1} of {rounds}", flush=True)
    _write(found, peaks, rounds)


Call = Callable[[Any], Awaitable[Any]]
Side = tuple[Call, int | None, int]


async def _measure(call: Call, value: Any, count: int) -> float:
    """Seconds a call, on average, once the first has shown that the answer is right."""
    same = await call(value)
    if not numpy.array_equal(same, value) if isinstance(value, numpy.ndarray) else same != value:
        raise SystemExit("a side gave back something else")
    started = time.perf_counter()
    for _ in range(count):
        await call(value)
    return (time.perf_counter() - started) / count


@contextlib.contextmanager
def _ours(place: Path) -> Iterator[Side]:
    directory = user_code(place, SOURCE, [("GET", "/route", "route")], name="ours")
    path = directory / "flash_manifest.json"
    manifest = json.loads(path.read_text())
    manifest["resources"]["ours"]["functions"].append({"name": "echo", "module": "main"})
    path.write_text(json.dumps(manifest))
    settings = {"FLASH_EXECUTE_TOKEN": TOKEN, "FLASH_MAX_BODY_BYTES": 200_000_000, "FLASH_WORKERS": 1}
    with serve(place, FLASH_APP_DIR=directory, **settings) as server:
        client = Client()
        headers = [(b"content-type", envelope.CONTENT_TYPE), (b"authorization", f"Bearer {TOKEN}".encode())]

        async def call(value: Any) -> Any:
            parts = envelope.pack({"function": "echo"}, ((value,), {}))
            response = await client.post(server.url, "/execute", headers, parts)
            view = memoryview(response.body)
            header, start = envelope.unpack_header(view)
            return envelope.unpack_value(view, header, start)

        yield call, None, server.workers()[0]


@contextlib.contextmanager
def _vendors(place: Path) -> Iterator[Side]:
    application = place / "vendors"
    application.mkdir()
    (application / "main.py").write_text(
        "from runpod_flash import Endpoint\n\n"
        "api = Endpoint(name='vendors', cpu='cpu3c-1-2', dependencies=['numpy'])\n\n\n"
        "@api.get('/route')\nasync def route():\n    return 1\n"
    )
    (application / "pyproject.toml").write_text('[project]\nname = "vendors"\nversion = "1"\n')
    import cloudpickle

    with vendor.serve_vendor(vendor.build(application), "vendors", place) as answering:
        client = httpx.AsyncClient(base_url=answering.base_url, timeout=60)

        async def call(value: Any) -> Any:
            argument = base64.b64encode(cloudpickle.dumps(value)).decode()
            request = {"function_name": "echo", "function_code": SOURCE, "args": [argument], "kwargs": {}}
            told = (await client.post("/execute", json=request)).json()
            if not told["success"]:
                raise SystemExit(f"the vendor's worker: {told['error']}")
            return cloudpickle.loads(base64.b64decode(told["result"]))

        yield call, _VENDORS_LIMIT, 0


@contextlib.contextmanager
def _echo(place: Path) -> Iterator[Side]:
    (place / "echo.py").write_text(_ECHO)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "echo:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=place)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(url), "the echo")
        client = Client()

        async def call(value: Any) -> Any:
            parts = envelope.pack({"function": "echo"}, ((value,), {}))
            response = await client.post(url, "/", [], parts)
            view = memoryview(response.body)
            header, start = envelope.unpack_header(view)
            (same,), _ = envelope.unpack_value(view, header, start)
            return same

        yield call, None, process.pid
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def _reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak becomes what is used now


def _peak(pid: int) -> float:
    """The most memory that the process has used, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    raise AssertionError("proc(5) has it")


def _write(found: dict[str, dict[str, list[float]]], peaks: list[float], rounds: int) -> None:
    lines = ["# Calls by name", "", "Written by `make bench-execute`, all of it in one run of"]
    lines[-1] += f" {rounds} rounds: {os.cpu_count()} cores, CPython {platform.python_version()}."
    lines += [
        "Milliseconds a call as the caller sees it, and how many times as fast flash-runtime is; medians."
    ]
    lines += [
        "",
        "| Payload | flash-runtime | vendor's worker | raw ASGI echo | over the vendor's | over the echo |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name, sides in found.items():
        ours = sides["flash-runtime"]
        cells = [
            f"{statistics.median(sides[side]) * 1000:.2f}" if side in sides else "refused"
            for side in ("flash-runtime", "vendor's worker", "raw ASGI echo")
        ]
        for side in ("vendor's worker", "raw ASGI echo"):
            if side in sides:
                ratio = statistics.median(b / a for a, b in zip(ours, sides[side], strict=True))
                cells.append(f"{ratio:.2f}")
            else:
                cells.append("")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"Peak memory of a worker in a call with 64 MB, over the array: {max(peaks):.2f}.", ""]
    (HERE / "execute.md").write_text("\n".join(lines))
    content = {"rounds": rounds, "seconds": found, "peaks": peaks}
    (HERE / "results" / "execute.json").write_text(json.dumps(content, indent=2) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
