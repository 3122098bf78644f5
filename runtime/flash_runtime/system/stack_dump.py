"""Dumps the stacks of a worker that cannot do it itself because C code holds the interpreter's lock.

On a signal, the interpreter's fault handler writes the Python frames of every thread into a file that both
processes have open. It needs neither the lock nor memory.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
import time
from typing import IO

from flash_runtime.system.processes import scratch_directory

_SIGNAL = signal.SIGUSR1
_ANSWER_SECONDS = 0.5
_POLL_SECONDS = 0.02
_LIMIT = 16 * 1024


class StackFile:
    """Create it before the fork. Then `listen` in the worker, and `ask` in the supervisor."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=scratch_directory())  # noqa: SIM115  kept open

    def listen(self) -> None:
        """Write this process's stacks whenever the signal arrives."""
        faulthandler.unregister(_SIGNAL)  # else a handler that user code has set would stay
        faulthandler.register(_SIGNAL, self._file, all_threads=True, chain=False)

    def ask(self, pid: int) -> str:
        """The process's stacks, each thread's innermost frame first. Empty if there is no answer."""
        descriptor = self._file.fileno()
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)  # both processes share the offset
        try:
            os.kill(pid, _SIGNAL)
        except ProcessLookupError:
            return ""
        deadline = time.monotonic() + _ANSWER_SECONDS
        size = -1
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            before, size = size, os.fstat(descriptor).st_size
            if size == before > 0:
                break
        return os.pread(descriptor, _LIMIT, 0).decode("utf-8", "replace").rstrip()
