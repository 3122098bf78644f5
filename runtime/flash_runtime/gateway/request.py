"""A call: one request on the I/O loop, from its head to the last byte of its answer."""

from __future__ import annotations

import random
from typing import Protocol

import orjson
from starlette.types import Message, Scope

from flash_runtime.dispatch.admission import Start
from flash_runtime.dispatch.bridge import Exchange
from flash_runtime.dispatch.responder import Reply
from flash_runtime.gateway.routing import Target, Values
from flash_runtime.http.connection import Connection
from flash_runtime.http.head import Head
from flash_runtime.http.writer import JSON, Headers, Writer, whole
from flash_runtime.monitoring.scoreboard import Outcome

_REQUEST_ID_LIMIT = 128
_LARGE = 64 * 1024
"""From so many bytes on, a body is written without being copied behind its head."""


class Refusal(Exception):
    """The request is answered on the I/O loop: a status, a detail for the client, headers, and the outcome.

    `close` ends the connection with the answer, as it is also where the request's body has not all come.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *headers: tuple[bytes, bytes],
        outcome: Outcome = Outcome.REFUSED,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.outcome = outcome
        self.close = close


class Decider(Protocol):
    """Who decides what becomes of calls."""

    def advance(self, call: Call) -> None:
        """It is the call's turn on its connection, and something may have come."""

    def on_lost(self, call: Call) -> None:
        """Its client has left."""

    def on_flushed(self, call: Call) -> None:
        """Its client has taken what was written."""


class Call:
    """One request: what came of it, where it is, and what was answered."""

    __slots__ = (
        "_buffer",
        "_decider",
        "_parts",
        "_writer",
        "connection",
        "counted",
        "exchange",
        "head",
        "heard",
        "keep_alive",
        "outcome",
        "path_values",
        "request_id",
        "response_complete",
        "size",
        "start",
        "started",
        "status",
        "submitted",
        "target",
        "timeout",
        "unacknowledged",
        "whole",
    )

    def __init__(self, decider: Decider, connection: Connection, head: Head, request_id: str) -> None:
        self._decider = decider
        self.connection = connection
        self.head = head
        self.keep_alive = head.keep_alive
        self.request_id = request_id
        self.started = self.heard = connection.quiet_since
        """When its turn came, and when something last came of it, on the clock of `time.monotonic()`."""
        self.whole = False
        self._parts: list[bytes] = []
        self._buffer: bytearray | None = None
        self.size = 0
        """Bytes of the body so far."""
        self.counted = 0
        """As many of them as are counted among all bodies'."""
        self.target: Target | None = None
        """What it is for, once its turn has come."""
        self.timeout = 0.0
        """Seconds that it may take, from then on."""
        self.path_values: Values = {}
        self.exchange: Exchange | None = None
        """Its way to the application, once it has a place or waits for one."""
        self.start: Start | None = None
        """By what its lane knows it."""
        self.submitted = False
        """Whether the application has been asked."""
        self.unacknowledged = 0
        """Bytes of the answer that the application has not been told of yet that they have left."""
        self.status = 0
        """Of the answer, once it has begun."""
        self.response_complete = False
        self.outcome: Outcome | None = None
        """How it ended, once it has."""
        self._writer: Writer | None = None

    # What its connection says.

    def on_body(self, data: bytes) -> None:
        """A part of the body came; nobody wants it where the answer is written already."""
        if self.response_complete:
            return
        self.heard = self.connection.quiet_since
        self.size += len(data)
        if self._buffer is not None:
            self._buffer += data
            return
        self._parts.append(data)
        if self.size >= _LARGE:
            # In one piece from here on: there is never a second copy of it.
            self._parts, self._buffer = [], bytearray().join(self._parts)

    def advance(self) -> None:
        """It is its turn, and something may have come."""
        self._decider.advance(self)

    def on_lost(self) -> None:
        """The client has left."""
        self._decider.on_lost(self)

    def on_flushed(self) -> None:
        """The client has taken what was written."""
        self._decider.on_flushed(self)

    # What the bridge reads.

    @property
    def name(self) -> str:
        """What it is for, for people."""
        assert self.target is not None, "its turn has come"
        return self.target.name

    @property
    def deadline(self) -> float:
        """When its time is over."""
        return self.started + self.timeout

    @property
    def body(self) -> bytes | bytearray:
        """The whole body."""
        if self._buffer is not None:
            return self._buffer
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        joined = b"".join(parts)
        self._parts = [joined]
        return joined

    @property
    def content_type(self) -> bytes:
        """What the body says that it is, or nothing."""
        return self.head.values.get(b"content-type", b"")

    @property
    def query_string(self) -> bytes:
        """What comes after the path, still encoded."""
        return self.head.query_string

    def scope(self) -> Scope:
        """The request as ASGI has it."""
        head, connection = self.head, self.connection
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.http_version,
            "server": connection.server,
            "client": connection.client,
            "scheme": "http",
            "root_path": "",
            "headers": head.headers,
            "state": {"request_id": self.request_id},
            "method": head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query_string,
        }

    # The answer.

    def write_json(self, start: bytes, body: bytes) -> None:
        """Write a 200 that begins with `start` (of `writer.start_of_json`)."""
        self.status = 200
        head = b"%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
            start,
            len(body),
            self.request_id.encode(),
            b"" if self.keep_alive else b"connection: close\r\n",
        )
        write = self.connection.transport.write
        if len(body) < _LARGE:
            write(head + body)
        else:
            write(head)
            write(body)

    def write_reply(self, reply: Reply) -> None:
        """Write a whole response."""
        self.status = reply.status
        writer = Writer(self.head.method, self.head.http_version, close=not self.keep_alive)
        length = (b"content-length", b"%d" % sum(len(part) for part in reply.parts))
        headers = [*reply.headers, length, (b"x-request-id", self.request_id.encode())]
        write = self.connection.transport.write
        write(writer.head(reply.status, headers, self.connection.state.default_headers))
        for part in reply.parts:
            write(part)

    def write_message(self, message: Message) -> None:
        """Write a message of an ASGI response, or nothing of it and raise `InvalidResponse`."""
        if message["type"] == "http.response.start":
            self._writer = Writer(self.head.method, self.head.http_version, close=not self.keep_alive)
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            data = self._writer.head(message["status"], headers, self.connection.state.default_headers)
            self.status = message["status"]
            self.keep_alive = not self._writer.close
        else:
            assert self._writer is not None, "the bridge sends a start first"
            data = self._writer.body(message.get("body", b""), more=message.get("more_body", False))
        if data:
            self.connection.transport.write(data)

    def write_refusal(self, refusal: Refusal) -> None:
        """Write the refusal, as JSON."""
        if refusal.close or not self.whole:
            self.keep_alive = False
        told: dict[str, object] = {"detail": refusal.detail, "request_id": self.request_id}
        if self.target is not None and self.target.is_internal:
            told |= {"success": False, "error": refusal.detail}  # what its callers read
        content = orjson.dumps(told)
        self.write_whole(refusal.status, [JSON, *refusal.headers], content, with_id=True)

    def write_whole(self, status: int, headers: Headers, body: bytes, *, with_id: bool) -> None:
        """Write an answer of the runtime's own, with the request's id or without."""
        self.status = status
        own = [*headers, (b"x-request-id", self.request_id.encode())] if with_id else headers
        common = self.connection.state.default_headers
        method = self.head.method
        data = whole(status, own, common, body, method, close=not self.keep_alive)
        self.connection.transport.write(data)

    def forget_body(self) -> None:
        """Free its memory."""
        self._parts, self._buffer = [], None


def request_id_for(head: Head, chance: random.Random) -> str:
    """The client's X-Request-ID where it is one plain printable word, else a new one by `chance`."""
    given = head.values.get(b"x-request-id")
    if given and len(given) <= _REQUEST_ID_LIMIT and given.isascii():
        text = given.decode()
        if text.isprintable() and " " not in text:
            return text
    return f"{chance.getrandbits(128):032x}"
