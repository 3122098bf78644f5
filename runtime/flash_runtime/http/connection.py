"""HTTP/1.1 on one connection: requests, each in its turn, and bounds on how long a client may take.

Requests that come before an earlier one is answered wait for their turn. A request hears that its client has
left. A response that is written before the request's end is not lost: the connection lingers until the client
has read it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from flash_runtime.http.head import Head
from flash_runtime.http.parser import RequestParser
from flash_runtime.http.writer import JSON, whole

HEAD_SECONDS = 30.0
"""How long a client may take to send them, from the first byte to the last."""
KEEP_ALIVE_SECONDS = 600.0
"""How long a connection may be silent, as in the vendor's image: a balancer's pool, and not this side, must
close idle connections."""
LINGER_SECONDS = 2.0
"""How long a client that was refused may take to read why."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request(Protocol):
    """A request as its connection sees it, from its head to the end of its response."""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection is kept after the response."""

    @property
    def response_complete(self) -> bool:
        """Whether the whole response has been written."""

    def on_body(self, data: bytes) -> None:
        """A part of its body came."""

    def on_body_end(self) -> None:
        """All of its body has come."""

    def close_after_response(self) -> None:
        """Do not keep the connection after the response."""

    def advance(self) -> None:
        """It is its turn, and something may have come: body, its end, or the connection's refusal."""

    def on_lost(self) -> None:
        """The client has left."""

    def on_flushed(self) -> None:
        """The client has taken what was written, but for what is on its way."""


class Opener(Protocol):
    """Makes a request of what a connection has read."""

    def open(self, connection: Connection, head: Head) -> Request:
        """The request with that head; its `advance` is called when its turn has come."""


class ServerState(Protocol):
    """What the connections of one server share; `uvicorn.server.ServerState` is one."""

    default_headers: list[tuple[bytes, bytes]]
    """Headers of every response, such as the date."""
    connections: set[Any]
    """Those that are open."""


class Connection(asyncio.Protocol):
    """One connection. After a refusal what still comes is passed over, and the connection soon closed.

    `seen` is called when a request of the connection is admitted, and when it has ended.
    """

    def __init__(
        self, opener: Opener, state: ServerState, seen: Callable[[Connection], None] | None = None
    ) -> None:
        self._opener = opener
        self.state = state
        self._seen = seen
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until `connection_made`
        self.server: tuple[str, int] | None = None
        self.client: tuple[str, int] | None = None
        self.refusal: tuple[HTTPStatus, str] | None = None
        """Why nothing more is read: a status and a detail. A request that it cuts off is answered with
        them."""
        self.quiet_since = 0.0
        """When something last came or left, on the clock of `time.monotonic()`."""
        self._parser = RequestParser(self)
        self._lingering_since: float | None = None
        self._answering: Request | None = None
        """The request whose turn it is."""
        self._pipeline: deque[Request] = deque()
        """The requests behind it, or behind responses that the client does not take: nothing is read then."""
        self._advancing = False
        self._paused = False
        self._unflushed: list[Request] = []

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection is there."""
        self.transport = transport
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.quiet_since = time.monotonic()
        self.state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was closed."""
        self.state.connections.discard(self)
        lost = [*self._unflushed, *([self._answering] if self._answering is not None else [])]
        self._unflushed = []
        self._answering = None
        self._pipeline.clear()
        self._parser.close()
        for request in lost:
            request.on_lost()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and let the request go on whose turn it is."""
        if self.refusal is not None:
            return
        self.quiet_since = now = time.monotonic()
        self._parser.feed(data, now)
        self._advance()

    def pause_writing(self) -> None:
        """More is on its way to the client than it takes."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client has taken it."""
        self._paused = False
        self.quiet_since = time.monotonic()
        flushed, self._unflushed = self._unflushed, []
        for request in flushed:
            request.on_flushed()
        self._advance()

    # What the parser says (`parser.Reader`).

    def on_head(self, head: Head) -> Request:
        """A request begins: it is its turn, or it waits for it."""
        request = self._opener.open(self, head)
        if self._answering is None and not self._pipeline and not self._paused:
            self._answering = request
        else:
            self._pipeline.append(request)
            if len(self._pipeline) == 1:
                self.transport.pause_reading()
        return request

    def refuse(self, status: HTTPStatus, detail: str) -> None:
        """Read no more; `_advance` says why once the responses that are due before have left."""
        if self.refusal is None:
            self.refusal = status, detail
            self._parser.abandon_head()

    # What the gate says.

    @property
    def in_body(self) -> bool:
        """Whether a request's body is still to come."""
        return self._parser.in_body

    @property
    def is_idle(self) -> bool:
        """Whether it has no request: none that arrives, is answered or waits."""
        if self._parser.head_since is not None or self.transport.get_write_buffer_size():
            return False
        return self._answering is None and not self._pipeline

    @property
    def is_open(self) -> bool:
        """Whether a response can still be written."""
        return self._lingering_since is None and not self.transport.is_closing()

    def on_request_seen(self) -> None:
        """A request of the connection is counted, as one that runs or waits, or has ended."""
        if self._seen is not None:
            self._seen(self)

    def go_on(self) -> None:
        """Tell a client that waits for it that its body is welcome (RFC 9110, section 10.1.1)."""
        self.transport.write(_CONTINUE)

    def on_response_complete(self, request: Request) -> None:
        """The response to the request is written: the next one's turn comes, or the connection's end."""
        self.quiet_since = time.monotonic()
        if not request.keep_alive:
            self.close()
        self._advance()

    @property
    def is_flushed(self) -> bool:
        """Whether the client takes what is written as fast as it comes; if not, use `watch_flush`."""
        return not self._paused

    def watch_flush(self, request: Request) -> None:
        """Call the request's `on_flushed` once the client has taken what is written."""
        self._unflushed.append(request)

    def close(self) -> None:
        """Close once what is written has left. If a body is still to come, linger until the client has
        read."""
        if self.in_body:
            self._linger()
        else:
            self.transport.close()

    def break_off(self, *, flush: bool) -> None:
        """Close in the middle of a request or a response, which is all that is left to do.

        With `flush`, what was written before still leaves.
        """
        if flush:
            self.transport.close()
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """Close once its request is answered. uvicorn's server calls this."""
        if self._answering is None:
            self.transport.close()
        else:
            self._answering.close_after_response()

    def look_after(self, now: float) -> None:
        """Refuse a head that comes too slowly; close if it was silent, or has lingered, for too long."""
        if self._lingering_since is not None:
            if now - self._lingering_since > LINGER_SECONDS:
                self.transport.close()
        elif self._is_head_late(now):
            detail = f"The head was not sent within {HEAD_SECONDS:g} seconds."
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, detail)
            self._advance()
        elif self._answering is None and now - self.quiet_since > KEEP_ALIVE_SECONDS:
            self.transport.abort()  # with what it has not taken in all that time

    def _is_head_late(self, now: float) -> bool:
        # With requests that wait for their turn, nothing is read that could be late.
        since = self._parser.head_since
        return since is not None and not self._pipeline and now - since > HEAD_SECONDS

    # Turns.

    def _advance(self) -> None:
        """Let the request go on whose turn it is, and after it those that can be answered at once."""
        if self._advancing:
            return  # a response was written within the loop below
        self._advancing = True
        try:
            while self._answering is not None or self._take_turn():
                request = self._answering
                if request is not None and not request.response_complete:
                    request.advance()
                if self._answering is None or not self._answering.response_complete:
                    return
                self._answering = None
        finally:
            self._advancing = False
        if self.refusal is not None and not self._pipeline:
            self._answer_refusal()

    def _take_turn(self) -> bool:
        """Give the next request its turn, once the client takes the responses before it."""
        if not self._pipeline or self._paused or not self.is_open:
            return False
        self._answering = self._pipeline.popleft()
        if not self._pipeline:
            self.transport.resume_reading()
            self._parser.restart_head(self.quiet_since)
        return True

    def _answer_refusal(self) -> None:
        assert self.refusal is not None, "there is one"
        if not self.is_open:
            return
        status, detail = self.refusal
        content = json.dumps({"detail": detail}).encode()
        self.transport.write(whole(status, (JSON,), (), content, close=True))
        self._linger()

    def _linger(self) -> None:
        """Close soon. Closing with something unread resets the connection, and the response is lost."""
        if not self.is_open:
            return
        self._lingering_since = time.monotonic()
        self.refusal = self.refusal or (HTTPStatus.BAD_REQUEST, "The connection is closing.")
        self.transport.resume_reading()
        self.transport.write_eof()


def _address(name: Any) -> tuple[str, int] | None:
    """Host and port of a socket's name."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
