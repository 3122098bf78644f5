"""The scoreboard: what every worker is doing, in memory that all processes share.

Each field has one writer at a time and any number of readers. The supervisor writes the container's fields. A
record is written by the worker that holds it, and by the supervisor before that worker is forked and after it
has ended; `drain_requested` is always the supervisor's.

No reader sees half of a value, and no lock is needed. ctypes aligns each field of a structure to its size. It
writes a simple field by a `memcpy` whose size is a constant 1, 4 or 8 bytes, as memoryview writes an item,
and compilers turn that into one store. Several fields that are written one after the other are several
stores: a reader may see the first one new and the next one old.
"""

from __future__ import annotations

import mmap
import os
import time
from ctypes import Structure, c_bool, c_double, c_int32, c_int64, c_ubyte, sizeof
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

FRESH_SECONDS = 1.0
"""A healthy I/O loop beats ten times a second. One that has not for this long cannot accept now."""

_FAULT_LIMIT = 32 * 1024
_FAULT_HEAD = 4 * 1024

S = TypeVar("S", bound=type[Structure])


class _Field:
    def __init__(self, kind: Any) -> None:
        self.kind = kind


def _field(kind: Any) -> Any:
    """Declares a field of that C type. `Any`, since the class has a value of Python's in its place."""
    return _Field(kind)


def _laid_out(structure: S) -> S:
    """Class decorator: lays the declared fields out one after the other, in their order."""
    declared = [(name, each.kind) for name, each in vars(structure).items() if isinstance(each, _Field)]
    structure._fields_ = declared
    return structure


class Phase(IntEnum):
    """What the container as a whole is doing. The supervisor writes it."""

    STARTING = 0
    """Waiting for the artifact, unpacking it, importing the framework."""
    RUNNING = 1
    """The supervisor keeps workers running. The records say whether one is ready."""
    LEAVING = 2
    """Asked to stop: health says so, and requests are served until the orchestrator has noticed."""
    DRAINING = 3
    """New connections are refused; requests in flight are finished."""
    FAILED = 4


class State(IntEnum):
    """What a record's worker is doing."""

    EMPTY = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


class Outcome(IntEnum):
    """How a request ended. Health checks are not counted."""

    ANSWERED = 0
    """The application's response was sent whole, with a status below 500."""
    FAILED = 1
    """The handler raised, or its response broke off."""
    REFUSED = 2
    """The gate refused it: no valid key, too large, or not complete in time."""
    SHED = 3
    """The queue was full: 503 at once."""
    TIMED_OUT = 4
    """It was not answered before its timeout: 504."""
    GONE_WAITING = 5
    """Its client disconnected before it ran."""
    GONE_RUNNING = 6
    """Its client disconnected while it ran."""
    CUT = 7
    """Its worker ended or was replaced before it was answered."""


@_laid_out
class _Container(Structure):
    """What the supervisor says of the container as a whole."""

    phase: int = _field(c_ubyte)
    failing: bool = _field(c_bool)
    given_up: int = _field(c_int32)
    restarts: int = _field(c_int32)
    cut_by_kill: int = _field(c_int32)


class ReportedFault(NamedTuple):
    """Why a worker has ended: the exit code for the process, and the text for the log."""

    exit_code: int
    text: str


@_laid_out
class Record(Structure):
    """One worker's part of the scoreboard. Times are `time.monotonic()`.

    Read the fields as they are; write them by the methods below.
    """

    __slots__ = ("_board", "_outcomes", "_text", "number")  # with a `__dict__`, every access is slower

    _state: int = _field(c_ubyte)
    drain_requested: bool = _field(c_bool)
    """Whether the worker is to drain. The supervisor writes it, also while the worker holds the record."""
    pid: int = _field(c_int32)
    slot: int = _field(c_int32)
    """The number of the slot that the worker has, or had."""
    running: int = _field(c_int32)
    """Requests that the worker runs."""
    waiting: int = _field(c_int32)
    """Requests that wait in the worker until another one ends."""
    load: int = _field(c_int32)
    """How busy the worker is, for its siblings to compare: its requests, or its connections."""
    in_flight: int = _field(c_int32)
    """Requests that the worker has not answered yet, including those whose bodies are still arriving."""
    resident_when_ready: int = _field(c_int32)
    """MiB of memory that the worker had in use when it became ready, rounded up."""
    since: float = _field(c_double)
    """When the present state began."""
    forked_at: float = _field(c_double)
    """When the worker had been forked, and began to import user code."""
    imported_at: float = _field(c_double)
    """When user code was imported and its application built."""
    beat: float = _field(c_double)
    """When the worker's I/O loop last turned."""
    moved: float = _field(c_double)
    """When the worker's application loop is last known to have turned."""
    seconds: float = _field(c_double)
    """How long the requests that have ended took, added up."""
    _counts: Any = _field(c_int64 * len(Outcome))
    _exit_code: int = _field(c_int32)
    _fault_length: int = _field(c_int32)
    _fault_text: Any = _field(c_ubyte * _FAULT_LIMIT)

    @classmethod
    def of(cls, board: Scoreboard, number: int) -> Record:
        """The record of that number, laid over the board's memory."""
        record = cls.from_buffer(board.memory, number * sizeof(cls))
        record.number = number
        record._board = board
        # Reading an array field makes a new object each time, and writing to a view of one is faster.
        record._outcomes = memoryview(record._counts).cast("B").cast("q")
        record._text = memoryview(record._fault_text).cast("B")
        return record

    @property
    def state(self) -> State:
        return State(self._state)

    def set_state(self, state: State, pid: int) -> None:
        """Say what the worker is doing from now on."""
        self.since = self.beat = self.moved = time.monotonic()
        self.pid = pid
        self._state = state
        self._board.wake()

    def note_forked(self) -> None:
        self.forked_at = time.monotonic()

    def note_imported(self) -> None:
        self.imported_at = time.monotonic()

    def set_in_flight(self, count: int) -> None:
        self.in_flight = count

    def request_drain(self, requested: bool = True) -> None:
        self.drain_requested = requested

    def set_resident_when_ready(self, mebibytes: int) -> None:
        self.resident_when_ready = mebibytes

    def set_requests(self, running: int, waiting: int) -> None:
        self.running = running
        self.waiting = waiting

    def set_load(self, load: int) -> None:
        self.load = load

    def set_beat(self, beat: float, moved: float) -> None:
        self.moved = moved
        self.beat = beat

    def is_wedged(self, now: float) -> bool:
        """Whether its application loop has stood still for longer than the stall timeout."""
        limit = self._board.stall_timeout
        return bool(limit) and self._state == State.READY and now - self.moved > limit

    def count(self, outcome: Outcome, seconds: float) -> None:
        """Count a request that ended in this way, `seconds` after it came."""
        self._outcomes[outcome] += 1
        self.seconds += seconds

    def outcomes(self) -> dict[Outcome, int]:
        """How many requests ended in which way, of this worker and of those that had the record before."""
        return {outcome: self._outcomes[outcome] for outcome in Outcome}

    def requests(self) -> int:
        """How many requests have ended, of this worker and of those that had the record before."""
        return sum(self._outcomes)

    def report_fault(self, exit_code: int, text: str) -> None:
        """Leave for the supervisor why the worker ends. Of a long text, head and end are kept."""
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > _FAULT_LIMIT:
            encoded = encoded[:_FAULT_HEAD] + b"\n...\n" + encoded[_FAULT_HEAD + 5 - _FAULT_LIMIT :]
        self._text[: len(encoded)] = encoded
        self._exit_code = exit_code
        self._fault_length = len(encoded)

    def reported_fault(self) -> ReportedFault | None:
        """What the worker reported, or `None`."""
        length = self._fault_length
        if length == 0:
            return None
        return ReportedFault(self._exit_code, bytes(self._text[:length]).decode("utf-8", "replace"))

    def prepare(self, slot: int) -> None:
        """Make the record ready for a worker of that slot. Counts stay: they are the container's."""
        self._fault_length = 0
        self.request_drain(False)
        self.slot = slot
        self.clear()

    def clear(self) -> None:
        """Say that no worker has the record."""
        self.set_requests(0, 0)
        self.set_load(0)
        self.set_in_flight(0)
        self.set_state(State.EMPTY, 0)


class Scoreboard:
    """Shared memory for the workers of `slots` slots. Create it before the first fork.

    It has one record more than slots: a replacement may boot beside the worker that it replaces.
    `stall_timeout` is in seconds; with 0, no worker ever counts as wedged.
    """

    def __init__(self, slots: int, stall_timeout: float = 0) -> None:
        self.slots = slots
        self.stall_timeout = stall_timeout
        count = slots + 1
        self.memory = mmap.mmap(-1, count * sizeof(Record) + sizeof(_Container))
        self.records = tuple(Record.of(self, number) for number in range(count))
        # After the records, which need the wider alignment.
        self._container = _Container.from_buffer(self.memory, count * sizeof(Record))
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    @property
    def wake_fd(self) -> int:
        """Readable after a change that health depends on; see `drain_wakes`."""
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
        return Phase(self._container.phase)

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._container.phase = phase
        self.wake()

    @property
    def given_up(self) -> int:
        """Slots that are no longer used because their device keeps failing."""
        return self._container.given_up

    @given_up.setter
    def given_up(self, count: int) -> None:
        self._container.given_up = count

    @property
    def restarts(self) -> int:
        """Workers that ended although nobody had asked them to."""
        return self._container.restarts

    @restarts.setter
    def restarts(self, count: int) -> None:
        self._container.restarts = count

    @property
    def failing(self) -> bool:
        """Whether the workers of some slot keep ending."""
        return self._container.failing

    @failing.setter
    def failing(self, failing: bool) -> None:
        self._container.failing = failing

    @property
    def cut_by_kill(self) -> int:
        """Requests that were in workers which were killed, and could not count them."""
        return self._container.cut_by_kill

    @cut_by_kill.setter
    def cut_by_kill(self, count: int) -> None:
        self._container.cut_by_kill = count

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
