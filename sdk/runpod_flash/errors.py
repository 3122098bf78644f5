"""Errors that a call of an endpoint can raise. Most are exceptions of httpx, too."""

from __future__ import annotations

from typing import Any


class EndpointError(Exception):
    """A call failed.

    `status` is the HTTP status. `request_id` is the request's id in the endpoint's log. `body` is what the
    response contains: parsed JSON, text or bytes. Each is `None` if there is none.
    """

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None, body: Any = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.body = body


class EndpointAddressError(EndpointError):
    """The endpoint's address or key is unknown, or cannot be used."""


class EndpointStatusError(EndpointError):
    """The endpoint answered with an error status. Also an `httpx.HTTPStatusError`."""


class EndpointUnreachable(EndpointError):
    """The endpoint could not be reached, or the connection broke. Also an `httpx.ConnectError`."""


class EndpointTimeout(EndpointError):
    """The endpoint did not answer in time. Also an `httpx.TimeoutException`."""
