"""Finds the line of user code that errors name."""

from __future__ import annotations

import sys

_HERE = __file__.rpartition("/")[0]


def caller() -> str:
    """The text ` at file:line` for the nearest frame outside of this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return f" at {frame.f_code.co_filename}:{frame.f_lineno}"
