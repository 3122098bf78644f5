"""The context of the current task or thread: its request's id, deadline, and reader of log lines."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable

DEFAULT_SECONDS = 330.0
"""The default timeout of a request; also used outside of one."""

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("flash_request_id", default=None)
"""The id of the request that the current task or thread works on; `None` outside of one."""

deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("flash_deadline", default=None)
"""On the clock of `time.monotonic()`."""

line_reader: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar(
    "flash_line_reader", default=None
)
"""Called with each line that user code prints or logs in this context, if it is not `None`."""


def seconds_left() -> float:
    """Seconds until the deadline; always more than 0."""
    moment = deadline.get()
    return DEFAULT_SECONDS if moment is None else max(moment - time.monotonic(), 0.001)


def show_to_reader(line: str) -> None:
    """Pass the line to this context's `line_reader`, if there is one."""
    read = line_reader.get()
    if read is not None:
        read(line)
