"""Capture: what one call prints and logs, beside others that run at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flash_runtime.logs.context import line_reader

LIMIT = 64 * 1024
"""Characters that are kept of a call."""


class Capture:
    """The lines of one call, up to a limit; past it they are only counted."""

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
        """All of it; the last line says how many were left out."""
        end = [f"… and {self._left_out} lines more, which are in the log"] if self._left_out else []
        return "".join(f"{line}\n" for line in [*self._lines, *end])


@contextmanager
def capturing(capture: Capture | None = None) -> Iterator[Capture]:
    """Capture what is printed and logged in this context, and in those made in it, until the block ends."""
    capture = capture or Capture()
    token = line_reader.set(capture.add)
    try:
        yield capture
    finally:
        line_reader.reset(token)
