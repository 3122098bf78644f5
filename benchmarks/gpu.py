"""A worker on a real GPU: cold starts, a small model, `/ping` beside kernels, and a tensor there and back.

    python -m benchmarks.gpu             # all of them; prints tables
    python -m benchmarks.gpu model       # one; --list has the names
    python -m benchmarks.gpu --json results.json

Needs a GPU, torch with CUDA, and what the tests need; the GPU kit (`make gpu-kit`) runs these, too. The model
has the size of all-MiniLM-L6 (6 layers, 384 wide), in half precision, and random weights: its time does not
depend on them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.gpu.machine import driver_environment, gpus, what_is_missing
from tests.serving import Server, serve, until, user_code

Row = dict[str, str | int | float]
"""One line of a table: what was measured, and figures in the unit that their names end with."""

_START_SECONDS = 120.0
_POLL_SECONDS = 0.002
_COLD_ROUNDS = 3
_WARM_UP_SECONDS = 1.0
_LOAD_SECONDS = 4.0
_PING_SECONDS = 4.0
_PING_INTERVAL = 0.02
_TOKENS = list(range(100, 228))
_FLOATS = 150_528
"""An image's of 224 x 224 x 3: 602,112 bytes."""

_APPLICATION = """
import ctypes
import os
import time

import torch
from fastapi import Request, Response

torch.manual_seed(1)


class Encoder(torch.nn.Module):
    def __init__(self, width=384):
        super().__init__()
        self.embedding = torch.nn.Embedding(30_000, width)
        layer = torch.nn.TransformerEncoderLayer(
            width, 12, 4 * width, activation="gelu", batch_first=True, norm_first=False
        )
        self.layers = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, tokens):
        return self.layers(self.embedding(tokens)).mean(1)


model = Encoder().eval().half().to("cuda")
square = torch.randn(4096, 4096, device="cuda", dtype=torch.half)


def embed(tokens: list[int]) -> list[float]:
    with torch.inference_mode():
        return model(torch.tensor([tokens], device="cuda"))[0].float().cpu().tolist()


embed(list(range(128)))  # a worker is ready once its first request is quick


def pid():
    return os.getpid()


def alone(tokens: list[int], count: int) -> list[float]:
    # What the model takes without a server before it.
    return timed(lambda: embed(tokens), count)


def timed(call, count):
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def run_kernels(seconds):
    ends = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < ends:
        for _ in range(10):
            square @ square
        torch.cuda.synchronize()
        rounds += 10
    return rounds


def kernels(seconds: float) -> int:
    return run_kernels(seconds)


async def kernels_on_the_loop(seconds: float) -> int:
    return run_kernels(seconds)


async def rest(seconds: float) -> int:
    import asyncio

    await asyncio.sleep(seconds)
    return 0


def copies(floats: int, count: int, pinned: bool) -> list[float]:
    host = torch.rand(floats)
    if pinned:
        host = host.pin_memory()
    back = torch.empty_like(host, pin_memory=pinned)

    def there_and_back():
        back.copy_(host.to("cuda", non_blocking=pinned), non_blocking=pinned)
        torch.cuda.synchronize()

    return timed(there_and_back, count)


async def double(request: Request) -> Response:
    body = bytearray(await request.body())
    doubled = (torch.frombuffer(body, dtype=torch.float32).to("cuda") * 2).cpu()
    answer = ctypes.string_at(doubled.data_ptr(), doubled.nbytes)  # without NumPy, which torch does not bring
    return Response(answer, media_type="application/octet-stream")
"""
_ROUTES = [
    ("GET", "/pid", "pid"),
    ("POST", "/embed", "embed"),
    ("POST", "/alone", "alone"),
    ("POST", "/kernels", "kernels"),
    ("POST", "/kernels_on_the_loop", "kernels_on_the_loop"),
    ("POST", "/rest", "rest"),
    ("POST", "/copies", "copies"),
    ("POST", "/double", "double"),
]


def cold_start() -> list[Row]:
    """Seconds from the process's making, with and without torch preloaded, by turns; medians.

    The replacement's time counts from the kill of a worker to the first answer of the next one.
    """
    found: dict[str, list[dict[str, float]]] = {"": [], "torch": []}
    for _ in range(_COLD_ROUNDS):
        for preload, starts in found.items():
            starts.append(_start_once(preload))
    return [
        {"FLASH_PRELOAD": preload or "not set"}
        | {f"{name}, s": statistics.median(each[name] for each in starts) for name in starts[0]}
        for preload, starts in found.items()
    ]


def _start_once(preload: str) -> dict[str, float]:
    with _serving(wait_ready=False, FLASH_PRELOAD=preload) as server:
        began = time.perf_counter()
        found: dict[str, float] = {}
        while "first 200" not in found:
            answer = _get(server.port, "/ping")
            passed = time.perf_counter() - began
            if answer is not None and answer[0] in (200, 204):
                found.setdefault(f"first {answer[0]}", passed)
            if passed > _START_SECONDS or server.process.poll() is not None:
                raise SystemExit(f"not ready in {passed:.0f} s:\n{server.log}")
            time.sleep(_POLL_SECONDS)
        _post(server.port, "/embed", {"tokens": _TOKENS})
        found["first answer of the model"] = time.perf_counter() - began
        killed = server.client.get("/pid").json()
        os.kill(killed, signal.SIGKILL)
        began = time.perf_counter()
        while not _is_answered_by_another(server.port, killed):
            if time.perf_counter() - began > _START_SECONDS:
                raise SystemExit(f"a killed worker was not replaced:\n{server.log}")
            time.sleep(_POLL_SECONDS)
        found["replacement"] = time.perf_counter() - began
        return found


def _is_answered_by_another(port: int, pid: int) -> bool:
    answer = _get(port, "/pid")
    return answer is not None and answer[0] == 200 and int(answer[1]) != pid


def model() -> list[Row]:
    """The encoder over 128 tokens, one request a batch: by itself in the worker, then served."""
    with _serving() as server:
        payload = {"tokens": _TOKENS, "count": 400}
        _post(server.port, "/alone", payload)
        alone = _post(server.port, "/alone", payload)
        rows: list[Row] = [_latencies("without a server", alone, sum(alone))]
        body = json.dumps({"tokens": _TOKENS}).encode()
        rows += [_load(server.port, "/embed", body, count, "application/json") for count in (1, 4, 16)]
        return rows


def ping() -> list[Row]:
    """`/ping` on a kept connection, due every 20 ms, while a handler does something."""
    cases = {
        "nothing, in a coroutine": "/rest",
        "kernels, in a plain function": "/kernels",
        "kernels, in a coroutine that blocks": "/kernels_on_the_loop",
    }
    with _serving() as server:
        return [
            {"the handler runs": what, **asyncio.run(_ping_beside(server.port, path))}
            for what, path in cases.items()
        ]


def tensor() -> list[Row]:
    """600 kB from the host to the device and back: the copies alone, and as bytes over HTTP."""
    with _serving() as server:
        rows: list[Row] = []
        for what, pinned in (("pageable memory", False), ("pinned memory", True)):
            payload = {"floats": _FLOATS, "count": 200, "pinned": pinned}
            _post(server.port, "/copies", payload)
            taken = _post(server.port, "/copies", payload)
            rows.append(_latencies(f"copies, {what}", taken, sum(taken)))
        ones, twos = b"\0\0\x80\x3f" * _FLOATS, b"\0\0\0\x40" * _FLOATS
        kind = "application/octet-stream"
        rows += [_load(server.port, "/double", ones, count, kind, twos) for count in (1, 4)]
        return rows


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "cold_start": cold_start,
    "model": model,
    "ping": ping,
    "tensor": tensor,
}


def main() -> None:
    """Measure what was asked for, and print it; no figures where a benchmark's own check fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of benchmarks; all of them if none is given"
    )
    parser.add_argument("--list", action="store_true", help="print the names, and nothing else")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.list:
        print("\n".join(BENCHMARKS))
        return
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: --list has the names")
    missing = what_is_missing()
    if missing:
        sys.exit(f"Nothing is measured: {missing}.")
    found = {}
    for name in options.names or BENCHMARKS:
        about = " ".join((BENCHMARKS[name].__doc__ or "").split())
        rows = BENCHMARKS[name]()
        found[name] = {"about": about, "rows": rows, "table": table(rows)}
        print(f"## {name}\n\n{about}\n\n{table(rows)}\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


def table(rows: list[Row]) -> str:
    """The rows in Markdown, with three digits of each figure."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


@contextlib.contextmanager
def _serving(*, wait_ready: bool = True, **settings: str) -> Iterator[Server]:
    """The application on the first device, with one worker, and without access lines."""
    with tempfile.TemporaryDirectory(prefix="flash-gpu-") as place:
        directory = user_code(Path(place), _APPLICATION, _ROUTES)
        every = {"FLASH_APP_DIR": directory, "CUDA_VISIBLE_DEVICES": gpus()[0].id, "FLASH_ACCESS_LOG": "off"}
        with serve(Path(place), wait_ready=False, **every, **driver_environment(), **settings) as server:
            if wait_ready:
                until(
                    lambda: server.ping() == 200 or server.process.poll() is not None, "ready", _START_SECONDS
                )
                if server.process.poll() is not None:
                    raise SystemExit(f"the worker could not start:\n{server.log}")
            yield server


def _get(port: int, path: str) -> tuple[int, bytes] | None:
    """Status and body of a GET on a connection of its own; `None` where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _post(port: int, path: str, payload: dict[str, Any]) -> Any:
    """The JSON that a POST is answered with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(payload), {"content-type": "application/json"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"{path} was answered with {response.status}: {body[:500]!r}")
    return json.loads(body)


def _load(
    port: int, path: str, body: bytes, connections: int, kind: str, expected: bytes | None = None
) -> Row:
    """Send a request again and again on kept connections; exits if an answer is no 200, or not `expected`."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    taken: list[float] = []

    async def client(begin: float, end: float) -> None:
        _, writer = streams = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        while (started := time.perf_counter()) < end:
            answer = await _exchange(streams, request)
            if expected is not None and answer != expected:
                raise SystemExit(f"{path} gave back something else")
            if started >= begin:
                taken.append(time.perf_counter() - started)
        writer.close()

    async def clients() -> None:
        begin = time.perf_counter() + _WARM_UP_SECONDS
        await asyncio.gather(*(client(begin, begin + _LOAD_SECONDS) for _ in range(connections)))

    asyncio.run(clients())
    return _latencies(f"served, {connections} at a time", taken, _LOAD_SECONDS)


async def _ping_beside(port: int, path: str) -> dict[str, float]:
    """What each ping takes, from the moment when it was due, in the time that the handler runs."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    request = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
    await _exchange(streams, request)
    handler = asyncio.create_task(asyncio.to_thread(_post, port, path, {"seconds": _PING_SECONDS}))
    await asyncio.sleep(0.3)
    taken = []
    due = time.perf_counter()
    while not handler.done():
        await _exchange(streams, request)
        taken.append(time.perf_counter() - due)
        due += _PING_INTERVAL
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await handler
    streams[1].close()
    cuts = statistics.quantiles(taken, n=100)
    return {
        "pings": len(taken),
        "p50, ms": cuts[49] * 1000,
        "p99, ms": cuts[98] * 1000,
        "longest, ms": max(taken) * 1000,
    }


async def _exchange(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    """Send the request, and return the body of its answer, which must be a 200."""
    reader, writer = streams
    writer.write(request)
    async with asyncio.timeout(60):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length or 0))
    if not head.startswith(b"http/1.1 200"):
        raise SystemExit(f"{request[:30]!r} was answered with {head[:30]!r}")
    return body


def _latencies(case: str, taken: list[float], seconds: float) -> Row:
    cuts = statistics.quantiles(taken, n=100)
    return {
        "case": case,
        "per second": len(taken) / seconds,
        "p50, ms": cuts[49] * 1000,
        "p99, ms": cuts[98] * 1000,
    }


if __name__ == "__main__":
    main()
