"""A client of other workers: HTTP/1.1 over kept connections, on whatever loop asks.

Only what a call between workers needs; httptools parses. A library that users import, too, would have to be
of one version for them and for the runtime.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

_KEPT = 64
"""Idle connections that are kept for each peer."""
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 30.0
"""A connection that was idle for longer is not used again: what lies between may have given it up by then."""

Headers = list[tuple[bytes, bytes]]


class NotReached(OSError):
    """The peer could not be connected to: it has not seen the request."""


class Broken(OSError):
    """The connection ended before the answer: the peer may have seen the request, or not."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response. Names of headers are in lower case; the first one of a name counts."""

    status: int
    headers: dict[bytes, bytes]
    body: bytearray


class Client:
    """Asks peers, each by its base URL."""

    def __init__(self) -> None:
        # A connection belongs to its loop; user code may have several, one after the other.
        self._pools: dict[asyncio.AbstractEventLoop, dict[str, list[_Connection]]] = {}
        self._ends: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]] = {}

    async def post(
        self, url: str, path: str, headers: Headers, parts: Sequence[bytes | memoryview]
    ) -> Response:
        """The answer. Raises `NotReached` and `Broken`; whoever waits less cancels."""
        loop = asyncio.get_running_loop()
        if loop not in self._ends:
            self._ends[loop] = self._end_with(loop)
            await anext(self._ends[loop])
        pool = self._pools.setdefault(loop, {}).setdefault(url, [])
        connection = None
        while pool and (connection is None or not connection.is_usable):
            connection = pool.pop()
            if time.monotonic() - connection.idle_since > _IDLE_SECONDS:
                connection.abort()
        target = urlsplit(url)
        if connection is None or not connection.is_usable:
            tls = self._tls if target.scheme == "https" else None
            connection = await _connect(target.hostname or "", target.port, tls)
        length = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)
        lines = [b"POST %b HTTP/1.1" % (target.path.rstrip("/") + path).encode()]
        lines += [b"%b: %b" % header for header in headers]
        lines += [b"host: " + target.netloc.encode(), b"content-length: %d" % length, b"", b""]
        try:
            response = await connection.ask(b"\r\n".join(lines), parts)
        except BaseException:
            connection.abort()  # also where nobody waits any more: the peer cancels what it does for this
            raise
        if connection.is_usable and connection.has_sent_all and len(pool) < _KEPT:
            connection.idle_since = time.monotonic()
            pool.append(connection)
        else:
            connection.abort()
        return response

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made once, for the first https peer: reading the certificates takes milliseconds."""
        return ssl.create_default_context()

    async def _end_with(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
        """Wait in the middle, until the loop shuts its generators down, as at the end of `asyncio.run`."""
        try:
            yield
        finally:
            self._ends.pop(loop, None)
            for pool in self._pools.pop(loop, {}).values():
                for connection in pool:
                    connection.abort()


async def _connect(host: str, port: int | None, tls: ssl.SSLContext | None) -> _Connection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, connection = await loop.create_connection(
                _Connection, host, port or (443 if tls else 80), ssl=tls
            )
    except (OSError, TimeoutError, ValueError) as error:  # also of a name that no host can have
        raise NotReached(str(error) or "it did not answer in time") from error
    return connection


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._is_open = False
        self._ends_with_connection = False
        self.idle_since = 0.0

    @property
    def is_usable(self) -> bool:
        return self._is_open and not self._transport.is_closing()

    @property
    def has_sent_all(self) -> bool:
        """Whether nothing of the request is left: an answer may come before its end."""
        return self._transport.get_write_buffer_size() == 0

    async def ask(self, head: bytes, parts: Sequence[bytes | memoryview]) -> Response:
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        for part in parts:
            self._transport.write(part)
        return await self._waiter

    def abort(self) -> None:
        """Close it now: what is not sent yet would be kept until the peer takes it."""
        self._transport.abort()

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        if exc is None and self._ends_with_connection:
            self.on_message_complete()
        self._fail("the connection ended before the answer")

    def eof_received(self) -> bool:
        self.connection_lost(None)
        self.abort()
        return False

    def data_received(self, data: bytes) -> None:
        if self._waiting() is None:
            self.abort()  # nobody has asked: this must not pass for the next answer
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"its answer is no HTTP: {error}")
            self.abort()

    # What the parser says.

    def on_message_begin(self) -> None:
        if self._waiting() is None:
            self.abort()  # as above, in the packet of an answer
        self._headers, self._body = {}, bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        told = self._headers.keys() & {b"content-length", b"transfer-encoding"}
        self._ends_with_connection = not told and self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # 100 Continue and its like: the answer is still to come
        self._ends_with_connection = False
        if not self._parser.should_keep_alive():
            self._is_open = False
        waiter = self._waiting()
        if waiter is not None:
            waiter.set_result(Response(status, self._headers, self._body))

    def _fail(self, why: str) -> None:
        waiter = self._waiting()
        if waiter is not None:
            waiter.set_exception(Broken(why))

    def _waiting(self) -> asyncio.Future[Response] | None:
        """Whoever has asked, and has no answer yet."""
        return None if self._waiter is None or self._waiter.done() else self._waiter
