"""What each further worker adds to the memory of the whole: the PSS of all processes, of 4 workers and of 2.

PSS shares out pages that several processes have in common, so that the sum counts each once. From 2 and not
from 1, since `uvicorn --workers` has a process above its workers that plain `uvicorn` has not.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

from benchmarks.speed import load, sides
from benchmarks.speed.cases import Case
from benchmarks.speed.processes import Cores, Group, running
from tests.serving import free_port

FEW, MANY = 2, 4
_LIMIT_SECONDS = 60.0
_STEADY_SECONDS = 3.0
_STEADY_SHARE = 0.04


def measure(name: str, case: Case, cores: Cores, place: Path) -> dict[str, float]:
    """Bytes: of the whole by number of workers, and of each further one."""
    totals = {workers: _total(name, workers, case, cores, place) for workers in (FEW, MANY)}
    each = (totals[MANY] - totals[FEW]) / (MANY - FEW)
    return {str(workers): total for workers, total in totals.items()} | {"each": each}


def _total(name: str, workers: int, case: Case, cores: Cores, place: Path) -> float:
    """The PSS of all processes, once it stands still while every worker has answered some requests."""
    side = sides.side(name)
    port = free_port()
    environ = side.environ_for(port, workers)
    command = side.command_for(port, workers)
    with running(command, environ, side.directory, place / "memory.log", cores.server) as group:
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not load.answers(case, port):
            if time.monotonic() > deadline or group.process.poll() is not None:
                raise SystemExit(f"{name} with {workers} workers did not start:\n{group.last_lines()}")
            time.sleep(0.1)
        readings: list[int] = []
        since = time.monotonic()
        while time.monotonic() - since < _STEADY_SECONDS:
            if time.monotonic() > deadline:
                raise SystemExit(f"the memory of {name} with {workers} workers does not stand still")
            time.sleep(0.2)
            for _ in range(workers):
                load.answers(case, port)
            now = _pss(group)
            # Other programs of the machine that come and go with the same libraries move it a little.
            if readings and abs(now / readings[0] - 1) > _STEADY_SHARE:
                readings, since = [], time.monotonic()
            readings.append(now)
        return statistics.median(readings)


def _pss(group: Group) -> int:
    total = 0
    for pid in group.members():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total
