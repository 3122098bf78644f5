"""Replacements: replacing workers that serve, one at a time; the last ready one waits for its successor."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from flash_runtime.config.parsers import MEBIBYTE
from flash_runtime.monitoring.scoreboard import Scoreboard, State
from flash_runtime.supervisor.slots import ManagedSlot, WorkerProcess
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import resident_bytes

log = logging.getLogger("flash_runtime.renewals")

_PAUSE_SECONDS = 60.0
"""How long no worker is recycled after a successor that could not take its place."""


class Replacements:
    """Call `step` several times a second. `spawn` forks a worker if it can; `request_end` has one drain."""

    def __init__(
        self,
        slots: Sequence[ManagedSlot],
        board: Scoreboard,
        spawn: Callable[[Slot], WorkerProcess | None],
        request_end: Callable[[WorkerProcess], None],
    ) -> None:
        self._slots = slots
        self._board = board
        self._spawn = spawn
        self._request_end = request_end
        self._due: deque[tuple[ManagedSlot, bool]] = deque()
        """Slots whose workers are to be replaced, and whether to save memory in doing so."""
        self._not_before = 0.0
        self._present: tuple[ManagedSlot, int] | None = None
        """The slot whose worker is being replaced, and that worker's pid."""

    @property
    def under_way(self) -> bool:
        """Whether a worker is being replaced."""
        return self._present is not None

    def replace_all(self) -> None:
        """Replace every worker that there is, also one that is to be the successor of another."""
        for slot in self._slots:
            if slot.worker is not None and not self._is_due(slot):
                self._due.append((slot, False))

    def step(self) -> None:
        """Find the workers that are due, continue the replacement under way, or begin the next."""
        if time.monotonic() >= self._not_before:
            self._queue_due()
        if self._present is not None:
            self._advance(*self._present)
        while self._due and self._present is None:
            slot, spare_memory = self._due.popleft()
            if slot.worker is not None:
                self._begin(slot, slot.worker, spare_memory=spare_memory)

    def call_off(self, slot: ManagedSlot, why: str) -> None:
        """The successor of the slot's worker has ended: that worker and all others serve on."""
        self._present = None
        self._due.clear()
        self._not_before = time.monotonic() + _PAUSE_SECONDS
        ending = slot.worker is None or slot.worker.end_requested_at is not None
        if ending:
            log.error("the replacement of slot %d's worker ended:\n%s", slot.slot.number, why)
        else:
            log.error(
                "the replacement of slot %d's worker could not start; the worker keeps serving:\n%s",
                slot.slot.number,
                why,
            )

    def _queue_due(self) -> None:
        for slot in self._slots:
            worker = slot.worker
            if worker is not None and worker.end_requested_at is None and worker.record.state is State.READY:
                served, grown = _served_enough(worker), _grown_too_large(worker)
                why = served or grown
                present = self._present is not None and self._present[0] is slot
                if why is not None and not present and not self._is_due(slot):
                    self._due.append((slot, grown is not None))
                    log.info("worker of slot %d is recycled: %s", slot.slot.number, why)

    def _is_due(self, slot: ManagedSlot) -> bool:
        return any(each is slot for each, _ in self._due)

    def _begin(self, slot: ManagedSlot, worker: WorkerProcess, *, spare_memory: bool) -> None:
        """Boot the successor beside the worker, or end the worker first.

        A successor beside it costs no capacity, even if the successor turns out to be broken. It is the only
        way for the last worker that is ready. A worker on a device, which may not hold two, ends first, and
        so does one that has grown, as long as another is ready.
        """
        self._present = slot, worker.pid
        ready = self._board.ready()
        last = ready == (worker.record,)
        if worker.record in ready and (last or not (spare_memory or slot.slot.device is not None)):
            slot.begin_succession(self._spawn(slot.slot))
            if slot.successor is None:
                self.call_off(slot, "no process could be started")
        else:
            self._request_end(worker)

    def _advance(self, slot: ManagedSlot, old_pid: int) -> None:
        worker, successor = slot.worker, slot.successor
        if successor is not None:
            if worker is not None and successor.record.state is State.READY:
                self._request_end(worker)
            return
        replaced = worker is not None and worker.pid != old_pid and worker.record.state is State.READY
        if replaced or slot.given_up:
            self._present = None


def _served_enough(worker: WorkerProcess) -> str | None:
    if worker.request_limit is None or worker.requests < worker.request_limit:
        return None
    return f"it has served {worker.requests} requests"


def _grown_too_large(worker: WorkerProcess) -> str | None:
    if worker.rss_limit is None:
        return None
    at_start = worker.record.resident_when_ready
    if at_start * MEBIBYTE >= worker.rss_limit:
        # It would be recycled for ever.
        worker.drop_rss_limit()
        log.warning(
            "FLASH_MAX_RSS_MB has no effect on a worker that takes more when it starts: %d MiB", at_start
        )
        return None
    size = resident_bytes(worker.pid)
    return f"it has {size // MEBIBYTE} MiB in use" if size > worker.rss_limit else None
