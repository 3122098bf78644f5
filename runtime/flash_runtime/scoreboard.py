"""The scoreboard: what every worker is doing, in memory that all processes share.

One writer a record, any reader. The supervisor writes the container's phase; a slot's record is written by
the worker that holds the slot, and by the supervisor before that worker is forked and after it has ended.
Each field is aligned and written with one store, so a reader sees an old value or a new one.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from enum import IntEnum

_PHASE = 0
_HEADER_BYTES = 64
# A slot's record: state, pid, since, in flight, then the text of a boot failure.
_STATE, _PID, _SINCE, _IN_FLIGHT, _EXIT_CODE, _FAULT_BYTES, _FAULT = 0, 4, 8, 16, 20, 24, 64
_SLOT_BYTES = 32 * 1024
_FAULT_LIMIT = _SLOT_BYTES - _FAULT
_FAULT_HEAD = 4 * 1024


class Phase(IntEnum):
    """What the container as a whole is about; written by the supervisor."""

    STARTING = 0
    """Waiting for the artifact, unpacking it, importing the framework."""
    RUNNING = 1
    """Workers are being kept; whether one is ready stands in the slots."""
    DRAINING = 2
    FAILED = 3


class State(IntEnum):
    """What a slot's worker is about."""

    EMPTY = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


class Scoreboard:
    """Shared memory for `slots` workers. Create it before the first fork; times are `time.monotonic()`."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, _HEADER_BYTES + slots * _SLOT_BYTES)
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

    @property
    def phase(self) -> Phase:
        return Phase(self._memory[_PHASE])

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._memory[_PHASE] = phase
        self._wake()

    def state(self, slot: int) -> State:
        return State(self._memory[self._at(slot, _STATE)])

    def set_state(self, slot: int, state: State, pid: int) -> None:
        """Say what the slot's worker is about from now on."""
        struct.pack_into("=d", self._memory, self._at(slot, _SINCE), time.monotonic())
        struct.pack_into("=i", self._memory, self._at(slot, _PID), pid)
        self._memory[self._at(slot, _STATE)] = state
        self._wake()

    def pid(self, slot: int) -> int:
        return self._integer(slot, _PID)

    def since(self, slot: int) -> float:
        """When the slot's present state began."""
        since: float = struct.unpack_from("=d", self._memory, self._at(slot, _SINCE))[0]
        return since

    def in_flight(self, slot: int) -> int:
        """Requests that the slot's worker has accepted and not yet answered."""
        return self._integer(slot, _IN_FLIGHT)

    def set_in_flight(self, slot: int, count: int) -> None:
        struct.pack_into("=i", self._memory, self._at(slot, _IN_FLIGHT), count)

    def any_ready(self) -> bool:
        return any(self._memory[self._at(slot, _STATE)] == State.READY for slot in range(self.slots))

    def report_fault(self, slot: int, exit_code: int, text: str) -> None:
        """Leave for the supervisor why the worker could not boot; head and end are kept of a long text."""
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > _FAULT_LIMIT:
            encoded = encoded[:_FAULT_HEAD] + b"\n...\n" + encoded[_FAULT_HEAD + 5 - _FAULT_LIMIT :]
        start = self._at(slot, _FAULT)
        self._memory[start : start + len(encoded)] = encoded
        struct.pack_into("=i", self._memory, self._at(slot, _EXIT_CODE), exit_code)
        struct.pack_into("=i", self._memory, self._at(slot, _FAULT_BYTES), len(encoded))

    def fault(self, slot: int) -> tuple[int, str] | None:
        """The exit code and text that the slot's worker reported, or `None`."""
        length = self._integer(slot, _FAULT_BYTES)
        if length == 0:
            return None
        start = self._at(slot, _FAULT)
        return self._integer(slot, _EXIT_CODE), self._memory[start : start + length].decode(
            "utf-8", "replace"
        )

    def clear(self, slot: int) -> None:
        """Make the record ready for the slot's next worker."""
        struct.pack_into("=i", self._memory, self._at(slot, _FAULT_BYTES), 0)
        self.set_in_flight(slot, 0)
        self.set_state(slot, State.EMPTY, 0)

    def _at(self, slot: int, field: int) -> int:
        return _HEADER_BYTES + slot * _SLOT_BYTES + field

    def _integer(self, slot: int, field: int) -> int:
        value: int = struct.unpack_from("=i", self._memory, self._at(slot, field))[0]
        return value

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"!")
        except BlockingIOError:
            pass  # the pipe is full of wakes already
