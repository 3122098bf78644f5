"""User code's exceptions as text. What makes that text is user code too, and may raise anything itself."""

from __future__ import annotations

import traceback

from flash_runtime.frames import user_traceback

_NAME = type.__dict__["__name__"]
"""The name of a class as the interpreter has it: a metaclass may say something else, or raise."""


def kind_of(error: BaseException) -> str:
    """The name of its class."""
    return _NAME.__get__(type(error))  # type: ignore[no-any-return]


def text_of(error: BaseException) -> str:
    """The name of its class and its message, as the last line of a traceback has them."""
    try:
        return f"{kind_of(error)}: {error}"
    except BaseException:  # noqa: BLE001  the message is user code's
        return f"{kind_of(error)}: (its message could not be made)"


def trace_of(error: BaseException) -> str:
    """The traceback from the user's first frame on."""
    try:
        return "".join(traceback.format_exception(type(error), error, user_traceback(error.__traceback__)))
    except BaseException:  # noqa: BLE001  so it is here
        return f"{kind_of(error)}: (its traceback could not be made)\n"
