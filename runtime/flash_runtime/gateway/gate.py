"""The gate: what happens to a request on the I/O loop, before user code and while that runs.

It answers health, checks keys, finds room for the request or sheds it, takes the body up to its limit, keeps
the request's time, and notices that the client has left. It never waits for user code.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from starlette.types import Message

from flash_runtime.dispatch.admission import Admission
from flash_runtime.dispatch.bridge import Bridge
from flash_runtime.dispatch.responder import Reply
from flash_runtime.gateway.credentials import check_api_key, check_execute_token
from flash_runtime.gateway.request import GatewayRequest, Refusal, request_id_for
from flash_runtime.gateway.routing import RouteTable
from flash_runtime.http.connection import Connection
from flash_runtime.http.head import Head
from flash_runtime.http.writer import JSON, start_of_json
from flash_runtime.monitoring.scoreboard import Outcome
from flash_runtime.monitoring.verdict import Verdict, body_of

log = logging.getLogger("flash_runtime.gate")

RETRY_AFTER = (b"retry-after", b"1")
TIMEOUT_HEADER = b"x-flash-timeout"
"""Seconds that another endpoint waits for the response to its call."""
_BODY_SECONDS = 30.0
"""How long a client may pause within a body."""
_BODIES = 16
"""Bodies of the largest size that may be in memory at once; a request past that is shed."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What the gate needs of the settings."""

    health_path: str
    max_body_bytes: int
    api_key: str | None = field(repr=False)
    execute_token: str | None = field(repr=False)
    keep_alive: bool
    """Whether connections are kept after a response."""


class Observer(Protocol):
    """Hears of the gate's requests; `in_flight` is how many are not answered yet."""

    def on_request(self, in_flight: int) -> None:
        """A request came."""

    def on_request_end(
        self, request: GatewayRequest, outcome: Outcome, seconds: float, in_flight: int
    ) -> None:
        """It has ended, `seconds` after it came."""

    def flush(self) -> None:
        """Write what is still to be written."""


class Gate:
    """Takes requests from connections to the bridge, and what comes back to the connections.

    All of it happens on the I/O loop. `on_tick` must be called there a few times a second.
    """

    def __init__(
        self,
        settings: GateSettings,
        routes: RouteTable,
        admission: Admission,
        bridge: Bridge,
        observer: Observer,
        verdict: Callable[[], Verdict],
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._admission = admission
        self._bridge = bridge
        self._observer = observer
        self._verdict = verdict
        # Its own, made in its process: user code may seed the module's, and a fork would copy it.
        self._chance = random.Random()  # noqa: S311  ids need to be unique, not secret
        self._requests: dict[GatewayRequest, None] = {}
        self._body_bytes = 0
        self._why_cut = ""
        self._start_of_json: tuple[object, bytes] = (None, b"")
        self._keep_alive = settings.keep_alive

    def stop_keeping_connections(self) -> None:
        """Close each connection with its next response, from now on."""
        self._keep_alive = False

    def cut_all(self, why: str) -> int:
        """Give up what is not answered yet: 503 and `why` if no response has begun. Returns how many."""
        self._why_cut = why
        requests = tuple(self._requests)
        for request in requests:
            self._interrupt(request, Outcome.CUT)
        return len(requests)

    def on_tick(self, now: float) -> None:
        """End the requests that take too long: to be answered, or to send their bodies."""
        for request in tuple(self._requests):
            if request.outcome is not None:
                continue  # ended by one before it
            body_due = min(request.body_since + _BODY_SECONDS, request.started + request.timeout)
            if not request.whole and now > body_due:
                self._refuse(request, Refusal(408, "The body was not sent in time.", close=True))
            elif now - request.started > request.timeout:
                self._interrupt(request, Outcome.TIMED_OUT)

    def flush(self) -> None:
        """Write the access lines that are still to be written."""
        self._observer.flush()

    # What connections say.

    def open(self, connection: Connection, head: Head) -> GatewayRequest:
        """The request that the head begins."""
        return GatewayRequest(self, connection, head, request_id_for(head, self._chance))

    def advance(self, request: GatewayRequest) -> None:
        """Let the request in, or take what came of its body."""
        if request.in_lane or request.outcome is not None:
            return
        try:
            if request.target is None:
                if request.head.path == self._settings.health_path:
                    self._answer_health(request)
                    return
                self._let_in(request)
            self._take_body(request)
            if request.whole:
                self._find_room(request)
            elif request.connection.refusal is not None:
                status, detail = request.connection.refusal
                raise Refusal(status, detail, close=True)
        except Refusal as refusal:
            self._refuse(request, refusal)

    def on_lost(self, request: GatewayRequest) -> None:
        """The client has left."""
        running = request.exchange is not None
        self._interrupt(request, Outcome.GONE_RUNNING if running else Outcome.GONE_WAITING)

    def on_flushed(self, request: GatewayRequest) -> None:
        """The client has taken what was written: a response ends with that, a stream may go on."""
        if request.outcome is not None:
            return
        if request.response_complete:
            self._end(request, _outcome(request))
        elif request.exchange is not None:
            count = request.release_to_application()
            if count:
                self._bridge.acknowledge(request.exchange, count)

    # Letting in.

    def _let_in(self, request: GatewayRequest) -> None:
        head = request.head
        target, path_values = self._routes.find(head.method, head.path)
        lane = self._admission.lane(target.kind)
        request.begin(target, path_values, lane)
        self._requests[request] = None
        self._observer.on_request(len(self._requests))
        if target.is_internal:
            check_execute_token(head, self._settings.execute_token)
            request.shorten_timeout(_caller_timeout(head))
        elif self._settings.api_key is not None:
            check_api_key(head, self._settings.api_key)
        if lane.is_full():
            raise _shed()
        declared = head.values.get(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            raise self._too_large()
        if not request.whole and not request.size and _expects_to_go_on(head):
            request.connection.go_on()

    def _take_body(self, request: GatewayRequest) -> None:
        grown = request.count_body()
        if not grown:
            return
        self._body_bytes += grown
        if request.size > self._settings.max_body_bytes:
            raise self._too_large()
        if self._body_bytes > _BODIES * self._settings.max_body_bytes:
            raise _shed()

    def _find_room(self, request: GatewayRequest) -> None:
        if not request.enter_lane(partial(self._submit, request)):
            raise _shed()
        request.connection.on_request_seen()

    def _submit(self, request: GatewayRequest) -> None:
        self._bridge.submit(request.dispatch())

    # What the bridge says.

    def on_end(self, request: GatewayRequest) -> None:
        """The application is done with it: its place is free."""
        request.leave_lane()

    def on_json(self, request: GatewayRequest, body: bytes) -> None:
        """The response of a compiled route."""
        if request.outcome is not None:
            return
        if not self._keep_alive:
            request.close_after_response()
        headers = request.connection.state.default_headers
        if self._start_of_json[0] is not headers:  # a new list each second, with the date
            self._start_of_json = headers, start_of_json(headers)
        request.write_json(self._start_of_json[1], body)
        self._complete(request)

    def on_reply(self, request: GatewayRequest, reply: Reply) -> None:
        """A whole response."""
        if request.outcome is not None:
            return
        if not self._keep_alive:
            request.close_after_response()
        request.write_reply(reply)
        self._complete(request)

    def on_message(self, request: GatewayRequest, message: Message) -> None:
        """A message of the application's response."""
        if request.outcome is not None:
            return
        if not self._keep_alive and not request.status:
            request.close_after_response()
        try:
            request.write_message(message)
        except Exception as error:  # noqa: BLE001  its parts may be of any type
            name = request.target.name if request.target is not None else request.head.path
            log.error("%s: the handler's response cannot be sent: %s", name, error)
            assert request.exchange is not None, "its response comes over it"
            self._bridge.cancel(request.exchange)
            self._fail(request)
            return
        if message["type"] != "http.response.body":
            return
        if not message.get("more_body"):
            self._complete(request)
            return
        request.hold_for_client(len(message.get("body", b"")))
        if request.connection.is_flushed:
            self.on_flushed(request)
        else:
            request.connection.watch_flush(request)

    def on_failure(self, request: GatewayRequest) -> None:
        """The application is done, and has not finished its response."""
        if request.outcome is None:
            self._fail(request)

    # Endings.

    def _complete(self, request: GatewayRequest) -> None:
        """The whole response is written; the request ends when its client has taken it."""
        request.complete_response()
        if request.connection.is_flushed:
            self._end(request, _outcome(request))
        else:
            request.connection.watch_flush(request)
        request.connection.on_response_complete(request)

    def _refuse(self, request: GatewayRequest, refusal: Refusal) -> None:
        if not self._keep_alive:
            request.close_after_response()
        request.write_refusal(refusal)
        self._finish(request, refusal.outcome)

    def _fail(self, request: GatewayRequest) -> None:
        """Nothing more comes of the application."""
        if not request.status:
            self._refuse(request, Refusal(500, "Internal Server Error", outcome=Outcome.FAILED))
        else:
            request.connection.break_off(flush=True)
            self._end(request, Outcome.FAILED)

    def _interrupt(self, request: GatewayRequest, why: Outcome) -> None:
        """End the request without its response; only the first reason counts."""
        if request.outcome is not None:
            return
        if request.exchange is not None:
            self._bridge.cancel(request.exchange)
        else:
            request.forget_lane()
        if request.status or not request.whole:
            # A response that began, or a body that is still to come, has the connection for itself.
            request.connection.break_off(flush=False)
            self._end(request, why)
        elif why is Outcome.TIMED_OUT:
            detail = f"The request was not answered within {request.timeout:g} seconds."
            self._refuse(request, Refusal(504, detail, outcome=why))
        elif why is Outcome.CUT:
            self._refuse(request, Refusal(503, self._why_cut, RETRY_AFTER, outcome=why, close=True))
        else:
            self._end(request, why)

    def _finish(self, request: GatewayRequest, outcome: Outcome) -> None:
        """A response of the gate's own is written."""
        request.complete_response()
        self._end(request, outcome)
        request.connection.on_response_complete(request)

    def _end(self, request: GatewayRequest, outcome: Outcome) -> None:
        request.end(outcome)
        if request not in self._requests:
            return  # it was never let in
        del self._requests[request]
        self._body_bytes -= request.counted
        seconds = time.monotonic() - request.started
        self._observer.on_request_end(request, outcome, seconds, len(self._requests))
        request.connection.on_request_seen()

    def _answer_health(self, request: GatewayRequest) -> None:
        verdict = self._verdict()
        if request.head.method not in ("GET", "HEAD"):
            verdict = Verdict(405, "method not allowed")
        content = body_of(verdict)
        headers = [(b"cache-control", b"no-store")]
        if content:
            headers.append(JSON)
        if verdict.status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        if not self._keep_alive:
            request.close_after_response()
        request.write_whole(verdict.status, headers, content, with_id=False)
        self._finish(request, Outcome.ANSWERED)

    def _too_large(self) -> Refusal:
        limit = self._settings.max_body_bytes
        return Refusal(413, f"The body is larger than this server's limit of {limit} bytes.", close=True)


def _expects_to_go_on(head: Head) -> bool:
    # A client of HTTP/1.0 does not know that answer: RFC 9110, section 10.1.1.
    return head.http_version == "1.1" and head.values.get(b"expect", b"").lower() == b"100-continue"


def _caller_timeout(head: Head) -> float:
    """Seconds that the endpoint which calls this one waits for the response; infinite if it does not say."""
    try:
        seconds = float(head.values.get(TIMEOUT_HEADER, b"inf"))
    except ValueError:
        return math.inf
    return seconds if seconds > 0 else math.inf


def _outcome(request: GatewayRequest) -> Outcome:
    """How a request that was answered has ended."""
    return Outcome.FAILED if request.status >= 500 else Outcome.ANSWERED


def _shed() -> Refusal:
    return Refusal(503, "The server is busy: try again.", RETRY_AFTER, outcome=Outcome.SHED)
