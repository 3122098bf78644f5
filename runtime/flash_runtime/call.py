"""A call: one request on the I/O loop, from its head to its access line."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable

from flash_runtime import logs
from flash_runtime.bridge import Message, Receive, Scope, Send
from flash_runtime.protocol import CONNECTION, BoundedProtocol
from flash_runtime.routing import Target
from flash_runtime.scoreboard import Outcome

access = logging.getLogger("flash_runtime.access")

_REQUEST_ID_LIMIT = 128
_CLOSE = (b"connection", b"close")


class Refusal(Exception):
    """The request is answered on the I/O loop: a status, a detail for the client, headers, and the outcome.

    `close` ends the connection with the answer; it must where the request's body is not read.
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
        self.headers = (*headers, _CLOSE) if close else headers
        self.outcome = outcome


class Interrupted(Exception):
    """What happened meanwhile ends the call; see `Call.interrupted`."""


class Call:
    """One request's id, its response, how it ended, and its access line."""

    def __init__(self, scope: Scope, send: Send, target: Target, *, keep_alive: bool) -> None:
        self.scope = scope
        self.target = target
        self.connection: BoundedProtocol = scope.pop(CONNECTION)  # not for the application
        self.status = 0
        self.interrupted: Outcome | None = None
        """Why nobody waits for the answer any more."""
        self.submitted = False
        """Whether the application has been asked."""
        self.request_id = _request_id(scope)
        self.started = time.monotonic()
        self._send = send
        self._keep_alive = keep_alive
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        scope["state"]["request_id"] = self.request_id

    # Waiting, and what ends it.

    async def wait(self) -> None:
        """Until `wake`. Raises `Interrupted`."""
        if self.interrupted is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        if self.interrupted is not None:
            raise Interrupted

    def wake(self) -> None:
        """Something came that `wait` may wait for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def interrupt(self, why: Outcome) -> None:
        """End the call without its answer; only the first reason counts."""
        if self.interrupted is not None:
            return
        self.interrupted = why
        self.wake()
        if self.status or self._reading:
            # A response that began, or a body that is still to come, has the connection for itself.
            self.connection.break_off(flush=False)

    def lose_client(self) -> None:
        """The client has left."""
        self.interrupt(Outcome.GONE_RUNNING if self.submitted else Outcome.GONE_WAITING)

    # The request's body.

    async def read(self, receive: Receive, seconds: float, take: Callable[[bytes], None]) -> bytes:
        """The whole body. `take` is given each part and may raise `Refusal`.

        A client that sends nothing for `seconds`, or not the whole within the request's time, is refused.
        Raises `Interrupted` where it leaves.
        """
        if not self.connection.in_body:
            chunk, _ = await self._receive(receive)
            take(chunk)
            return chunk
        chunks = []
        more = True
        self._reading = True
        try:
            while more:
                left = self.started + self.target.timeout - time.monotonic()
                async with asyncio.timeout(min(seconds, left)):
                    chunk, more = await self._receive(receive)
                take(chunk)
                chunks.append(chunk)
        except TimeoutError:
            raise Refusal(408, "The body was not sent in time.", close=True) from None
        finally:
            self._reading = False
        return b"".join(chunks)

    async def _receive(self, receive: Receive) -> tuple[bytes, bool]:
        message = await receive()
        if self.connection.in_body and self.connection.refusal is not None:
            status, detail = self.connection.refusal
            raise Refusal(status, detail, close=True)
        if message["type"] == "http.disconnect":
            self.lose_client()
            raise Interrupted
        return message.get("body", b""), message.get("more_body", False)

    # The response.

    async def send(self, message: Message) -> None:
        """Pass a message of the response on, with the request's id among its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            if not self._keep_alive and _CLOSE not in headers:
                headers.append(_CLOSE)
            message = {**message, "headers": headers}
        await self._send(message)

    async def flush(self) -> None:
        """Until the client has taken the response, but for what is on its way. Raises `Interrupted`."""
        await self.connection.flow.drain()
        if self.interrupted is not None:
            raise Interrupted

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with the refusal, as JSON."""
        content = json.dumps({"detail": refusal.detail, "request_id": self.request_id}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            *refusal.headers,
        ]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})

    def seconds(self) -> float:
        """Since the request came."""
        return time.monotonic() - self.started

    def log(self, outcome: Outcome, seconds: float) -> None:
        """Write the access line. Status 499 stands for a client that left before its answer."""
        if not access.isEnabledFor(logging.INFO):
            return
        logs.request_id.set(self.request_id)
        status = self.status or 499
        extra = {
            "method": self.scope["method"],
            "route": self.target.path,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if outcome is not Outcome.ANSWERED:
            extra["outcome"] = outcome.name.lower()
        # Still percent-encoded: no client writes a log line of its own.
        path = self.scope["raw_path"].decode("latin-1")
        access.info("%s %s %d", self.scope["method"], path, status, extra=extra)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The request's first header of that name, in lower case."""
    return next((value for key, value in scope["headers"] if key == name), None)


def _request_id(scope: Scope) -> str:
    """The client's X-Request-ID where it is one plain printable word, else a new one."""
    given = (header(scope, b"x-request-id") or b"").decode("latin-1")
    if (
        given
        and len(given) <= _REQUEST_ID_LIMIT
        and given.isascii()
        and given.isprintable()
        and " " not in given
    ):
        return given
    return uuid.uuid4().hex
