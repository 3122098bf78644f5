"""An exchange: one request on its way to the application and back."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import Message

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply, Responder, WholeResponse

STREAM_WINDOW = 256 * 1024
"""Bytes of a streamed response that may be on their way; past it, the application's `send` waits."""


class Receiver(Protocol):
    """Gets what comes back of one request, on the I/O loop."""

    def on_json(self, body: bytes) -> None:
        """The response is a 200 with this JSON."""

    def on_reply(self, reply: Reply) -> None:
        """The response, whole."""

    def on_message(self, message: Message) -> None:
        """A message of an ASGI response."""

    def on_failure(self) -> None:
        """The application is done and has not finished its response."""

    def on_end(self) -> None:
        """The application is done: maybe long after its response, or after the client has left."""


class Exchange:
    """One request on its way there and back, and how far it is.

    `cancel` is called on the I/O loop, everything else on the application loop or, before that, in the
    handler thread that has the request.
    """

    __slots__ = (
        "_acknowledged",
        "_disconnected",
        "_ended",
        "_sent",
        "_taken",
        "_task",
        "_window",
        "cancelled",
        "finished",
        "receiver",
        "request",
        "responder",
    )

    def __init__(self, request: DispatchedRequest, responder: Responder | None, receiver: Receiver) -> None:
        self.request = request
        self.responder = responder
        self.receiver = receiver
        self.cancelled = False
        """Whether nobody waits for the response any more."""
        self.finished = False
        """Whether the last part of the response was sent."""
        self._ended = False
        self._taken = False
        self._task: asyncio.Task[WholeResponse | None] | None = None
        self._disconnected: asyncio.Event | None = None
        self._window: asyncio.Event | None = None
        self._sent = 0
        self._acknowledged = 0

    def cancel(self) -> None:
        """Note that nobody waits for the response any more."""
        self.cancelled = True

    def interrupt(self) -> None:
        """Cancel the task, and wake what waits for the client."""
        if self._disconnected is not None:
            self._disconnected.set()
        if self._window is not None:
            self._window.set()
        if self._task is not None:
            self._task.cancel()

    def run_in(self, task: asyncio.Task[WholeResponse | None]) -> None:
        """Note the task that answers the request."""
        self._task = task

    def take_body(self) -> bytes | None:
        """The body, once; `None` from then on."""
        if self._taken:
            return None
        self._taken = True
        return bytes(self.request.body)

    async def wait_for_disconnect(self) -> None:
        """Wait until the client has left, or has the whole response."""
        if not self.cancelled and not self.finished:
            self._disconnected = self._disconnected or asyncio.Event()
            await self._disconnected.wait()

    async def wait_for_client(self, count: int) -> None:
        """Note that `count` more bytes are on their way. Waits while these are more than a window's."""
        self._sent += count
        while self._sent - self._acknowledged >= STREAM_WINDOW and not self.cancelled:
            self._window = asyncio.Event()
            await self._window.wait()
        if self.cancelled:
            await asyncio.sleep(0)  # a task is only cancelled where it waits

    def acknowledge(self, count: int) -> None:
        """Note that the client took `count` bytes: a stream may send as many more."""
        self._acknowledged += count
        if self._window is not None and self._sent - self._acknowledged < STREAM_WINDOW:
            self._window.set()

    def finish(self) -> None:
        """Note that the last part of the response was sent."""
        self.finished = True
        if self._disconnected is not None:
            self._disconnected.set()

    def end(self) -> bool:
        """Note that the application is done; false if that was noted before."""
        if self._ended:
            return False
        self._ended = True
        return True

    def end_if_done(self) -> bool:
        """Note that the application is done, if its task is. True if so, and not noted before."""
        return self._task is not None and self._task.done() and self.end()
