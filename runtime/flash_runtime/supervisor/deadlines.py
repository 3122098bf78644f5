"""Deadlines: which workers have booted, drained or stood still for longer than they may.

A worker whose I/O loop turns keeps most deadlines by itself, and logs it. The supervisor ends the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from flash_runtime.config.settings import Settings
from flash_runtime.monitoring.scoreboard import Scoreboard, State
from flash_runtime.supervisor.slots import WorkerProcess
from flash_runtime.system.stack_dump import StackFile
from flash_runtime.worker.server import DEVICE_LOST, LINGER_SECONDS, LOST_SECONDS, WEDGED_GRACE_SECONDS

log = logging.getLogger("flash_runtime.deadlines")

MARGIN_SECONDS = 3.0
"""What a worker gets beyond a deadline that it keeps itself, such as the drain timeout."""
_SILENT_SECONDS = 2.0
"""A worker whose I/O loop has not turned for longer cannot log its state itself."""


class Deadlines:
    """Ask about every worker once a second. `stack_files` are indexed by the number of a worker's record."""

    def __init__(self, settings: Settings, board: Scoreboard, stack_files: Sequence[StackFile]) -> None:
        self._settings = settings
        self._board = board
        self._stack_files = stack_files

    def why_end(self, worker: WorkerProcess) -> str | None:
        """Why the worker is to be killed now, or `None`."""
        now, record = time.monotonic(), worker.record
        if record.state in (State.EMPTY, State.BOOTING):
            late = now - worker.booting_since > self._settings.boot_timeout
            return "FLASH_BOOT_TIMEOUT was over" if late else None
        if worker.end_requested_at is not None or record.state is State.DRAINING:
            since = record.since if worker.end_requested_at is None else worker.end_requested_at
            return "it did not end in time" if now - since > self._draining_seconds(worker) else None
        if record.is_wedged(now):
            return self._look_after_wedged(worker, now)
        worker.note_moving()
        return None

    def _draining_seconds(self, worker: WorkerProcess) -> float:
        fault = worker.record.reported_fault()
        if fault is not None and fault.exit_code == DEVICE_LOST:
            return LOST_SECONDS + MARGIN_SECONDS
        return LINGER_SECONDS + self._settings.drain_timeout + MARGIN_SECONDS

    def _look_after_wedged(self, worker: WorkerProcess, now: float) -> str | None:
        if worker.note_wedged(now):
            self._board.wake()
        if not worker.described and now - worker.record.beat > _SILENT_SECONDS:
            worker.note_described()
            self._describe(worker)
        since = now if worker.wedged_since is None else worker.wedged_since
        over = now - since > WEDGED_GRACE_SECONDS + MARGIN_SECONDS
        return "it was wedged" if over else None

    def _describe(self, worker: WorkerProcess) -> None:
        where = self._stack_files[worker.record.number].ask(worker.pid)
        log.error(
            "worker of slot %d is wedged with all of its threads, and replaced in %g s unless it moves:\n%s",
            worker.record.slot, WEDGED_GRACE_SECONDS + MARGIN_SECONDS,
            where or "it does not even answer a signal",
        )  # fmt: skip
