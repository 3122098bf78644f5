"""HTTP/1.1 as uvicorn parses it, with the bounds that it leaves out.

A request's head has a limit in bytes and in time, and an offer to upgrade to another protocol is passed over,
as RFC 9110 (section 7.8) lets a server do; uvicorn would drop the body of such a request. Whoever answers a
request is told that its client has left, and an answer that comes before the request's end is not lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

CONNECTION = "flash.connection"
"""The key of the scope under which whoever answers a request finds its connection."""
HEAD_BYTES = 64 * 1024
"""The most that a request line and its headers may take together."""
HEAD_SECONDS = 30.0
"""How long a client may take to send them, from the first byte to the last."""
LINGER_SECONDS = 2.0
"""How long a client that was refused may take to read why."""
_OFFERS = (b"upgrade", b"http2-settings")


class BoundedProtocol(HttpToolsProtocol):
    """One connection. After a refusal what still comes is passed over, and the connection soon closed."""

    in_body = False
    """Whether a request's body is still to come."""
    refusal: tuple[HTTPStatus, str] | None = None
    """Why nothing more is read: a status and a detail. Whoever reads a body answers with it."""
    on_lost: Callable[[], None] | None = None
    """Called when the client has left; set by whoever answers the present request."""
    quiet_since = 0.0
    """When something last came or left, on the clock of `time.monotonic()`."""
    _bytes = 0
    """What came of a head, of trailers or of a chunk's extension: since the last sign of progress."""
    _in_head = False
    _upgrading = False
    _lingering = False
    _head_timer: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a client that says nothing as long as one that has stopped talking."""
        super().connection_made(transport)
        self.quiet_since = time.monotonic()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and say that the client has left."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._answering is not None:
            # uvicorn tells the last request that came, which need not be the one that is answered.
            self._answering.disconnected = True
        if self.on_lost is not None:
            self.on_lost()

    @property
    def is_idle(self) -> bool:
        """Whether no request is on it: neither one that comes, nor one that is answered or not yet read."""
        if self._in_head or self.transport.get_write_buffer_size():
            return False
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what is no HTTP or a head that is too long already."""
        if self.refusal is not None:
            return
        self._unset_keepalive_if_required()
        self.quiet_since = time.monotonic()
        self._bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "This is no HTTP request.")
        if self._in_head or self.in_body:
            if self._bytes > HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
            elif self._in_head and self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._on_slow_head)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self.refusal is not None:
                    return
                # The parser takes what follows for another protocol: a new one reads it, and the head, again.
                data = self._head_without_offer() + data[upgrade.args[0] :]
                self._upgrading = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                kept = [each for each in value.split(b",") if each.strip().lower() not in _OFFERS]
                if kept:
                    lines.append(b"connection: " + b",".join(kept))
            elif name not in _OFFERS:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._bytes = True, 0
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. One that comes after the body (a trailer) was not there when the request was let in."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is whole: start the request, unless it is too long or is to be read again."""
        self._in_head, self._bytes = False, 0
        self._stop_timer()
        if self.refusal is not None:
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
        elif self.parser.get_method() == b"CONNECT":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "CONNECT is for proxies, and this is none.")
        elif self.parser.should_upgrade():
            self._upgrading = True
        else:
            self.in_body = True
            super().on_headers_complete()
            self.cycle.transport = _Lingering(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._bytes = 0
        if self.refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.refusal is None and not self._upgrading:
            self.in_body = False
            self.cycle.transport = self.transport
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer has left; a refusal of what came after its request is next."""
        self.quiet_since = time.monotonic()
        super().on_response_complete()
        if self.refusal is not None and self.cycle.response_complete:
            self._answer_refusal()

    def break_off(self, *, flush: bool) -> None:
        """Close in the midst of a request or its answer: the only way left to tell the client.

        With `flush`, what was written before still leaves.
        """
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        if flush:
            self.transport.close()
        else:
            self.transport.abort()

    def _on_slow_head(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"The head was not sent within {HEAD_SECONDS:g} seconds.")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Read no more, and say why: now, or when the answers that are due before have left."""
        if self.refusal is not None:
            return
        self.refusal = status, detail
        self._stop_timer()
        if self.cycle is None or self.cycle.response_complete:
            self._answer_refusal()
        elif self.in_body:
            self.cycle.message_event.set()  # whoever reads the body finds the refusal

    def _answer_refusal(self) -> None:
        assert self.refusal is not None, "there is one"
        if self._lingering or self.transport.is_closing():
            return
        status, detail = self.refusal
        content = json.dumps({"detail": detail}).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + content)
        self.linger()

    def linger(self) -> None:
        """Close soon: closing with something unread resets the connection, and the answer with it."""
        if self._lingering or self.transport.is_closing():
            return
        self._lingering = True
        self.refusal = self.refusal or (HTTPStatus.BAD_REQUEST, "The connection is closing.")
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


class _Lingering:
    """The transport as the answer to a request sees it whose body is still to come."""

    def __init__(self, connection: BoundedProtocol) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        self._connection.linger()


_TOO_LARGE = f"The request line and the headers are larger than {HEAD_BYTES} bytes."
