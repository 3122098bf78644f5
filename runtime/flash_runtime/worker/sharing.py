"""Sharing: how workers share the connections that come."""

from __future__ import annotations

import time

from flash_runtime.monitoring.scoreboard import FRESH_SECONDS, Record, Scoreboard, State


class Turn:
    """Whether it is this worker's turn to take a connection: its load is below `room`, or the least."""

    def __init__(self, record: Record, board: Scoreboard, room: int) -> None:
        self._record = record
        self._siblings = tuple(each for each in board.records if each is not record)
        self._room = room

    def __call__(self) -> bool:
        load = self._record.load
        return load < self._room or not any(
            each.load < load and _can_accept(each, time.monotonic()) for each in self._siblings
        )


def _can_accept(sibling: Record, now: float) -> bool:
    # One whose I/O loop does not turn cannot, however little it has to do.
    return sibling.state is State.READY and now - sibling.beat < FRESH_SECONDS and not sibling.is_wedged(now)
