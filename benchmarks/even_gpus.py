"""Even GPUs: workers that take one request at a time, behind a balancer's pool of connections.

`make bench-even` runs it; it needs a quiet machine. Each side has N workers and a handler that takes a fixed
time. Each of N, and then 2N, clients picks a connection at random from a pool of 4N that are kept open, and
opens another in its place where the server closed it. The peer is gunicorn with uvicorn-worker and FastAPI,
its handler an `async def` that blocks, as the vendor's GPU examples are: one at a time, too.

Writes results/even_gpus.json and, for people, even_gpus.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.serving import environment, free_port, user_code

HERE = Path(__file__).parent
SERVICE_SECONDS = 0.2
OURS, PEER = "flash-runtime", "gunicorn + uvicorn-worker"
QUEUE = 3
_OVERLOADED_WORKERS = 2
_WARM_UP_SECONDS = 1.5
_REQUEST = (
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)
_HANDLER = f"""
import time

{{kind}} predict():
    time.sleep({SERVICE_SECONDS})
    return "done"
"""
_PEER_APP = "from fastapi import FastAPI\n{handler}\napp = FastAPI()\napp.post('/predict')(predict)\n"


@dataclass(frozen=True)
class Run:
    """One side, once: requests a second, and seconds at quantiles of their latency."""

    side: str
    workers: int
    clients: int
    rate: float
    p50: float
    p99: float
    failed: int


class Connection:
    """A kept-alive connection of the pool; `request` opens it again where the server closed it."""

    status = 0
    """Of the last answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)

    async def request(self) -> bool:
        """Whether the answer is a 200."""
        self.status = 0
        await self.open()
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in head.lower():
            writer.close()
            self._streams = None
            await self.open()  # as a balancer that keeps its pool full
        self.status = int(head.split()[1])
        return self.status == 200

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def load(port: int, workers: int, clients: int, seconds: float) -> tuple[float, list[float], int]:
    """Requests a second, the latency of each in seconds, and how many failed."""
    pool = [Connection(port) for _ in range(4 * workers)]
    for connection in pool:
        await connection.open()
    latencies: list[float] = []
    failed = 0
    begun = time.perf_counter() + _WARM_UP_SECONDS
    until = begun + seconds

    async def client() -> None:
        nonlocal failed
        while time.perf_counter() < until:
            connection = pool.pop(random.randrange(len(pool)))
            started = time.perf_counter()
            good = await connection.request()
            ended = time.perf_counter()
            pool.append(connection)
            failed += not good
            if begun <= ended <= until:
                latencies.append(ended - started)

    await asyncio.gather(*(client() for _ in range(clients)))
    for connection in pool:
        connection.close()
    return len(latencies) / seconds, latencies, failed


@contextlib.contextmanager
def ours(workers: int, place: Path, **settings: int) -> Iterator[int]:
    """A container's worth of this project with N devices; a handler that is a plain function."""
    directory = user_code(place, _HANDLER.format(kind="def"), [("POST", "/predict", "predict")])
    devices = ",".join(str(number) for number in range(workers))
    port = free_port()
    env = environment(PORT=port, FLASH_APP_DIR=directory, CUDA_VISIBLE_DEVICES=devices, **settings)
    with serving([sys.executable, "-m", "flash_runtime", "serve"], env, place, port, workers):
        yield port


@contextlib.contextmanager
def peer(workers: int, place: Path) -> Iterator[int]:
    """Plain gunicorn and uvicorn-worker."""
    handler = _HANDLER.format(kind="async def")
    (place / "peer.py").write_text(_PEER_APP.format(handler=handler))
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "peer:app", "--chdir", str(place)]
    command += ["-k", "uvicorn_worker.UvicornWorker", "-w", str(workers), "-b", f"127.0.0.1:{port}"]
    # Connections are kept as long as here: gunicorn's default of 2 s loses requests of a pool's.
    with serving(
        [*command, "--keep-alive", "600", "--no-control-socket"], environment(), place, port, workers
    ):
        yield port


@contextlib.contextmanager
def serving(command: list[str], env: dict[str, str], place: Path, port: int, workers: int) -> Iterator[None]:
    """The command, from the moment when all of its workers answer until the block ends."""
    with (place / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            time.sleep(1.5 + 0.5 * workers)
            rate, _, failed = asyncio.run(load(port, workers, workers, 0.5))
            if failed or not rate:
                raise SystemExit(f"{command[2]} does not serve: {(place / 'log.txt').read_text()}")
            yield
        finally:
            process.terminate()
            process.wait(30)


def measure(side: str, workers: int, clients: int, seconds: float) -> Run:
    """Start the side, load it, stop it."""
    start = {OURS: ours, PEER: peer}[side]
    with tempfile.TemporaryDirectory() as place, start(workers, Path(place)) as port:
        rate, latencies, failed = asyncio.run(load(port, workers, clients, seconds))
    quantiles = statistics.quantiles(latencies, n=100)
    return Run(side, workers, clients, rate, quantiles[49], quantiles[98], failed)


@dataclass(frozen=True)
class Overload:
    """Requests at twice the capacity of two workers, once; seconds at quantiles of their latency."""

    rate: float
    service: float
    """What a request takes while there is no other."""
    accepted: int
    accepted_p99: float
    shed: int
    shed_p99: float
    shed_longest: float
    failed: int


def overloaded(seconds: float) -> Overload:
    """Send at a fixed rate, whatever is answered; each request on a connection of its own."""
    rate = 2 * _OVERLOADED_WORKERS / SERVICE_SECONDS
    latencies: dict[int, list[float]] = {}

    async def alone(port: int) -> float:
        connection = Connection(port)
        taken = []
        for _ in range(10):
            started = time.perf_counter()
            await connection.request()
            taken.append(time.perf_counter() - started)
        connection.close()
        return statistics.median(taken)

    async def send(port: int) -> None:
        connection = Connection(port)
        started = time.perf_counter()
        await connection.request()
        latencies.setdefault(connection.status, []).append(time.perf_counter() - started)
        connection.close()

    async def run(port: int) -> None:
        begun = time.perf_counter()
        tasks = []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(begun + number / rate - time.perf_counter())
            tasks.append(asyncio.create_task(send(port)))
        await asyncio.gather(*tasks, return_exceptions=True)

    with (
        tempfile.TemporaryDirectory() as place,
        ours(_OVERLOADED_WORKERS, Path(place), FLASH_MAX_QUEUE=QUEUE) as port,
    ):
        service = asyncio.run(alone(port))
        asyncio.run(run(port))
    accepted, shed = latencies.get(200, []), latencies.get(503, [])
    failed = round(rate * seconds) - len(accepted) - len(shed)
    p99, shed_p99 = (statistics.quantiles(each, n=100)[98] for each in (accepted, shed))
    return Overload(rate, service, len(accepted), p99, len(shed), shed_p99, max(shed), failed)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="of load in each run")
    parser.add_argument("--runs", type=int, default=3, help="of each side and case, by turns")
    options = parser.parse_args()
    overload = [overloaded(options.seconds) for _ in range(options.runs)]
    runs = [
        measure(side, workers, clients, options.seconds)
        for workers in (2, 4)
        for clients in (workers, 2 * workers)
        for _ in range(options.runs)
        for side in (OURS, PEER)
    ]
    names = ("gunicorn", "uvicorn", "uvicorn-worker", "fastapi")
    results = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "service_seconds": SERVICE_SECONDS,
        "seconds": options.seconds,
        "runs": [asdict(run) for run in runs],
        "overload": [asdict(run) for run in overload],
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "even_gpus.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "even_gpus.md").write_text(report(results))


def report(results: dict[str, Any]) -> str:
    """The results as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Even GPUs",
        "",
        "Written by `make bench-even`, all of it in one run. N workers take one request at a time each, and",
        f"a request takes {results['service_seconds']:g} s. Clients pick connections at random from a pool",
        "of 4N that is opened beforehand and kept full. The peer's handler is an `async def` that blocks,",
        "this project's a plain `def`.",
        "",
        f"{results['machine']}; CPython {results['python']}; {versions}.",
        f"The median of the runs, {results['seconds']:g} s each; the worst of them in brackets.",
        "",
        "| N | clients | side | of the ideal rate | p50, in service times | p99, in service times | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    cases: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    for run in results["runs"]:
        cases.setdefault((run["workers"], run["clients"], run["side"]), []).append(run)
    service = results["service_seconds"]
    for (workers, clients, side), runs in cases.items():
        ideal = workers / service
        rates = [run["rate"] / ideal for run in runs]
        p50 = [run["p50"] / service for run in runs]
        p99 = [run["p99"] / service for run in runs]
        lines.append(
            f"| {workers} | {clients} | {side} | {statistics.median(rates):.3f} ({min(rates):.3f}) "
            f"| {statistics.median(p50):.2f} ({max(p50):.2f}) "
            f"| {statistics.median(p99):.2f} ({max(p99):.2f}) | {sum(run['failed'] for run in runs)} |"
        )
    overload = results["overload"]
    alone = statistics.median(run["service"] for run in overload)
    p99 = [run["accepted_p99"] for run in overload]
    shed = [run["shed_p99"] for run in overload]
    lines += [
        "",
        "## Overload",
        "",
        f"{_OVERLOADED_WORKERS} workers, FLASH_MAX_QUEUE={QUEUE}, and {overload[0]['rate']:g} requests a",
        "second, which is twice what they can do; each on a connection of its own. The median of the runs;",
        "the worst of them in brackets.",
        "",
        "| | |",
        "|---|---|",
        f"| p99 of those accepted | {statistics.median(p99):.3f} s ({max(p99):.3f} s) |",
        f"| (queue + 1) x what a request takes alone, {alone:.4f} s | {(QUEUE + 1) * alone:.3f} s |",
        f"| (queue + 1) x what its handler sleeps | {(QUEUE + 1) * service:.3f} s |",
        f"| p99 of the 503s | {statistics.median(shed) * 1000:.1f} ms ({max(shed) * 1000:.1f} ms) |",
        f"| accepted, shed, failed | {sum(run['accepted'] for run in overload)}, "
        f"{sum(run['shed'] for run in overload)}, {sum(run['failed'] for run in overload)} |",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
