"""Frames: which part of a traceback is the user's; what calls a handler says nothing about it."""

from __future__ import annotations

import traceback
from types import FrameType, TracebackType

_FRAMEWORK = frozenset(
    {
        "__main__",
        "anyio",
        "asyncio",
        "concurrent",
        "contextlib",
        "fastapi",
        "flash_runtime",
        "gunicorn",
        "starlette",
        "threading",
    }
)
"""The packages that call a handler, and the module that started the process."""


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not the framework's; all of it where there is none."""
    current = trace
    while current is not None:
        if not _is_framework(current.tb_frame):
            return current
        current = current.tb_next
    return trace


def user_stack(innermost: FrameType | None) -> str:
    """A running thread's stack likewise, as text; the innermost frame is last."""
    frames = list(traceback.walk_stack(innermost))[::-1]
    first = next((index for index, (frame, _) in enumerate(frames) if not _is_framework(frame)), 0)
    summary = traceback.StackSummary.extract(iter(frames[first:]))
    return "".join(traceback.format_list(summary)).rstrip()


def _is_framework(frame: FrameType) -> bool:
    package: str = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in _FRAMEWORK
