"""What a call of an endpoint can raise. Where httpx has an exception for it, what is raised is that, too."""

from __future__ import annotations

from typing import Any


class EndpointError(Exception):
    """A call that did not get its answer.

    `status` is that of HTTP, `request_id` what the endpoint's log has the request by, `body` what came back:
    parsed JSON, text or bytes. Each is `None` where there is none.
    """

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None, body: Any = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.body = body


class EndpointAddressError(EndpointError):
    """There is no telling where the endpoint is, or what is configured for that cannot be used."""


class EndpointStatusError(EndpointError):
    """The endpoint answered with another status than a success. An `httpx.HTTPStatusError`, too."""


class EndpointUnreachable(EndpointError):
    """There was no connection, or it broke. An `httpx.ConnectError`, too."""


class EndpointTimeout(EndpointError):
    """There was no answer in time. An `httpx.TimeoutException`, too."""
