"""Slots: what is remembered of a slot from one worker to the next, and what follows from a worker's end."""

from __future__ import annotations

import random
from dataclasses import dataclass

from flash_runtime.monitoring.scoreboard import Record, State
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import describe_end

_FAILURES = 3
"""Workers in a row that ended without a request make a slot fail; lost devices have it given up."""
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_MOST_DOUBLINGS = 10
_STEADY_SECONDS = 60.0
"""A worker that served for longer is replaced at once, and its predecessors' failures are forgotten."""
_JITTER = 0.2
"""By how much, at most, a worker is recycled before its limit, so that siblings are not all due at once."""


@dataclass(slots=True)
class WorkerProcess:
    """One worker process. Times are `time.monotonic()`."""

    pid: int
    record: Record
    booting_since: float
    request_limit: int | None
    rss_limit: int | None
    requests_before: int
    """What its record had counted when it got it."""
    end_requested_at: float | None = None
    """When it was asked to finish what it has and end, if it was."""
    wedged_since: float | None = None
    killed_for: str | None = None
    """Why the supervisor has killed it, if it has."""
    described: bool = False
    """Whether the log has the stack of where it stands still."""

    @property
    def requests(self) -> int:
        """How many requests it has ended."""
        return self.record.requests() - self.requests_before

    def note_end_request(self, now: float) -> bool:
        """Note that it is asked to end; false if it was already."""
        if self.end_requested_at is not None:
            return False
        self.end_requested_at = now
        return True

    def note_kill(self, why: str) -> None:
        """Note why the supervisor kills it."""
        self.killed_for = why

    def note_wedged(self, now: float) -> bool:
        """Note that it is wedged; true if it was not before."""
        if self.wedged_since is not None:
            return False
        self.wedged_since = now
        return True

    def note_described(self) -> None:
        """Note that the log has its stack."""
        self.described = True

    def note_moving(self) -> None:
        """Note that it is not wedged, or no longer."""
        self.wedged_since, self.described = None, False

    def drop_rss_limit(self) -> None:
        """Recycle it no more for its size."""
        self.rss_limit = None

    def how_ended(self, status: int) -> str:
        """In words; `status` is what waitpid(2) gives."""
        return f"killed, since {self.killed_for}" if self.killed_for else describe_end(status)


def limit_with_jitter(limit: int | None) -> int | None:
    """A worker's own limit: the given one, or up to a fifth less."""
    return None if limit is None else max(1, round(limit * random.uniform(1 - _JITTER, 1)))  # noqa: S311


@dataclass(slots=True)
class ManagedSlot:
    """A slot: its worker, the successor while both are there, and what happened to its workers."""

    slot: Slot
    worker: WorkerProcess | None = None
    successor: WorkerProcess | None = None
    failures: int = 0
    """Workers that ended without a request, one soon after the other."""
    boots_failed: int = 0
    """Those that were never ready, since the last one that was."""
    devices_lost: int = 0
    not_before: float = 0.0
    given_up: bool = False

    def processes(self) -> tuple[WorkerProcess, ...]:
        """Its processes."""
        return tuple(each for each in (self.worker, self.successor) if each is not None)

    def start(self, worker: WorkerProcess | None, next_try: float) -> None:
        """Give it a worker; if there is none, another try is due at `next_try`."""
        self.worker, self.not_before = worker, next_try

    def begin_succession(self, successor: WorkerProcess | None) -> None:
        """Give it a successor of its worker, if there is one."""
        self.successor = successor

    def remove(self, worker: WorkerProcess) -> bool:
        """Remove a worker that has ended; its successor takes its place. True if it was the successor
        itself."""
        if worker is self.successor:
            self.successor = None
            return True
        self.worker, self.successor = self.successor, None
        return False

    def is_failing(self, now: float) -> bool:
        """Whether workers keep ending, and none has served for a while since."""
        record = self.worker.record if self.worker is not None else None
        steady = record is not None and record.state is State.READY and now - record.since >= _STEADY_SECONDS
        return self.failures >= _FAILURES and not steady

    def note_end(self, now: float, served_seconds: float | None, *, device_lost: bool) -> float:
        """Note that a worker ended without a request, after `served_seconds` (`None`: it never served).

        Returns the seconds until the next one starts: the more, the longer workers keep ending. After too
        many lost devices the slot is `given_up`.
        """
        self.boots_failed = self.boots_failed + 1 if served_seconds is None else 0
        steady = served_seconds is not None and served_seconds >= _STEADY_SECONDS
        self.failures = 1 if steady else self.failures + 1
        self.devices_lost = (0 if steady else self.devices_lost) + device_lost
        self.given_up = self.devices_lost >= _FAILURES
        delay = 0.0
        if served_seconds is None or self.failures > 1:
            doubled = min(self.failures - 1, _MOST_DOUBLINGS)
            delay = min(_FIRST_BACKOFF_SECONDS * 2**doubled, _LONGEST_BACKOFF_SECONDS)
        self.not_before = now + delay
        return delay
