"""Capture: what one call prints and logs, beside others that run at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flash_runtime.logs.context import line_reader
from flash_runtime.logs.prints import end_printed_lines

LIMIT = 64 * 1024
"""Characters that are kept of a call."""


class Capture:
    """The lines of one call, up to a limit. Lines past it are only counted."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._left_out = 0

    def add(self, line: str) -> None:
        if self._size + len(line) > LIMIT:
            self._left_out += 1
            return
        self._size += len(line) + 1
        self._lines.append(line)

    def text(self) -> str:
        """The lines. If some were left out, the last one says how many."""
        end = [f"… and {self._left_out} more lines, which are in the log"] if self._left_out else []
        return "".join(f"{line}\n" for line in [*self._lines, *end])


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Capture what is printed and logged in this context, and in contexts made from it, during the block."""
    token = line_reader.set(capture.add)
    try:
        yield
    finally:
        end_printed_lines()
        line_reader.reset(token)
