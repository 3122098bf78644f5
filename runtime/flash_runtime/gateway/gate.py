"""The gate: what happens on the I/O loop before the application is asked, and when it takes too long.

It answers health, checks the API key, finds room for the request or sheds it, takes the body up to the limit,
keeps its time, and notices that its client has left. It never waits for user code to do any of these.
"""

from __future__ import annotations

import hmac
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from starlette.types import Message

from flash_runtime.dispatch.admission import Admission
from flash_runtime.dispatch.bridge import Bridge, Exchange
from flash_runtime.dispatch.responder import Reply
from flash_runtime.gateway.access_log import AccessLog
from flash_runtime.gateway.request import Call, Refusal, request_id_for
from flash_runtime.gateway.routing import RouteTable
from flash_runtime.http.connection import Connection
from flash_runtime.http.head import Head
from flash_runtime.http.writer import JSON, start_of_json
from flash_runtime.monitoring import verdict as health
from flash_runtime.monitoring.scoreboard import Outcome
from flash_runtime.monitoring.verdict import Verdict

log = logging.getLogger("flash_runtime.gate")

RETRY_AFTER = (b"retry-after", b"1")
TIMEOUT_HEADER = b"x-flash-timeout"
"""Seconds that a caller of the framework's own waits for an answer."""
_BODY_SECONDS = 30.0
"""How long a client may pause within a body."""
_BODIES = 16
"""So many bodies of the largest size may be in memory at once; the next byte is shed."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What the gate needs of the settings."""

    health_path: str
    max_body_bytes: int
    api_key: str | None = field(repr=False)
    execute_token: str | None = field(repr=False)


class Observer(Protocol):
    """Who is told of the gate's requests; `in_flight` is how many are not answered yet."""

    def on_request(self, in_flight: int) -> None:
        """One came."""

    def on_admission(self, connection: Connection) -> None:
        """The connection's request runs or waits."""

    def on_request_end(
        self, connection: Connection, outcome: Outcome, seconds: float, in_flight: int
    ) -> None:
        """It has ended, `seconds` after it came."""


class Gate:
    """Takes the requests of connections to the `bridge`, and what comes back to the connections.

    `keep_alive` says whether connections are kept after an answer. `clock` is `time.monotonic`. All of it
    happens on the I/O loop; `on_tick` must be called there a few times a second.
    """

    def __init__(
        self,
        settings: GateSettings,
        routes: RouteTable,
        admission: Admission,
        bridge: Bridge,
        verdict: Callable[[], Verdict],
        observer: Observer,
        access: AccessLog | None,
        clock: Callable[[], float],
        *,
        keep_alive: bool,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._admission = admission
        self._bridge = bridge
        self._verdict = verdict
        self._observer = observer
        self._access = access
        self._clock = clock
        # Its own, made in its process: user code may seed the module's, and a fork would copy it.
        self._chance = random.Random()  # noqa: S311  ids need to be unique, not secret
        self._calls: dict[Call, None] = {}
        self._body_bytes = 0
        self._why_cut = ""
        self._start_of_json: tuple[object, bytes] = (None, b"")
        self.keep_alive = keep_alive

    def cut_all(self, why: str) -> int:
        """Give up what is not answered yet: 503 and `why` where no response has begun. Returns how many."""
        self._why_cut = why
        calls = tuple(self._calls)
        for call in calls:
            self._interrupt(call, Outcome.CUT)
        return len(calls)

    def on_tick(self, now: float) -> None:
        """End what takes too long: to be answered, or to send its body."""
        for call in tuple(self._calls):
            assert call.target is not None, "it has one once it is among the calls"
            if call.outcome is not None:
                continue  # ended by one before it
            if not call.whole and now - min(call.heard + _BODY_SECONDS, call.started + call.timeout) > 0:
                self._refuse(call, Refusal(408, "The body was not sent in time.", close=True))
            elif now - call.started > call.timeout:
                self._interrupt(call, Outcome.TIMED_OUT)

    def flush(self) -> None:
        """Write the access lines that are still to be written."""
        if self._access is not None:
            self._access.flush()

    # What connections say.

    def open(self, connection: Connection, head: Head) -> Call:
        """The call that the head begins."""
        return Call(self, connection, head, request_id_for(head, self._chance))

    def advance(self, call: Call) -> None:
        """Let the call in, or take what came of its body."""
        if call.exchange is not None or call.outcome is not None:
            return
        try:
            if call.target is None:
                if call.head.path == self._settings.health_path:
                    self._answer_health(call)
                    return
                self._let_in(call)
            self._take_body(call)
            if call.whole:
                self._find_room(call)
            elif call.connection.refusal is not None:
                status, detail = call.connection.refusal
                raise Refusal(status, detail, close=True)
        except Refusal as refusal:
            self._refuse(call, refusal)

    def on_lost(self, call: Call) -> None:
        """The client has left."""
        self._interrupt(call, Outcome.GONE_RUNNING if call.submitted else Outcome.GONE_WAITING)

    def on_flushed(self, call: Call) -> None:
        """The client has taken what was written: an answer ends with that, a stream may go on."""
        if call.outcome is not None:
            return
        if call.response_complete:
            self._end(call, _outcome(call))
        elif call.exchange is not None and call.unacknowledged:
            count, call.unacknowledged = call.unacknowledged, 0
            self._bridge.acknowledge(call.exchange, count)

    # Letting in.

    def _let_in(self, call: Call) -> None:
        head = call.head
        call.started = call.heard = call.connection.quiet_since  # its time does not run before its turn
        call.target, call.path_values = self._routes.find(head.method, head.path)
        self._calls[call] = None
        self._observer.on_request(len(self._calls))
        call.timeout = call.target.timeout
        if call.target.is_internal:
            self._authorise_internal(head)
            call.timeout = min(call.timeout, _seconds_left(head))
        elif self._settings.api_key is not None:
            _authorise(head, self._settings.api_key, "the API key as `Authorization: Bearer KEY`")
        if self._admission.lane(call.target.kind).is_full():
            raise _shed()
        declared = head.values.get(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            raise self._too_large()
        if not call.whole and not call.size and _expects_to_go_on(head):
            call.connection.go_on()

    def _authorise_internal(self, head: Head) -> None:
        token = self._settings.execute_token
        if token is None:
            detail = (
                "This worker takes no calls by name: set FLASH_EXECUTE_TOKEN (or RUNPOD_API_KEY) to allow it."
            )
            raise Refusal(403, detail, close=True)
        _authorise(head, token, "the execute token as `Authorization: Bearer TOKEN`")

    def _take_body(self, call: Call) -> None:
        if call.size == call.counted:
            return
        self._body_bytes += call.size - call.counted
        call.counted = call.size
        if call.size > self._settings.max_body_bytes:
            raise self._too_large()
        if self._body_bytes > _BODIES * self._settings.max_body_bytes:
            raise _shed()

    def _find_room(self, call: Call) -> None:
        assert call.target is not None, "it was let in"
        call.exchange = Exchange(call, call.target.answering)
        call.start = partial(self._submit, call)
        if not self._admission.lane(call.target.kind).enter(call.start):
            raise _shed()
        self._observer.on_admission(call.connection)

    def _submit(self, call: Call) -> None:
        assert call.exchange is not None, "it has a place"
        call.submitted = True
        self._bridge.submit(call.exchange)

    # What the bridge says.

    def on_end(self, exchange: Exchange) -> None:
        """The application is done with it: its place is free."""
        self._admission.lane(exchange.asked.target.kind).leave()

    def on_json(self, exchange: Exchange, body: bytes) -> None:
        """The answer of a compiled route."""
        call: Call = exchange.asked
        if call.outcome is not None:
            return
        if not self.keep_alive:
            call.keep_alive = False
        headers = call.connection.state.default_headers
        if self._start_of_json[0] is not headers:  # uvicorn makes them anew when the date has changed
            self._start_of_json = headers, start_of_json(headers)
        call.write_json(self._start_of_json[1], body)
        self._complete(call)

    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        """A whole answer."""
        call: Call = exchange.asked
        if call.outcome is not None:
            return
        if not self.keep_alive:
            call.keep_alive = False
        call.write_reply(reply)
        self._complete(call)

    def on_message(self, exchange: Exchange, message: Message) -> None:
        """A message of the application's response."""
        call: Call = exchange.asked
        if call.outcome is not None:
            return
        if not self.keep_alive and not call.status:
            call.keep_alive = False
        try:
            call.write_message(message)
        except Exception as error:  # noqa: BLE001  its parts may be of any type
            log.error("%s: the handler's response cannot be sent: %s", call.name, error)
            self._bridge.cancel(exchange)
            self._fail(call)
            return
        if message["type"] != "http.response.body":
            return
        if not message.get("more_body"):
            self._complete(call)
            return
        call.unacknowledged += len(message.get("body", b""))
        if call.connection.is_flushed:
            self.on_flushed(call)
        else:
            call.connection.watch_flush(call)

    def on_failure(self, exchange: Exchange) -> None:
        """The application is done, and has not finished its response."""
        call: Call = exchange.asked
        if call.outcome is None:
            self._fail(call)

    # Endings.

    def _complete(self, call: Call) -> None:
        """All of the answer is written; the call ends when its client has taken it."""
        call.response_complete = True
        if call.connection.is_flushed:
            self._end(call, _outcome(call))
        else:
            call.connection.watch_flush(call)
        call.connection.on_response_complete(call)

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        if not self.keep_alive:
            call.keep_alive = False
        call.write_refusal(refusal)
        self._finish(call, refusal.outcome)

    def _fail(self, call: Call) -> None:
        """Nothing more comes of the application."""
        if not call.status:
            self._refuse(call, Refusal(500, "Internal Server Error", outcome=Outcome.FAILED))
        else:
            call.connection.break_off(flush=True)
            self._end(call, Outcome.FAILED)

    def _interrupt(self, call: Call, why: Outcome) -> None:
        """End the call without its answer; only the first reason counts."""
        if call.outcome is not None:
            return
        if call.submitted:
            assert call.exchange is not None, "it was submitted"
            self._bridge.cancel(call.exchange)
        elif call.start is not None:
            assert call.target is not None, "it waits in its lane"
            self._admission.lane(call.target.kind).forget(call.start)
        if call.status or not call.whole:
            # A response that began, or a body that is still to come, has the connection for itself.
            call.connection.break_off(flush=False)
            self._end(call, why)
        elif why is Outcome.TIMED_OUT:
            assert call.target is not None, "it has a time"
            detail = f"The request was not answered within {call.timeout:g} seconds."
            self._refuse(call, Refusal(504, detail, outcome=why))
        elif why is Outcome.CUT:
            self._refuse(call, Refusal(503, self._why_cut, RETRY_AFTER, outcome=why, close=True))
        else:
            self._end(call, why)

    def _finish(self, call: Call, outcome: Outcome) -> None:
        """An answer of the gate's own is written."""
        call.response_complete = True
        self._end(call, outcome)
        call.connection.on_response_complete(call)

    def _end(self, call: Call, outcome: Outcome) -> None:
        call.outcome = outcome
        call.exchange = call.start = None  # they hold the call: a cycle would keep its body for long
        if call not in self._calls:
            return  # it was never let in
        del self._calls[call]
        self._body_bytes -= call.counted
        call.forget_body()
        seconds = self._clock() - call.started
        self._observer.on_request_end(call.connection, outcome, seconds, len(self._calls))
        if self._access is not None:
            self._access.add(call, outcome, seconds)

    def _answer_health(self, call: Call) -> None:
        verdict, head = self._verdict(), call.head
        if head.method not in ("GET", "HEAD"):
            verdict = Verdict(405, "method not allowed")
        content = health.body(verdict)
        headers = [(b"cache-control", b"no-store")]
        if content:
            headers.append(JSON)
        if verdict.status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        if not self.keep_alive:
            call.keep_alive = False
        call.write_whole(verdict.status, headers, content, with_id=False)
        self._finish(call, Outcome.ANSWERED)

    def _too_large(self) -> Refusal:
        limit = self._settings.max_body_bytes
        return Refusal(413, f"The body is larger than this server's limit of {limit} bytes.", close=True)


def _expects_to_go_on(head: Head) -> bool:
    # A client of HTTP/1.0 does not know that answer: RFC 9110, section 10.1.1.
    return head.http_version == "1.1" and head.values.get(b"expect", b"").lower() == b"100-continue"


def _authorise(head: Head, key: str, what: str) -> None:
    scheme, _, given = head.values.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key.encode()):
        raise Refusal(401, f"Send {what}.", (b"www-authenticate", b"Bearer"), close=True)


def _seconds_left(head: Head) -> float:
    """What the caller leaves for the answer: it has a time to keep itself."""
    try:
        seconds = float(head.values.get(TIMEOUT_HEADER, b"inf"))
    except ValueError:
        return math.inf
    return seconds if seconds > 0 else math.inf


def _outcome(call: Call) -> Outcome:
    """How an answered call has ended."""
    return Outcome.FAILED if call.status >= 500 else Outcome.ANSWERED


def _shed() -> Refusal:
    return Refusal(503, "The server is busy: try again.", RETRY_AFTER, outcome=Outcome.SHED)
