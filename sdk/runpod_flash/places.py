"""Where user code stands: for errors, which name the line that is to be mended."""

from __future__ import annotations

import sys

_HERE = __file__.rpartition("/")[0]


def caller() -> str:
    """` at file:line` of the nearest frame outside of this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return f" at {frame.f_code.co_filename}:{frame.f_lineno}"
