"""Soak: minutes of load on a small server, and a fault at random every few seconds.

`make soak` runs it (MINUTES=…). It fails where a request got no answer that was not in a worker which a fault
had hit, where a status other than 200 and 503 was seen, or where the server does not end well and whole.
Writes results/soak.json and, for people, soak.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import platform
import random
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.faulty import ROUTES, SOURCE, ready
from tests.load import Sent, load
from tests.serving import Server, serve, until, user_code

HERE = Path(__file__).parent
WORKERS = 2
_SETTINGS = {
    "FLASH_WORKERS": WORKERS,
    "FLASH_MAX_CONCURRENCY": 8,
    "FLASH_MAX_QUEUE": 8,
    "FLASH_STALL_TIMEOUT": 3,
    "FLASH_MAX_REQUESTS": 20_000,
    "FLASH_ACCESS_LOG": "off",
}


@dataclass(frozen=True)
class Injected:
    """A fault: its name, when, and the workers that were there before and are not afterwards."""

    name: str
    at: float
    dead: frozenset[int]
    recovered: float
    """Seconds until every worker was ready again."""
    over: float
    """When that was."""


def kill(server: Server) -> None:
    """The kernel ends a worker, as for want of memory."""
    os.kill(random.choice(server.workers()), signal.SIGKILL)


def freeze(server: Server) -> None:
    """A worker stands still with all of its threads, until it is replaced."""
    victim = random.choice(server.workers())
    os.kill(victim, signal.SIGSTOP)
    until(lambda: victim not in server.workers(), "a frozen worker is replaced", 30)


def crash(server: Server) -> None:
    """A handler crashes in C."""
    _ask(server, "POST", "/segfault")


def leave(server: Server) -> None:
    """A handler ends its process."""
    _ask(server, "POST", "/leave")


def block(server: Server) -> None:
    """A coroutine blocks, for less than the stall timeout."""
    _ask(server, "GET", "/block?seconds=1")


def wedge(server: Server) -> None:
    """A coroutine blocks for ever."""
    _ask(server, "GET", "/block?seconds=600")


def hang_up(server: Server) -> None:
    """SIGHUP: all workers are replaced, one by one."""
    before = set(server.workers())
    server.process.send_signal(signal.SIGHUP)
    until(lambda: not before & set(server.workers()), "all are replaced", 60)


def kill_health(server: Server) -> None:
    """The health process ends."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    until(lambda: server.ping(health_port=True) == 200, "another health process")


def hostile(server: Server) -> None:
    """Clients that send garbage, half of a request, too much, or that reset the connection."""
    whole = b"POST /grow HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\n"
    pieces = [os.urandom(200), whole, whole + b'{"mebi', b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000]
    pieces.append(b"POST /grow HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            with contextlib.suppress(OSError):
                client.sendall(random.choice(pieces))
            if random.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def rush(server: Server) -> None:
    """Forty more clients for two seconds: what has no room is shed."""
    with load(server.port, 40):
        time.sleep(2)


FAULTS: tuple[Callable[[Server], None], ...] = (
    kill, freeze, crash, leave, block, wedge, hang_up, kill_health, hostile, rush,
)  # fmt: skip


def main() -> None:
    """Soak, and write the results; the exit code says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    random.seed(options.seed)
    injected: list[Injected] = []
    with tempfile.TemporaryDirectory() as place:
        directory = user_code(Path(place), SOURCE, ROUTES)
        with serve(Path(place), separate_health=True, FLASH_APP_DIR=directory, **_SETTINGS) as server:
            until(lambda: ready(server) == WORKERS, "all workers are ready")
            with load(server.port, 12, pause=0.002) as running:
                over = time.monotonic() + options.minutes * 60
                deck: list[Callable[[Server], None]] = []
                while time.monotonic() < over:
                    time.sleep(random.uniform(0.5, 3))
                    deck = deck or random.sample(FAULTS, len(FAULTS))
                    injected.append(inject(server, deck.pop()))
            code = server.stop(timeout=60)
            last = server.lines()[-1]
    problems = judge(running.sent, injected)
    if code != 0 or last["message"] != "stopped":
        problems.append(f"it ended with code {code}, and said {last['message']!r}")
    results = collect(options, running.sent, running.refused, injected, problems)
    print(json.dumps(results, indent=1))
    if not problems:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "soak.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "soak.md").write_text(report(results))
    raise SystemExit(1 if problems else 0)


def inject(server: Server, fault: Callable[[Server], None]) -> Injected:
    """Do it, and wait until every worker is ready again."""
    before, at = set(server.workers()), time.monotonic()
    fault(server)
    begun = time.monotonic()
    until(lambda: ready(server) == WORKERS, f"all workers are ready after {fault.__name__}", 90)
    over = time.monotonic()
    dead = frozenset(before - set(server.workers()))
    return Injected(fault.__name__, at, dead, over - begun, over)


def judge(sent: list[Sent], injected: list[Injected]) -> list[str]:
    """What should not have been."""
    problems = [f"status {each.status} was answered" for each in sent if each.status not in (0, 200, 503)]
    # `hang_up` replaces workers without a loss, so its dead do not count.
    dead = {pid for each in injected if each.name != "hang_up" for pid in each.dead}
    problems += [
        f"a request of worker {each.worker} got no answer, and no fault hit that worker"
        for each in sent
        if each.status == 0 and each.worker not in dead and not is_first_at_a_death(each, injected)
    ]
    return problems


def is_first_at_a_death(sent: Sent, injected: list[Injected]) -> bool:
    """Whether it was the first on its connection, so that its worker is not known, when some worker died."""
    return sent.worker is None and any(
        fault.dead and sent.started < fault.over and sent.ended > fault.at
        for fault in injected
        if fault.name != "hang_up"
    )


def collect(
    options: argparse.Namespace,
    sent: list[Sent],
    refused: int,
    injected: list[Injected],
    problems: list[str],
) -> dict[str, Any]:
    """The results, for the file."""
    counts = collections.Counter(each.status for each in sent)
    times = [each.seconds for each in sent if each.status == 200]
    faults: dict[str, list[float]] = {}
    for each in injected:
        faults.setdefault(each.name, []).append(each.recovered)
    return {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "minutes": options.minutes,
        "seed": options.seed,
        "settings": _SETTINGS,
        "sent": len(sent),
        "answered": counts[200],
        "shed": counts[503],
        "failed": counts[0],
        "not_accepted": refused,
        "p50_ms": round(statistics.median(times) * 1000, 1),
        "p99_ms": round(statistics.quantiles(times, n=100)[98] * 1000, 1),
        "faults": {
            name: {"times": len(each), "ready_again_seconds": round(statistics.median(each), 2)}
            for name, each in sorted(faults.items())
        },
        "problems": problems[:20],
    }


def report(results: dict[str, Any]) -> str:
    """The results as a page."""
    abouts = {fault.__name__: (fault.__doc__ or "").strip() for fault in FAULTS}
    lines = [
        "# Soak",
        "",
        f"Written by `make soak`: {results['minutes']:g} minutes of twelve clients on {WORKERS} workers, and",
        "a fault at random every few seconds. It fails where a request got no answer that was not in a",
        "worker which a fault had hit.",
        "",
        f"{results['machine']}; CPython {results['python']}; seed {results['seed']}.",
        "",
        "| Requests | |",
        "|---|---|",
        f"| sent | {results['sent']} |",
        f"| answered | {results['answered']} |",
        f"| shed (503), or stopped with a worker that was wedged | {results['shed']} |",
        f"| failed, each in a worker that a fault had hit | {results['failed']} |",
        f"| p50, p99 of those answered | {results['p50_ms']} ms, {results['p99_ms']} ms |",
        "",
        "| Fault | | times | all ready again after, median |",
        "|---|---|---|---|",
    ]
    for name, each in results["faults"].items():
        lines.append(f"| {name} | {abouts[name]} | {each['times']} | {each['ready_again_seconds']} s |")
    return "\n".join([*lines, ""])


def _ask(server: Server, method: str, path: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        httpx.request(method, server.url + path, timeout=60)


if __name__ == "__main__":
    main()
