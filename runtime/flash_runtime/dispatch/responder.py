"""Answering: what the bridge asks of whoever answers requests without FastAPI, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from starlette.types import ASGIApp, Send


class Reply(NamedTuple):
    """A whole response. Its parts follow each other, and large ones are not copied to be written."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    parts: Sequence[bytes | memoryview]


Outcome = bytes | Reply | ASGIApp | None
"""Of a request: the JSON of a 200; a whole response; an application that answers, on the application loop;
`None` where the whole application must."""


class Asked(Protocol):
    """A request, whole."""

    request_id: str
    path_values: dict[str, Any]

    @property
    def query_string(self) -> bytes:
        """What comes after the path, still encoded."""

    @property
    def body(self) -> bytes | bytearray:
        """The whole body."""

    @property
    def content_type(self) -> bytes:
        """What the body says that it is, or nothing."""


class Answering(Protocol):
    """Answers requests: on the application loop by `answer`, or, where it is `in_thread`, by `call`."""

    in_thread: bool

    async def answer(self, asked: Asked) -> Outcome:
        """On the application loop."""

    def call(self, asked: Asked) -> Outcome:
        """In a thread; the application loop goes on."""


class InThread:
    """The half of those that answer in a thread alone."""

    in_thread = True

    async def answer(self, asked: Asked) -> Outcome:
        """Not asked for: it is `in_thread`."""
        raise NotImplementedError


async def send_reply(reply: Reply, send: Send) -> None:
    """Send the reply as ASGI has it."""
    length = sum(len(part) for part in reply.parts)
    headers = [*reply.headers, (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    *before, last = reply.parts
    for part in before:
        await send({"type": "http.response.body", "body": bytes(part), "more_body": True})
    await send({"type": "http.response.body", "body": bytes(last)})
