"""The call that the current task or thread works on: how long it may still take."""

from __future__ import annotations

import contextvars
import time

DEFAULT_SECONDS = 330.0
"""Outside of a call: as long as a request may take by default."""

deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("flash_deadline", default=None)
"""On the clock of `time.monotonic()`."""


def seconds_left() -> float:
    """Seconds until the deadline, more than 0."""
    moment = deadline.get()
    return DEFAULT_SECONDS if moment is None else max(moment - time.monotonic(), 0.001)
