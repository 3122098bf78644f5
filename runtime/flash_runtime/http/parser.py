"""Bytes to heads and bodies: httptools parses, and this bounds what a client may send of a head.

An offer to upgrade to another protocol is passed over, as RFC 9110 (section 7.8) lets a server do.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Protocol

import httptools

from flash_runtime.http.head import Head, Headers

HEAD_BYTES = 64 * 1024
"""The most that a request line and its headers may take together."""
_OFFERS = (b"upgrade", b"http2-settings")
_TOO_LARGE = f"The request line and the headers are larger than {HEAD_BYTES} bytes."


class BodyReader(Protocol):
    """Gets the body of one request."""

    def on_body(self, data: bytes) -> None:
        """A part of the body came."""

    def on_body_end(self) -> None:
        """The whole body has come."""


class Reader(Protocol):
    """Gets what is parsed. After a refusal, nothing more comes."""

    def on_head(self, head: Head) -> BodyReader:
        """A request begins; returns what gets its body."""

    def refuse(self, status: HTTPStatus, detail: str) -> None:
        """The client cannot be understood, or sends too much: say so, and read no more."""


class RequestParser:
    """Parses the requests of one connection, one after the other, for `reader`."""

    __slots__ = (
        "_body_reader",
        "_headers",
        "_now",
        "_parser",
        "_reader",
        "_refused",
        "_unaccounted",
        "_upgrading",
        "_url",
        "head_since",
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._parser: Any = self._new_parser()
        self._now = 0.0
        self._url = b""
        self._headers: Headers = []
        self._unaccounted = 0
        """Bytes of a head, of trailers or of a chunk's extension: what came since the last sign of
        progress."""
        self._upgrading = False
        self._refused = False
        self.head_since: float | None = None
        """When the head began that is still to be completed."""
        self._body_reader: BodyReader | None = None

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        # What a client sends behind a request that asks for the connection's end is not an error of that one.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    @property
    def in_body(self) -> bool:
        """Whether a request's body is still to come."""
        return self._body_reader is not None

    def feed(self, data: bytes, now: float) -> None:
        """Parse what came at `now` (`time.monotonic()`)."""
        self._now = now
        self._unaccounted += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "The request is not valid HTTP.")
        if self._unaccounted > HEAD_BYTES and (self.head_since is not None or self.in_body):
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)

    def restart_head(self, now: float) -> None:
        """Give a head that has begun its whole time again: its rest was not read."""
        if self.head_since is not None:
            self.head_since = now

    def abandon_head(self) -> None:
        """Wait no longer for the rest of a head."""
        self.head_since = None

    def close(self) -> None:
        """Free the parser, which refers to this object, and the request that it reads."""
        self._parser = self._body_reader = None

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._refused:
                    return
                # The parser takes what follows for another protocol: a new one reads it, and the head, again.
                data = self._head_without_offer() + data[upgrade.args[0] :]
                self._upgrading = False
                self._parser = self._new_parser()

    def _head_without_offer(self) -> bytes:
        version = self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._url, version)]
        for name, value in self._headers:
            if name == b"connection":
                kept = [each for each in value.split(b",") if each.strip().lower() not in _OFFERS]
                if kept:
                    lines.append(b"connection: " + b",".join(kept))
            elif name not in _OFFERS:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._refused = True
        self._reader.refuse(status, detail)

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A head begins."""
        self.head_since = self._now
        self._unaccounted = 0
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. One that comes after the body is a trailer, and no part of the head."""
        if self.head_since is not None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is whole: it becomes a request, unless it is too long or is to be read again."""
        self.head_since, self._unaccounted = None, 0
        if self._refused:
            return
        parser, headers = self._parser, self._headers
        method, version = parser.get_method(), parser.get_http_version()
        if len(self._url) + sum([len(name) + len(value) + 4 for name, value in headers]) > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
        elif method == b"CONNECT":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "CONNECT is for proxies. This server is not one.")
        elif parser.should_upgrade():
            self._upgrading = True
        else:
            kept = version != "1.0" and parser.should_keep_alive()
            head = Head(method.decode("ascii"), self._url, headers, version, keep_alive=kept)
            self._body_reader = self._reader.on_head(head)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unaccounted = 0
        if self._body_reader is not None and not self._refused:
            self._body_reader.on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        reader = self._body_reader
        if reader is not None and not self._refused and not self._upgrading:
            self._body_reader = None
            reader.on_body_end()
