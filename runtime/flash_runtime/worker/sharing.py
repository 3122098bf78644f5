"""Sharing: how the workers of a container share the connections that come to their common listeners.

There are two strategies. Workers with room for many requests spread connections evenly. Workers with room for
few take only what they can run: a request must not wait behind a busy worker while another is idle. The
scoreboard tells workers of each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from flash_runtime.dispatch.admission import SMALL_CONCURRENCY, Admission
from flash_runtime.monitoring.scoreboard import FRESH_SECONDS, Record, Scoreboard, State


class Sharing(Protocol):
    """A strategy. The acceptor asks it, and it publishes the worker's load for the siblings."""

    keeps_connections: bool
    """Whether a connection is kept after a response."""
    awaits_request: bool
    """Whether to take the next connection only once the last one has shown its request."""

    def is_my_turn(self) -> bool:
        """Whether this worker takes the next connection, or leaves it to a sibling. Never if it is wedged."""

    def on_connections(self, count: int) -> None:
        """Called with the number of open connections, a few times a second and after each new one."""

    def on_admission_change(self, admission: Admission) -> None:
        """A request began to run or to wait, or has ended."""

    def call_when_free(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as the worker has less to do."""


def sharing_for(record: Record, board: Scoreboard, concurrency: int) -> Sharing:
    """The strategy of a worker that runs `concurrency` requests of its narrowest kind at once."""
    if board.slots > 1 and concurrency <= SMALL_CONCURRENCY:
        return TakeWhatCanRun(record, board, concurrency)
    return SpreadEvenly(record, board)


class SpreadEvenly:
    """Takes a connection unless a sibling has fewer. Load is the number of connections."""

    keeps_connections = True
    awaits_request = False

    def __init__(self, record: Record, board: Scoreboard) -> None:
        self._record = record
        self._siblings = _siblings(record, board)

    def is_my_turn(self) -> bool:
        now = time.monotonic()
        return not self._record.is_wedged(now) and not _has_less_loaded(
            self._siblings, self._record.load, now
        )

    def on_connections(self, count: int) -> None:
        self._record.set_load(count)

    def on_admission_change(self, admission: Admission) -> None:
        """Load is the connections here."""

    def call_when_free(self, callback: Callable[[], None]) -> None:
        """A worker that left a connection to a sibling looks again by itself."""


class TakeWhatCanRun:
    """Takes a connection while the worker has room, or no sibling has less to do. Load is requests.

    Connections are closed after each response: a kept one would bring its next request to this worker, even
    if a sibling is idle then.
    """

    keeps_connections = False
    awaits_request = True

    def __init__(self, record: Record, board: Scoreboard, room: int) -> None:
        self._record = record
        self._siblings = _siblings(record, board)
        self._room = room
        self._on_free: list[Callable[[], None]] = []

    def is_my_turn(self) -> bool:
        now, load = time.monotonic(), self._record.load
        if self._record.is_wedged(now):
            return False
        return load < self._room or not _has_less_loaded(self._siblings, load, now)

    def on_connections(self, count: int) -> None:
        """Load is the requests here."""

    def on_admission_change(self, admission: Admission) -> None:
        lane = admission.narrowest
        before, load = self._record.load, lane.running + lane.waiting
        self._record.set_load(load)
        if load < before and self._on_free:
            callbacks, self._on_free = self._on_free, []
            for callback in callbacks:
                callback()

    def call_when_free(self, callback: Callable[[], None]) -> None:
        self._on_free = [callback]


def _siblings(record: Record, board: Scoreboard) -> tuple[Record, ...]:
    return tuple(each for each in board.records if each is not record) if board.slots > 1 else ()


def _has_less_loaded(siblings: tuple[Record, ...], load: int, now: float) -> bool:
    return any(each.load < load and _can_accept(each, now) for each in siblings)


def _can_accept(sibling: Record, now: float) -> bool:
    # A worker whose I/O loop does not turn cannot, however little it has to do.
    return sibling.state is State.READY and now - sibling.beat < FRESH_SECONDS and not sibling.is_wedged(now)
