"""One request on the I/O loop, from its head to the last byte of its response."""

from __future__ import annotations

import random
from typing import Protocol

import orjson
from starlette.types import Message

from flash_runtime.dispatch.admission import Lane, Start
from flash_runtime.dispatch.exchange import Exchange
from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply
from flash_runtime.dispatch.target import RouteTarget
from flash_runtime.gateway.routing import Values
from flash_runtime.http.connection import Connection
from flash_runtime.http.head import Head
from flash_runtime.http.writer import JSON, Headers, Writer, whole
from flash_runtime.monitoring.scoreboard import Outcome

_REQUEST_ID_LIMIT = 128
_LARGE = 64 * 1024
"""Bodies of at least this many bytes are written without being copied behind their heads."""


class Refusal(Exception):
    """The gate answers the request itself: a status, a detail for the client, headers, and the outcome.

    `close` closes the connection after the response. It also closes if the request's body has not all come.
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
    """Decides what becomes of requests. `GatewayRequest` passes on to it what it hears from both sides."""

    def advance(self, request: GatewayRequest) -> None:
        """It is the request's turn on its connection, and something may have come."""

    def on_lost(self, request: GatewayRequest) -> None:
        """The client has left."""

    def on_flushed(self, request: GatewayRequest) -> None:
        """The client has taken what was written."""

    def on_json(self, request: GatewayRequest, body: bytes) -> None:
        """A compiled route responded with this JSON."""

    def on_reply(self, request: GatewayRequest, reply: Reply) -> None:
        """The response came, whole."""

    def on_message(self, request: GatewayRequest, message: Message) -> None:
        """A message of an ASGI response came."""

    def on_failure(self, request: GatewayRequest) -> None:
        """The application is done and has not finished its response."""

    def on_end(self, request: GatewayRequest) -> None:
        """The application is done: the request's place is free."""


class GatewayRequest:
    """One request: what came of it, where it is, and what was answered.

    It is the connection's `http.connection.Request` and the bridge's `dispatch.exchange.Receiver`. Its public
    attributes are for reading: its own methods change them.
    """

    __slots__ = (
        "_buffer",
        "_decider",
        "_lane",
        "_parts",
        "_start",
        "_unacknowledged",
        "_writer",
        "body_since",
        "connection",
        "counted",
        "exchange",
        "head",
        "keep_alive",
        "outcome",
        "path_values",
        "request_id",
        "response_complete",
        "size",
        "started",
        "status",
        "target",
        "timeout",
        "whole",
    )

    def __init__(self, decider: Decider, connection: Connection, head: Head, request_id: str) -> None:
        self._decider = decider
        self.connection = connection
        self.head = head
        self.keep_alive = head.keep_alive
        self.request_id = request_id
        self.started = self.body_since = connection.quiet_since
        """When its turn came, and when its body last grew, on the clock of `time.monotonic()`."""
        self.whole = False
        """Whether its whole body has come."""
        self._parts: list[bytes] = []
        self._buffer: bytearray | None = None
        self.size = 0
        """Bytes of the body so far."""
        self.counted = 0
        """Bytes already added to the gate's total."""
        self.target: RouteTarget | None = None
        """What it is for, once its turn has come."""
        self.timeout = 0.0
        """Seconds that it may take, from then on."""
        self.path_values: Values = {}
        self.exchange: Exchange | None = None
        """Its way to the application, from the submit to its end."""
        self._lane: Lane | None = None
        self._start: Start | None = None
        """Callback that identifies this request in its admission lane."""
        self._unacknowledged = 0
        """Bytes of the response that the client took, and that the application has not heard of."""
        self.status = 0
        """Status of the response, once it has begun."""
        self.response_complete = False
        self.outcome: Outcome | None = None
        """How it ended, once it has."""
        self._writer: Writer | None = None

    # What the gate decides.

    def begin(self, target: RouteTarget, path_values: Values, lane: Lane) -> None:
        """Its turn has come: its time runs from now on, not from when it arrived behind others."""
        self.started = self.body_since = self.connection.quiet_since
        self.target = target
        self._lane = lane
        self.path_values = path_values
        self.timeout = target.timeout

    def shorten_timeout(self, seconds: float) -> None:
        """Give it at most `seconds`."""
        self.timeout = min(self.timeout, seconds)

    def close_after_response(self) -> None:
        """Have the connection closed once the response is written."""
        self.keep_alive = False

    def count_body(self) -> int:
        """Bytes of the body that came since the last call."""
        grown, self.counted = self.size - self.counted, self.size
        return grown

    def enter_lane(self, start: Start) -> bool:
        """Run, now or when its turn comes: its lane calls `start`. False if there is no room for it."""
        assert self._lane is not None, "its turn has come"
        self._start = start
        return self._lane.enter(start)

    @property
    def in_lane(self) -> bool:
        """Whether it has entered its lane, and has not ended."""
        return self._start is not None

    def leave_lane(self) -> None:
        """Give its place in the lane to the next request."""
        assert self._lane is not None, "it ran"
        self._lane.leave()

    def forget_lane(self) -> None:
        """Wait in its lane no longer, if it does."""
        if self._start is not None and self._lane is not None:
            self._lane.forget(self._start)

    def dispatch(self) -> Exchange:
        """The exchange that takes it to the application."""
        assert self.target is not None, "its turn has come"
        connection, parts = self.connection, self._parts
        body = self._buffer if self._buffer is not None else parts[0] if len(parts) == 1 else b"".join(parts)
        request = DispatchedRequest(
            self.target.name,
            self.request_id,
            self.started + self.timeout,
            self.head,
            self.path_values,
            body,
            connection.server,
            connection.client,
        )
        self.exchange = Exchange(request, self.target.responder, self)
        return self.exchange

    def hold_for_client(self, count: int) -> None:
        """Note that `count` bytes of the response are on their way to the client."""
        self._unacknowledged += count

    def release_to_application(self) -> int:
        """Bytes that the client has taken since the last call."""
        count, self._unacknowledged = self._unacknowledged, 0
        return count

    def complete_response(self) -> None:
        """Note that the whole response is written."""
        self.response_complete = True

    def end(self, outcome: Outcome) -> None:
        """Note how it ended, and free what it holds: with its exchange, it would be a cycle of garbage."""
        self.outcome = outcome
        self.exchange = self._start = None
        self._parts, self._buffer = [], None

    # What its connection says.

    def on_body(self, data: bytes) -> None:
        """A part of the body came. It is dropped if the response is written already."""
        if self.response_complete:
            return
        self.body_since = self.connection.quiet_since
        self.size += len(data)
        if self._buffer is not None:
            self._buffer += data
            return
        self._parts.append(data)
        if self.size >= _LARGE:
            # In one piece from here on: there is never a second copy of it.
            self._parts, self._buffer = [], bytearray().join(self._parts)

    def on_body_end(self) -> None:
        """The whole body has come."""
        self.whole = True

    def advance(self) -> None:
        """It is its turn, and something may have come."""
        self._decider.advance(self)

    def on_lost(self) -> None:
        """The client has left."""
        self._decider.on_lost(self)

    def on_flushed(self) -> None:
        """The client has taken what was written."""
        self._decider.on_flushed(self)

    # What the bridge says (`dispatch.exchange.Receiver`).

    def on_json(self, body: bytes) -> None:
        """A compiled route responded with this JSON."""
        self._decider.on_json(self, body)

    def on_reply(self, reply: Reply) -> None:
        """The response came, whole."""
        self._decider.on_reply(self, reply)

    def on_message(self, message: Message) -> None:
        """A message of an ASGI response came."""
        self._decider.on_message(self, message)

    def on_failure(self) -> None:
        """The application is done and has not finished its response."""
        self._decider.on_failure(self)

    def on_end(self) -> None:
        """The application is done: the request's place is free."""
        self._decider.on_end(self)

    # The response.

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
        content: dict[str, object] = {"detail": refusal.detail, "request_id": self.request_id}
        if self.target is not None and self.target.is_internal:
            content |= {"success": False, "error": refusal.detail}  # what callers of /execute read
        self.write_whole(refusal.status, [JSON, *refusal.headers], orjson.dumps(content), with_id=True)

    def write_whole(self, status: int, headers: Headers, body: bytes, *, with_id: bool) -> None:
        """Write a response of the runtime's own, with the request's id or without."""
        self.status = status
        own = [*headers, (b"x-request-id", self.request_id.encode())] if with_id else headers
        common = self.connection.state.default_headers
        method = self.head.method
        data = whole(status, own, common, body, method, close=not self.keep_alive)
        self.connection.transport.write(data)


def request_id_for(head: Head, chance: random.Random) -> str:
    """The client's X-Request-ID if it is one plain printable word; otherwise a new one, made with
    `chance`."""
    given = head.values.get(b"x-request-id")
    if given and len(given) <= _REQUEST_ID_LIMIT and given.isascii():
        text = given.decode()
        if text.isprintable() and " " not in text:
            return text
    return f"{chance.getrandbits(128):032x}"
