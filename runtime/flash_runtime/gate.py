"""The gate: what happens on the I/O loop before the application is asked, and when it takes too long.

It answers health, checks the API key, finds room for the request or sheds it, reads the body up to the limit,
keeps its time, and notices that its client has left. It never waits for user code to do any of these.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flash_runtime import health
from flash_runtime.admission import Admission, Lane
from flash_runtime.bridge import Bridge, Exchange, Receive, Scope, Send
from flash_runtime.call import Call, Interrupted, Refusal, header
from flash_runtime.health import Verdict
from flash_runtime.protocol import BoundedProtocol
from flash_runtime.routing import RouteTable
from flash_runtime.scoreboard import Outcome

RETRY_AFTER = (b"retry-after", b"1")
_BODY_SECONDS = 30.0
"""How long a client may pause within a body."""
_BODIES = 16
"""So many bodies of the largest size may be in memory at once; the next byte is shed."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What the gate needs of the settings."""

    health_path: str
    max_body_bytes: int
    api_key: str | None
    access_log: bool


class Observer(Protocol):
    """Who is told of the gate's requests; `in_flight` is how many are not answered yet."""

    def on_request(self, in_flight: int) -> None:
        """One came."""

    def on_admission(self, connection: BoundedProtocol) -> None:
        """The connection's request runs or waits."""

    def on_request_end(
        self, connection: BoundedProtocol, outcome: Outcome, seconds: float, in_flight: int
    ) -> None:
        """It has ended, `seconds` after it came."""


class Gate:
    """An ASGI application for the I/O loop, in front of the `bridge`.

    `keep_alive` says whether connections are kept after an answer.
    """

    def __init__(
        self,
        settings: GateSettings,
        routes: RouteTable,
        admission: Admission,
        bridge: Bridge,
        verdict: Callable[[], Verdict],
        observer: Observer,
        *,
        keep_alive: bool,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._admission = admission
        self._bridge = bridge
        self._verdict = verdict
        self._observer = observer
        self._calls: set[Call] = set()
        self._body_bytes = 0
        self._why_cut = ""
        self.keep_alive = keep_alive

    def cut_all(self, why: str) -> int:
        """Give up what is not answered yet: 503 and `why` where no response has begun. Returns how many."""
        self._why_cut = why
        for call in self._calls:
            call.interrupt(Outcome.CUT)
        return len(self._calls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == self._settings.health_path:
            await _answer_health(self._verdict(), scope["method"], send, keep_alive=self.keep_alive)
            return
        target = self._routes.find(scope["method"], scope["path"])
        call = Call(scope, send, target, keep_alive=self.keep_alive)
        call.connection.on_lost = call.lose_client
        self._calls.add(call)
        self._observer.on_request(len(self._calls))
        outcome = Outcome.FAILED
        try:
            outcome = await self._pass(call, receive)
        except Refusal as refusal:
            outcome = refusal.outcome
            await call.refuse(refusal)
        except Interrupted:
            assert call.interrupted is not None, "what interrupts says why"
            outcome = call.interrupted
            await self._apologise(call)
        finally:
            self._calls.discard(call)
            call.connection.on_lost = None
            seconds = call.seconds()
            self._observer.on_request_end(call.connection, outcome, seconds, len(self._calls))
            if self._settings.access_log:
                call.log(outcome, seconds)

    async def _pass(self, call: Call, receive: Receive) -> Outcome:
        lane = self._admission.lane(call.target.kind)
        self._authorise(call.scope)
        if lane.is_full():
            raise _shed(close=call.connection.in_body)
        self._refuse_declared(call.scope)
        held = 0

        def take(chunk: bytes) -> None:
            nonlocal held
            held += len(chunk)
            self._body_bytes += len(chunk)
            if held > self._settings.max_body_bytes:
                raise self._too_large()
            if self._body_bytes > _BODIES * self._settings.max_body_bytes:
                raise _shed(close=True)

        timer: asyncio.TimerHandle | None = None
        try:
            body = await call.read(receive, _BODY_SECONDS, take)
            left = call.target.timeout - call.seconds()
            timer = asyncio.get_running_loop().call_later(left, call.interrupt, Outcome.TIMED_OUT)
            return await self._run(call, lane, body)
        finally:
            self._body_bytes -= held
            if timer is not None:
                timer.cancel()

    async def _run(self, call: Call, lane: Lane, body: bytes) -> Outcome:
        exchange = Exchange(call.scope, body, call.target.name, call.wake, lane.leave)

        def start() -> None:
            call.submitted = True
            self._bridge.submit(exchange)

        if not lane.enter(start):
            raise _shed(close=False)
        self._observer.on_admission(call.connection)
        try:
            return await self._answer(call, exchange)
        except BaseException:
            # Nobody takes the rest of the answer: the place must not wait for that.
            if call.submitted:
                self._bridge.cancel(exchange)
            else:
                lane.forget(start)
            raise

    async def _answer(self, call: Call, exchange: Exchange) -> Outcome:
        """Pass the application's response on as it comes."""
        while True:
            while exchange.messages:
                message = exchange.messages.popleft()
                await call.send(message)
                if message["type"] == "http.response.body":
                    if not message.get("more_body"):
                        await call.flush()
                        return Outcome.FAILED if call.status >= 500 else Outcome.ANSWERED
                    self._bridge.acknowledge(exchange, len(message.get("body", b"")))
            if exchange.failed:
                if not call.status:
                    raise Refusal(500, "Internal Server Error", outcome=Outcome.FAILED)
                call.connection.break_off(flush=True)
                return Outcome.FAILED
            await call.wait()

    async def _apologise(self, call: Call) -> None:
        """Tell the client of a call that was interrupted why, where it can still be told."""
        if call.status or call.connection.transport.is_closing():
            return
        if call.interrupted is Outcome.TIMED_OUT:
            detail = f"The request was not answered within {call.target.timeout:g} seconds."
            await call.refuse(Refusal(504, detail))
        elif call.interrupted is Outcome.CUT:
            await call.refuse(Refusal(503, self._why_cut, RETRY_AFTER, close=True))

    def _authorise(self, scope: Scope) -> None:
        key = self._settings.api_key
        if key is None:
            return
        scheme, _, given = (header(scope, b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key.encode()):
            raise Refusal(
                401,
                "Send the API key as `Authorization: Bearer KEY`.",
                (b"www-authenticate", b"Bearer"),
                close=True,
            )

    def _refuse_declared(self, scope: Scope) -> None:
        declared = header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        limit = self._settings.max_body_bytes
        return Refusal(413, f"The body is larger than this server's limit of {limit} bytes.", close=True)


def _shed(*, close: bool) -> Refusal:
    return Refusal(503, "The server is busy: try again.", RETRY_AFTER, outcome=Outcome.SHED, close=close)


async def _answer_health(verdict: Verdict, method: str, send: Send, *, keep_alive: bool) -> None:
    if method not in ("GET", "HEAD"):
        verdict = Verdict(405, "method not allowed")
    content = health.body(verdict)
    headers = [(b"cache-control", b"no-store")]
    if content:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if verdict.status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    if not keep_alive:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": verdict.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})
