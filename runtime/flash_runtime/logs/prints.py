"""Turns what user code prints into lines of the log."""

from __future__ import annotations

import contextvars
import io
import logging
import sys
from typing import BinaryIO, cast

from flash_runtime.logs.context import show_to_reader

_LINE_LIMIT = 64 * 1024


class PrintStream(io.TextIOBase):
    """A text stream whose lines become log records, in the context that printed them."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, name: str, level: int) -> None:
        super().__init__()
        self._logger = logging.getLogger(name)
        self._level = level
        # Requests may print at the same time: each context has its own unfinished line.
        self._begun: contextvars.ContextVar[str] = contextvars.ContextVar(f"flash_{name}", default="")

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (self._begun.get() + text).split("\n")
        if len(rest) > _LINE_LIMIT:
            lines, rest = [*lines, rest], ""
        self._begun.set(rest)
        for line in lines:
            if line.strip():
                self._emit(line.rstrip("\r"))
        return len(text)

    def flush(self) -> None:
        rest = self._begun.get()
        if rest:
            self._begun.set("")
            self._emit(rest)

    def _emit(self, line: str) -> None:
        show_to_reader(line)  # also if its level is not logged
        # Not through `Logger.log`: the user's logging configuration may have disabled the logger.
        if self._level >= self._logger.level:
            record = self._logger.makeRecord(self._logger.name, self._level, "", 0, "%s", (line,), None)
            for handler in self._logger.handlers:
                handler.handle(record)

    def fileno(self) -> int:
        return 1 if self._logger.name == "stdout" else 2

    @property
    def buffer(self) -> BinaryIO:
        """The process's own stream, for code that writes bytes. They do not become records."""
        stream = sys.__stdout__ if self._logger.name == "stdout" else sys.__stderr__
        if stream is None:
            raise AttributeError("buffer")
        return cast(BinaryIO, stream.buffer)


def capture_prints() -> None:
    """Turn what user code prints into records of the loggers `stdout` and `stderr`, one for each line."""
    sys.stdout = PrintStream("stdout", logging.INFO)
    sys.stderr = PrintStream("stderr", logging.WARNING)


def end_printed_lines() -> None:
    """Log the unfinished line that was printed in this context, if any."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, PrintStream):
            stream.flush()
