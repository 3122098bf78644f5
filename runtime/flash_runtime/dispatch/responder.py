"""Responders: what answers requests without FastAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp, Send

from flash_runtime.dispatch.request import DispatchedRequest


class Reply(NamedTuple):
    """A whole response. Its parts are written one after the other; large ones are not copied."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    parts: Sequence[bytes | memoryview]


WholeResponse = bytes | Reply
"""A response in one piece: the JSON of a 200, or a reply."""
ResponderResult = WholeResponse | ASGIApp | None
"""What a responder makes of a request: a whole response; an ASGI application that responds, on the
application loop; or `None` if FastAPI has to respond."""


class Responder(Protocol):
    """Responds to requests: `respond_in_thread` if it is `in_thread`, else `respond`."""

    in_thread: bool

    async def respond(self, request: DispatchedRequest) -> ResponderResult:
        """Respond on the application loop."""

    def respond_in_thread(self, request: DispatchedRequest) -> ResponderResult:
        """Respond in a handler thread, while the application loop goes on."""


class ThreadResponder:
    """Base of the responders that run in handler threads only."""

    in_thread = True

    async def respond(self, request: DispatchedRequest) -> ResponderResult:
        """Never called: it is `in_thread`."""
        raise NotImplementedError


async def send_reply(reply: Reply, send: Send) -> None:
    """Send the reply as ASGI messages."""
    length = sum(len(part) for part in reply.parts)
    headers = [*reply.headers, (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    *before, last = reply.parts
    for part in before:
        await send({"type": "http.response.body", "body": bytes(part), "more_body": True})
    await send({"type": "http.response.body", "body": bytes(last)})
