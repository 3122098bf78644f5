"""The timeline of a cold start: what it spends its time on, in one line of the log once a worker is ready."""

from __future__ import annotations

import logging
import os
import time

from flash_runtime.monitoring.scoreboard import Scoreboard

log = logging.getLogger("flash_runtime.startup")


class Timeline:
    """The phases of a start, one after the other. Moments are `time.monotonic()`, which all processes share.

    The first one, `interpreter`, is from the process's start to `began`. It is left out if the system
    does not say when the process started.
    """

    def __init__(self, began: float) -> None:
        started = _process_started()
        self._start = began if started is None else started
        self._ends = [] if started is None else [("interpreter", began)]
        self.logged = False

    def end(self, phase: str) -> None:
        """End the phase that began when the one before ended."""
        self._ends.append((phase, time.monotonic()))

    def log_once(self, board: Scoreboard) -> None:
        """Log every phase in milliseconds, and their total, once: when a worker is ready."""
        ready = board.ready()
        if self.logged or not ready:
            return
        self.logged = True
        first = min(ready, key=lambda record: record.since)
        workers = [("fork", first.forked_at), ("user_code", first.imported_at), ("serving", first.since)]
        spent, before = {}, self._start
        for phase, moment in [*self._ends, *workers]:
            spent[phase] = _milliseconds(moment - before)
            before = moment
        log.info("started", extra={"ms": {**spent, "total": _milliseconds(before - self._start)}})


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _process_started() -> float | None:
    """When this process started, to a hundredth of a second (only on Linux; elsewhere `None`).

    proc(5), stat: the 22nd field, in clock ticks since the system's boot. The second field is a name in
    brackets, which may itself have brackets and spaces.
    """
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  health waits for this
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(age, 0.0)
