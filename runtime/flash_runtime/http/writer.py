"""Responses to bytes: HTTP/1.1 as RFC 9112 has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

Headers = Iterable[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
_NOT_IN_A_NAME = re.compile(rb'[\x00-\x20\x7f-\xff()<>@,;:\\"/\[\]?={}]')
_NOT_IN_A_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WITHOUT_BODY = (204, 304)
_DIGITS = 19
"""Of the largest length: any real one has fewer."""


class InvalidResponse(Exception):
    """HTTP cannot carry the application's response; the text says why."""


_PHRASES = {each.value: each.phrase for each in HTTPStatus}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(200, 600)
}


class Writer:
    """Makes the bytes of one response from its parts. `has_started` once some have been made.

    `close` puts `connection: close` among the headers. It is also set if the application sends that itself.
    """

    def __init__(self, method: str, http_version: str, *, close: bool) -> None:
        self.close = close
        self._is_old = http_version == "1.0"
        """Such a client does not know chunks: a body without a length ends with the connection."""
        self.has_started = False
        self._bodiless = method == "HEAD"
        self._chunked = False
        self._left: int | None = None
        """Bytes of the declared length that are still to come."""

    def head(self, status: int, headers: Headers, common: Headers) -> bytes:
        """The status line and the headers, the `common` ones first. Raises `InvalidResponse`."""
        if status not in _STATUS_LINES:
            raise InvalidResponse(f"{status} is not a valid status")
        parts = [_STATUS_LINES[status]]
        chunked = False
        for name, value in common:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if not name or _NOT_IN_A_NAME.search(name):
                raise InvalidResponse(f"{name!r} is not a valid header name")
            if _NOT_IN_A_VALUE.search(value):
                raise InvalidResponse(f"the value of the header {name.decode()} contains control characters")
            lower = name.lower()
            if lower == b"content-length":
                if not value.isdigit() or len(value) > _DIGITS or self._left not in (None, int(value)):
                    raise InvalidResponse(
                        f"Content-Length {value[:99]!r} is not a number, or not the earlier one"
                    )
                self._left = int(value)
                continue
            if lower == b"transfer-encoding" and value.lower() == b"chunked":
                chunked = True
                continue
            if lower == b"connection":
                # Whether it is kept is not the application's to say.
                self.close |= b"close" in [token.strip().lower() for token in value.split(b",")]
                continue
            parts += (lower, b": ", value, b"\r\n")
        if self.close:
            parts.append(b"connection: close\r\n")
        if status in _WITHOUT_BODY:
            self._bodiless, chunked = True, False
        elif chunked:
            self._left = None  # a length does not count beside chunks, and must not be there
        elif self._left is None and not self._bodiless:
            chunked = True
        chunked = chunked and not self._is_old
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        elif self._left is not None:
            parts.append(b"content-length: %d\r\n" % self._left)
        self._chunked = chunked
        parts.append(b"\r\n")
        self.has_started = True
        return b"".join(parts)

    def body(self, data: bytes, *, more: bool) -> bytes:
        """A part of the body; empty if the response must not have one. Raises `InvalidResponse`."""
        if self._bodiless:
            return b""
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is None:
            return data
        self._left -= len(data)
        if self._left < 0 or (self._left and not more):
            longer = "longer" if self._left < 0 else "shorter"
            raise InvalidResponse(f"the body is {longer} than its Content-Length")
        return data


def whole(
    status: int, headers: Headers, common: Headers, body: bytes, method: str = "", *, close: bool
) -> bytes:
    """A whole response of the runtime's own."""
    writer = Writer(method, "1.1", close=close)
    length = () if status in _WITHOUT_BODY else ((b"content-length", b"%d" % len(body)),)
    return writer.head(status, (*headers, *length), common) + writer.body(body, more=False)


def start_of_json(common: Headers) -> bytes:
    """How a 200 with a JSON body begins, up to its length: made once for many."""
    head = b"".join(b"%b: %b\r\n" % header for header in common)
    return _STATUS_LINES[200] + head + b"content-type: application/json\r\n"
