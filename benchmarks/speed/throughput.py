"""Requests a second and their latency, of every side and case, by turns.

In each round every side is started anew, all of them on the one core, and then each case goes round all sides
before the next one does: what is compared was measured within the same half minute. The others stay up and
idle meanwhile; what they use of the core is measured, too.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speed import load, sides
from benchmarks.speed.cases import Case
from benchmarks.speed.processes import Cores, Group, running
from benchmarks.speed.progress import say
from benchmarks.speed.report import significant
from benchmarks.speed.sides import Side
from tests.serving import free_port

_START_SECONDS = 90
_IDLE_SECONDS = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


def prepare(cases: Sequence[Case]) -> None:
    """Write down the answers that the limit sends, by path and size of the body."""
    answers: dict[str, dict[int, str]] = {}
    for case in cases:
        answer = json.dumps(case.answer, separators=(",", ":"))
        answers.setdefault(case.path, {})[len(case.body or b"")] = answer
    sides.ANSWERS.write_text(json.dumps(answers))


def can(side: Side, case: Case) -> bool:
    return case.needs not in side.lacks and (not side.only or case.name in side.only)


def measure_round(
    compared: Sequence[Side],
    cases: Sequence[Case],
    seconds: int,
    number: int,
    cores: Cores,
    place: Path,
) -> dict[str, Any]:
    """One round: by case and side what `load.Run` has, or an `error`; and how busy idle servers are."""
    # Another one begins in each round.
    start = number % len(compared)
    order = [*compared[start:], *compared[:start]]
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for side in order:
            servers[side.name] = stack.enter_context(serving(side, cases, cores, place))
        idle = _cpu_seconds([group for group, _ in servers.values()])
        time.sleep(_IDLE_SECONDS)
        idle = (_cpu_seconds([group for group, _ in servers.values()]) - idle) / _IDLE_SECONDS
        for case in cases:
            found[case.name] = {}
            for side in order:
                if can(side, case):
                    group, port = servers[side.name]
                    found[case.name][side.name] = measure(side, case, seconds, group, port, cores, place)
            say(f"{case.title}: " + ", ".join(_short(*each) for each in found[case.name].items()))
    return {"cases": found, "idle": idle}


def measure(
    side: Side, case: Case, seconds: int, group: Group, port: int, cores: Cores, place: Path
) -> dict[str, Any]:
    """One side and case, once: what `load.Run` has, or an `error`."""
    try:
        load.verify(case, port, validates=side.name != sides.LIMIT)
        run = load.measure(case, port, seconds, place)
        group.check(cores.server)
    except (load.Failed, ValueError, OSError, http.client.HTTPException) as error:
        return {"error": f"{error or type(error).__name__}{group.ending()}"}
    return asdict(run)


def _short(side: str, run: dict[str, Any]) -> str:
    return f"{side} {run['error'] if 'error' in run else significant(run['rate']) + '/s'}"


@contextlib.contextmanager
def serving(side: Side, cases: Sequence[Case], cores: Cores, place: Path) -> Iterator[tuple[Group, int]]:
    """The side, from the moment when it answers rightly; with the port that it listens on."""
    port = free_port()
    log = place / f"{port}.log"
    first = next(case for case in cases if can(side, case) and not case.large)
    with running(side.command_for(port), side.environ_for(port), side.directory, log, cores.server) as group:
        deadline = time.monotonic() + _START_SECONDS
        while not load.answers(first, port):
            group.check(cores.server)
            if time.monotonic() > deadline:
                raise SystemExit(f"{side.name} did not answer in {_START_SECONDS} s:\n{group.last_lines()}")
            time.sleep(0.05)
        yield group, port
    log.unlink()


def _cpu_seconds(groups: Sequence[Group]) -> float:
    ticks = 0
    for group in groups:
        for pid in group.members():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS
