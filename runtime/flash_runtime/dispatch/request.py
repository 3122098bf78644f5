"""The request that crosses from the I/O loop to the handlers."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.types import Scope

from flash_runtime.http.head import Head

Address = tuple[str, int]


class DispatchedRequest(NamedTuple):
    """A whole request, as handlers get it. It does not change: threads read it without a lock."""

    name: str
    """What it is for, for people."""
    request_id: str
    deadline: float
    """When its time is over, on the clock of `time.monotonic()`."""
    head: Head
    path_values: dict[str, Any]
    body: bytes | bytearray
    server: Address | None
    client: Address | None

    @property
    def content_type(self) -> bytes:
        """The `Content-Type` header; empty if there is none."""
        return self.head.values.get(b"content-type", b"")

    def scope(self) -> Scope:
        """The request as an ASGI scope."""
        head = self.head
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.http_version,
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "root_path": "",
            "headers": head.headers,
            "state": {"request_id": self.request_id},
            "method": head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query_string,
        }
