"""Exceptions of user code as text. Making that text runs user code too, which may raise anything."""

from __future__ import annotations

import traceback
from types import FrameType, TracebackType

_NAME = type.__dict__["__name__"]
"""The name of a class as the interpreter knows it: a metaclass may return another, or raise."""


def kind_of(error: BaseException) -> str:
    """The name of its class."""
    return _NAME.__get__(type(error))  # type: ignore[no-any-return]


def text_of(error: BaseException) -> str:
    """The name of its class and its message, as in the last line of a traceback."""
    try:
        return f"{kind_of(error)}: {error}"
    except BaseException:  # noqa: BLE001  the message is user code's
        return f"{kind_of(error)}: (its message could not be made)"


def trace_of(error: BaseException) -> str:
    """The traceback from the user's first frame on."""
    try:
        return "".join(traceback.format_exception(type(error), error, user_traceback(error.__traceback__)))
    except BaseException:  # noqa: BLE001  user code again
        return f"{kind_of(error)}: (its traceback could not be made)\n"


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
    """The traceback from the first frame that is not the framework's. All of it if there is none."""
    current = trace
    while current is not None:
        if not _is_framework(current.tb_frame):
            return current
        current = current.tb_next
    return trace


def user_stack(innermost: FrameType | None) -> str:
    """A running thread's stack from the first frame that is not the framework's. The innermost is last."""
    frames = list(traceback.walk_stack(innermost))[::-1]
    first = next((index for index, (frame, _) in enumerate(frames) if not _is_framework(frame)), 0)
    summary = traceback.StackSummary.extract(iter(frames[first:]))
    return "".join(traceback.format_list(summary)).rstrip()


def _is_framework(frame: FrameType) -> bool:
    package: str = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in _FRAMEWORK
