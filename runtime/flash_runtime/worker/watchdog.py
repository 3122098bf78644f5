"""The watchdog: sees from the I/O loop whether the application loop turns, and what holds it.

A coroutine that blocks holds up every other handler of its worker. The log says so once for each route. If it
lasts for longer than the stall timeout, the worker is wedged.
"""

from __future__ import annotations

import logging
import sys
import threading
import time

from flash_runtime.dispatch.bridge import Bridge
from flash_runtime.usercode.tracebacks import user_stack

log = logging.getLogger("flash_runtime.stalls")

NOTICE_SECONDS = 0.25
"""A loop that stands still for longer is worth a line in the log."""
_ELSEWHERE = "code outside of a handler"


class Watchdog:
    """Watches the loop of `bridge`'s application. Call `tick` on the I/O loop, several times a second.

    The application loop is the main thread's.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._call_on_app_loop = bridge.call_on_app_loop
        self._current = bridge.current
        self._moved = self._called = time.monotonic()
        self._came = True
        """Whether the application loop made the last call."""
        self._holder: str | None = None
        self._named: set[str] = set()

    def tick(self) -> float:
        """When the loop is last known to have turned, on the clock of `time.monotonic()`."""
        now = time.monotonic()
        if self._came:
            if self._holder is not None:
                self._report(self._holder, self._moved - self._called)
                self._holder = None
            self._came, self._called = False, now
            self._call_on_app_loop(self._note_turn)
        elif self._holder is None and now - self._called > NOTICE_SECONDS:
            self._holder = self._current() or _ELSEWHERE
        return self._moved

    def describe(self) -> str:
        """What holds the loop, for how long, and where: the innermost frames are last."""
        holder = self._holder or self._current() or _ELSEWHERE
        held = time.monotonic() - self._moved
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        return f"{holder} has held the application loop for {held:.1f} s:\n{user_stack(frame)}"

    def _note_turn(self) -> None:
        # On the application loop. The order matters: `tick` reads them the other way round.
        self._moved = time.monotonic()
        self._came = True

    def _report(self, holder: str, seconds: float) -> None:
        if holder in self._named:
            return
        self._named.add(holder)
        log.warning(
            "%s held the application loop for %.1f s, and other requests of this worker waited: "
            "write a handler that blocks with `def`, not `async def`",
            holder, seconds,
            extra={"held_by": holder, "seconds": round(seconds, 2)},
        )  # fmt: skip
