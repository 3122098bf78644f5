"""Sends a case's requests to a running server: first to see that it answers rightly, then to time it."""

from __future__ import annotations

import http.client
import json
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.cases import Case

_WARM_UP_REQUESTS = 30
_REPLY_SECONDS = 60
_FEWEST = 3
_HEADERS = {"content-type": "application/json"}


class Failed(Exception):
    """A side does not do what a case asks of it: there is no figure, and the report says why."""


@dataclass(frozen=True)
class Run:
    """One side and case, once: requests a second, and seconds at quantiles of their latency."""

    rate: float
    p50: float
    p99: float


def wrk_version() -> str:
    """wrk's version; without wrk, the end."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk makes the load, and is missing: on Debian and Ubuntu, `apt-get install -y wrk`")
    done = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True, timeout=10)
    return (done.stdout + done.stderr).splitlines()[0].partition(" [")[0]


def verify(case: Case, port: int, *, validates: bool) -> None:
    """Raise `Failed` for whoever answers wrongly, or takes what is wrong."""
    for _ in range(1 if case.large else _WARM_UP_REQUESTS):
        status, answer = _ask(case.method, case.path, case.body, port)
        if status != 200 or json.loads(answer) != case.answer:
            raise Failed(f"a wrong answer, {status}: {answer[:200]!r}")
    if validates:
        in_path = isinstance(case.wrong, str)
        status, answer = _ask(
            case.method,
            case.wrong if isinstance(case.wrong, str) else case.path,
            case.body if in_path else case.wrong,
            port,
        )
        if not 400 <= status < 500:
            raise Failed(f"a wrong request was answered with {status}: {answer[:200]!r}")


def answers(case: Case, port: int) -> bool:
    """Whether the server answers this case rightly by now."""
    try:
        status, answer = _ask(case.method, case.path, case.body, port)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and json.loads(answer) == case.answer


def measure(case: Case, port: int, seconds: int, bodies: Path) -> Run:
    """Time the case for so many seconds; `Failed` where a request fails."""
    return one_by_one(case, port, seconds) if case.large else wrk(case, port, seconds, bodies)


def wrk(case: Case, port: int, seconds: int, bodies: Path) -> Run:
    """As quickly as one thread of wrk can send and its connections get answers."""
    command = ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", f"{_REPLY_SECONDS}s"]
    command += ["-s", str(Path(__file__).parent / "request.lua"), f"http://127.0.0.1:{port}{case.path}"]
    command += ["--", case.method]
    if case.body is not None:
        file = bodies / f"{case.name}.json"
        file.write_bytes(case.body)
        command.append(str(file))
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=seconds + 2 * _REPLY_SECONDS
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    if done.returncode != 0 or not results:
        raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
    result = json.loads(results[0].removeprefix("result "))
    if result["failed"] or not result["requests"]:
        raise Failed(f"{result['failed']} of {result['requests']} requests failed")
    return Run(result["requests"] / result["microseconds"] * 1e6, result["p50"] / 1e6, result["p99"] / 1e6)


def one_by_one(case: Case, port: int, seconds: float) -> Run:
    """On one kept connection: wrk would cut off the last of the few that it gets to send."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REPLY_SECONDS)
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < _FEWEST or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        connection.request(case.method, case.path, case.body, _HEADERS)
        response = connection.getresponse()
        response.read()
        taken.append(time.perf_counter() - started)
        if response.status != 200:
            raise Failed(f"a request was answered with {response.status}")
    connection.close()
    return Run(len(taken) / sum(taken), statistics.median(taken), max(taken))


def _ask(method: str, path: str, body: bytes | None, port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REPLY_SECONDS)
    try:
        connection.request(method, path, body, _HEADERS if body is not None else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
