"""An exchange: one request on its way to the application and back."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import Message

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply, Responder, WholeResponse


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
    """One request on its way there and back. Comments say which side writes which attributes."""

    __slots__ = (
        "acknowledged",
        "cancelled",
        "disconnected",
        "ended",
        "finished",
        "receiver",
        "request",
        "responder",
        "sent",
        "taken",
        "task",
        "window",
    )

    def __init__(self, request: DispatchedRequest, responder: Responder | None, receiver: Receiver) -> None:
        self.request = request
        self.responder = responder
        self.receiver = receiver
        # Written by the I/O loop.
        self.cancelled = False
        """Whether nobody waits for the response any more."""
        # Written by the application loop, or by the thread that has the request.
        self.task: asyncio.Task[WholeResponse | None] | None = None
        self.taken = False
        """Whether the application has read the body."""
        self.disconnected: asyncio.Event | None = None
        """Set when the client has left, or has the whole response; made if the application waits for it."""
        self.finished = False
        """Whether the last part of the response was sent."""
        self.ended = False
        """Whether the application is done."""
        self.window: asyncio.Event | None = None
        """Set when a stream that waits for its client may go on."""
        self.sent = 0
        self.acknowledged = 0
        """Bytes of a streamed response: sent, and taken by the client."""
