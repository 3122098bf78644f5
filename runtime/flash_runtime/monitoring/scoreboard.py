"""The scoreboard: what every worker is doing, in memory that all processes share.

One writer a field, any reader. The supervisor writes the container's phase; a record is written by the
worker that holds it, and by the supervisor before that worker is forked and after it has ended. Each field is
aligned and written with one store, so a reader sees an old value or a new one.
"""

from __future__ import annotations

import mmap
import os
import time
from enum import IntEnum
from typing import NamedTuple

_HEADER_BYTES = 64
_RECORD_BYTES = 32 * 1024
# Bytes from the header's start: one byte, then 32-bit integers.
_PHASE, _GIVEN_UP, _RESTARTS, _FAILING, _CUT_BY_KILL = 0, 4, 8, 12, 16
# Bytes from a record's start: a byte; integers; doubles; 64-bit counters; the text of a fault.
_STATE, _PID, _SLOT, _RUNNING, _WAITING, _LOAD, _IN_FLIGHT, _EXIT_CODE, _FAULT_BYTES = range(0, 36, 4)
_RESIDENT, _TOLD = 36, 184
_SINCE, _BEAT, _MOVED, _SECONDS, _OUTCOMES, _FORKED, _IMPORTED, _FAULT = 40, 48, 56, 64, 72, 136, 144, 192
_FAULT_LIMIT = _RECORD_BYTES - _FAULT
_FAULT_HEAD = 4 * 1024
FRESH_SECONDS = 1.0
"""An I/O loop that is well beats ten times a second; one that has not for so long cannot accept now."""


class Phase(IntEnum):
    """What the container as a whole is about; written by the supervisor."""

    STARTING = 0
    """Waiting for the artifact, unpacking it, importing the framework."""
    RUNNING = 1
    """Workers are being kept; whether one is ready stands in the records."""
    LEAVING = 2
    """Told to stop: health says so, and requests are still served until the orchestrator has seen it."""
    DRAINING = 3
    """New connections are refused; requests in flight are finished."""
    FAILED = 4


class State(IntEnum):
    """What a record's worker is about."""

    EMPTY = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


class Outcome(IntEnum):
    """What became of a request. Health is not counted."""

    ANSWERED = 0
    """The application's response was sent whole; its status is below 500."""
    FAILED = 1
    """The handler raised, or its response broke off."""
    REFUSED = 2
    """The gate refused it for what it is: without the key, too large, not whole in time."""
    SHED = 3
    """There was no room for it: 503 at once."""
    TIMED_OUT = 4
    """Its time was over before its answer was there: 504."""
    GONE_WAITING = 5
    """Its client left before it was run."""
    GONE_RUNNING = 6
    """Its client left while it ran."""
    CUT = 7
    """Its worker ended or was replaced before it was answered."""


class ReportedFault(NamedTuple):
    """Why a worker has ended: the exit code, and the text for the log."""

    exit_code: int
    text: str


class Record:
    """One worker's part of the scoreboard. Times are `time.monotonic()`."""

    def __init__(self, board: Scoreboard, number: int) -> None:
        start = _HEADER_BYTES + number * _RECORD_BYTES
        self.number = number
        self._board = board
        self._start = start
        self._bytes = board.memory
        self._integers = board.memory.cast("i")
        self._doubles = board.memory.cast("d")
        self._counters = board.memory.cast("q")
        self._integer = start // 4
        self._double = start // 8

    @property
    def state(self) -> State:
        return State(self._bytes[self._start + _STATE])

    def set_state(self, state: State, pid: int) -> None:
        """Say what the worker is about from now on."""
        now = time.monotonic()
        self._put_double(_SINCE, now)
        self._put_double(_BEAT, now)
        self._put_double(_MOVED, now)
        self._put(_PID, pid)
        self._bytes[self._start + _STATE] = state
        self._board.wake()

    @property
    def pid(self) -> int:
        return self._get(_PID)

    @property
    def slot(self) -> int:
        """The number of the slot that the worker has, or had."""
        return self._get(_SLOT)

    @property
    def since(self) -> float:
        """When the present state began."""
        return self._get_double(_SINCE)

    @property
    def forked_at(self) -> float:
        """When the worker had become one of its own, and began to import user code."""
        return self._get_double(_FORKED)

    def note_forked(self) -> None:
        self._put_double(_FORKED, time.monotonic())

    @property
    def imported_at(self) -> float:
        """When user code was imported, and its application built."""
        return self._get_double(_IMPORTED)

    def note_imported(self) -> None:
        self._put_double(_IMPORTED, time.monotonic())

    @property
    def running(self) -> int:
        """Requests that the worker runs."""
        return self._get(_RUNNING)

    @property
    def waiting(self) -> int:
        """Requests that wait in the worker for one of these to end."""
        return self._get(_WAITING)

    @property
    def load(self) -> int:
        """By what workers leave connections to each other: how many requests each has, or connections."""
        return self._get(_LOAD)

    @property
    def in_flight(self) -> int:
        """Requests that the worker has not answered yet, those whose bodies are still to come among them."""
        return self._get(_IN_FLIGHT)

    def set_in_flight(self, count: int) -> None:
        self._integers[self._integer + _IN_FLIGHT // 4] = count

    @property
    def drain_requested(self) -> bool:
        """Whether the worker is to drain; written by the supervisor, also while the worker has the record."""
        return bool(self._get(_TOLD))

    def request_drain(self, requested: bool = True) -> None:
        """Have the worker drain, or not."""
        self._put(_TOLD, requested)

    @property
    def resident_when_ready(self) -> int:
        """MiB of memory that the worker had in use when it became ready, rounded up."""
        return self._get(_RESIDENT)

    def set_resident_when_ready(self, mebibytes: int) -> None:
        self._put(_RESIDENT, mebibytes)

    def set_requests(self, running: int, waiting: int) -> None:
        integers, start = self._integers, self._integer
        integers[start + _RUNNING // 4] = running
        integers[start + _WAITING // 4] = waiting

    def set_load(self, load: int) -> None:
        self._integers[self._integer + _LOAD // 4] = load

    @property
    def beat(self) -> float:
        """When the worker's I/O loop last turned."""
        return self._get_double(_BEAT)

    @property
    def moved(self) -> float:
        """When the worker's application loop is last known to have turned."""
        return self._get_double(_MOVED)

    def set_beat(self, beat: float, moved: float) -> None:
        self._put_double(_MOVED, moved)
        self._put_double(_BEAT, beat)

    def is_wedged(self, now: float) -> bool:
        """Whether its application loop stands still for longer than the stall timeout."""
        limit = self._board.stall_timeout
        return bool(limit) and self.state is State.READY and now - self.moved > limit

    def count(self, outcome: Outcome, seconds: float) -> None:
        """Note that a request ended so, `seconds` after it came."""
        self._counters[self._double + _OUTCOMES // 8 + outcome] += 1
        self._doubles[self._double + _SECONDS // 8] += seconds

    def outcomes(self) -> dict[Outcome, int]:
        """How many requests ended in which way, of this worker and of those that had the record before."""
        start = self._double + _OUTCOMES // 8
        return {outcome: self._counters[start + outcome] for outcome in Outcome}

    def requests(self) -> int:
        """How many requests have ended, likewise."""
        return sum(self.outcomes().values())

    @property
    def seconds(self) -> float:
        """How long they took, added up."""
        return self._get_double(_SECONDS)

    def report_fault(self, exit_code: int, text: str) -> None:
        """Leave for the supervisor why the worker ends; head and end are kept of a long text."""
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > _FAULT_LIMIT:
            encoded = encoded[:_FAULT_HEAD] + b"\n...\n" + encoded[_FAULT_HEAD + 5 - _FAULT_LIMIT :]
        start = self._start + _FAULT
        self._bytes[start : start + len(encoded)] = encoded
        self._put(_EXIT_CODE, exit_code)
        self._put(_FAULT_BYTES, len(encoded))

    def reported_fault(self) -> ReportedFault | None:
        """The exit code and text that the worker reported, or `None`."""
        length = self._get(_FAULT_BYTES)
        if length == 0:
            return None
        start = self._start + _FAULT
        text = bytes(self._bytes[start : start + length]).decode("utf-8", "replace")
        return ReportedFault(self._get(_EXIT_CODE), text)

    def prepare(self, slot: int) -> None:
        """Make the record ready for a worker of that slot. What was counted stays: it is the container's."""
        self._put(_FAULT_BYTES, 0)
        self.request_drain(False)
        self._put(_SLOT, slot)
        self.clear()

    def clear(self) -> None:
        """Say that no worker has the record."""
        self.set_requests(0, 0)
        self.set_load(0)
        self.set_in_flight(0)
        self.set_state(State.EMPTY, 0)

    def _get(self, field: int) -> int:
        return self._integers[self._integer + field // 4]

    def _put(self, field: int, value: int) -> None:
        self._integers[self._integer + field // 4] = value

    def _get_double(self, field: int) -> float:
        return self._doubles[self._double + field // 8]

    def _put_double(self, field: int, value: float) -> None:
        self._doubles[self._double + field // 8] = value


class Scoreboard:
    """Shared memory for the workers of `slots` slots. Create it before the first fork.

    There is a record more than slots: while a worker is replaced, its replacement may boot beside it.
    `stall_timeout` is in seconds; 0 means that no worker is ever taken for wedged.
    """

    def __init__(self, slots: int, stall_timeout: float = 0) -> None:
        self.slots = slots
        self.stall_timeout = stall_timeout
        self.memory = memoryview(mmap.mmap(-1, _HEADER_BYTES + (slots + 1) * _RECORD_BYTES))
        self.records = tuple(Record(self, number) for number in range(slots + 1))
        self._integers = self.memory.cast("i")
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    @property
    def wake_fd(self) -> int:
        """Readable whenever something changed that health depends on; see `drain_wakes`."""
        return self._wake_reader

    def drain_wakes(self) -> None:
        """Empty `wake_fd`."""
        try:
            while os.read(self._wake_reader, 4096):
                pass
        except BlockingIOError:
            pass

    def wake(self) -> None:
        """Make `wake_fd` readable."""
        try:
            os.write(self._wake_writer, b"!")
        except BlockingIOError:
            pass  # the pipe is full of wakes already

    @property
    def phase(self) -> Phase:
        return Phase(self.memory[_PHASE])

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self.memory[_PHASE] = phase
        self.wake()

    @property
    def given_up(self) -> int:
        """Slots that are no longer used, since their device keeps failing."""
        return self._integers[_GIVEN_UP // 4]

    @given_up.setter
    def given_up(self, count: int) -> None:
        self._integers[_GIVEN_UP // 4] = count

    @property
    def restarts(self) -> int:
        """Workers that ended without having been told to."""
        return self._integers[_RESTARTS // 4]

    @restarts.setter
    def restarts(self, count: int) -> None:
        self._integers[_RESTARTS // 4] = count

    @property
    def failing(self) -> bool:
        """Whether the workers of some slot keep ending."""
        return bool(self._integers[_FAILING // 4])

    @failing.setter
    def failing(self, failing: bool) -> None:
        self._integers[_FAILING // 4] = failing

    @property
    def cut_by_kill(self) -> int:
        """Requests that were in workers which ended without a word."""
        return self._integers[_CUT_BY_KILL // 4]

    @cut_by_kill.setter
    def cut_by_kill(self, count: int) -> None:
        self._integers[_CUT_BY_KILL // 4] = count

    def ready(self) -> tuple[Record, ...]:
        """The records of workers that serve: ready, and not wedged."""
        now = time.monotonic()
        return tuple(each for each in self.records if each.state is State.READY and not each.is_wedged(now))

    def any_ready(self) -> bool:
        return bool(self.ready())

    def any_wedged(self) -> bool:
        now = time.monotonic()
        return any(each.is_wedged(now) for each in self.records)

    def outcomes(self) -> dict[Outcome, int]:
        """How many of the container's requests ended in which way."""
        total = dict.fromkeys(Outcome, 0)
        for record in self.records:
            for outcome, count in record.outcomes().items():
                total[outcome] += count
        total[Outcome.CUT] += self.cut_by_kill
        return total
