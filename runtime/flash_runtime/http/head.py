"""A request's head, as the gate and ASGI read it."""

from __future__ import annotations

from urllib.parse import unquote

import httptools

Headers = list[tuple[bytes, bytes]]


class Head:
    """What comes before a request's body. Names of headers are in lower case; `path` is percent-decoded."""

    __slots__ = (
        "headers",
        "http_version",
        "keep_alive",
        "method",
        "path",
        "query_string",
        "raw_path",
        "values",
    )

    def __init__(
        self, method: str, url: bytes, headers: Headers, http_version: str, *, keep_alive: bool
    ) -> None:
        parsed = httptools.parse_url(url)
        self.method = method
        self.raw_path: bytes = parsed.path
        path = self.raw_path.decode("ascii")
        self.path = unquote(path) if "%" in path else path
        self.query_string: bytes = parsed.query or b""
        self.headers = headers
        self.http_version = http_version
        self.keep_alive = keep_alive
        """Whether the client wants the connection kept after the answer."""
        self.values = dict(reversed(headers))
        """The first value of each header."""
