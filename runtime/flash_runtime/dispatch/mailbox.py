"""A mailbox: what one thread or loop hands to another loop, with one wake-up for all that waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Hands items to `deliver` on `loop`, from any thread, waking the loop once for all that wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[T], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._woken = False
        self._to_wake = False

    def put(self, item: T) -> None:
        """From any thread: hand over the item now."""
        self._items.append(item)
        self._wake()

    def put_with_others(self, item: T, sender: asyncio.AbstractEventLoop) -> None:
        """From the `sender`'s loop alone: hand over the item at the end of its turn, with those that follow.

        A loop that wakes the other at once has it compete for the interpreter's lock, item by item.
        """
        self._items.append(item)
        if not self._to_wake:
            self._to_wake = True
            sender.call_soon(self._wake_for_all)

    def _wake_for_all(self) -> None:
        self._to_wake = False
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # Cleared first: an item that is put from now on wakes the loop again.
        self._woken = False
        items = self._items
        try:
            # Not what comes meanwhile: the loop has other work, too.
            for _ in range(len(items)):
                self._deliver(items.popleft())
        finally:
            if items and not self._woken:  # one of them raised
                self._loop.call_soon(self._drain)
