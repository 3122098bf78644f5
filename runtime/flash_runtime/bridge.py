"""The bridge: carries ASGI requests between a worker's two loops.

The I/O loop hands over a request with its whole body; the application loop hands back the response, in one
piece where it is whole, chunk by chunk with flow control where it is streamed. Each way is a mailbox: a deque
and one wake-up of the other loop for all that is in it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Generic, TypeVar

from flash_runtime import logs

T = TypeVar("T")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_STREAM_WINDOW = 256 * 1024
"""Bytes of a streamed response that may be on their way; past it, the application's `send` waits."""
_DISCONNECT = {"type": "http.disconnect"}


class Mailbox(Generic[T]):
    """Hands items to `deliver` on `loop`, from any thread, waking the loop once for all that wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[T], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._woken = False

    def put(self, item: T) -> None:
        self._items.append(item)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # Cleared first: an item that is put from now on either is taken below or wakes the loop again.
        self._woken = False
        while self._items:
            self._deliver(self._items.popleft())


class Exchange:
    """One request on its way through both loops. Each attribute says which loop writes it."""

    __slots__ = (
        "acknowledged",
        "arrived",
        "body",
        "disconnected",
        "failed",
        "finished",
        "gone",
        "messages",
        "scope",
        "sent",
        "taken",
        "window",
    )

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.scope = scope
        self.body = body
        # Written by the I/O loop.
        self.messages: deque[Message] = deque()
        self.arrived: asyncio.Event = asyncio.Event()
        self.failed = False
        self.disconnected = False
        # Written by the application loop.
        self.taken = False
        self.gone: asyncio.Event | None = None
        self.finished = False
        self.window: asyncio.Event | None = None
        self.sent = 0
        self.acknowledged = 0


class Bridge:
    """Joins the loops. Construct it on the application's loop, then `connect` it from the I/O loop.

    `app` runs on the application's loop, each request in a task whose context has the request's id.
    """

    def __init__(self, app: Application, app_loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._app_loop = app_loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._exchanges: set[Exchange] = set()  # the I/O loop's
        self._to_app: Mailbox[Callable[[], None]] = Mailbox(app_loop, _call)
        self._to_io: Mailbox[Callable[[], None]] | None = None

    def connect(self, io_loop: asyncio.AbstractEventLoop) -> None:
        """Name the I/O loop. Call it once, before the first request."""
        self._to_io = Mailbox(io_loop, _call)

    async def handle(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> bool:
        """On the I/O loop: have the application answer a request whose body is read.

        `receive` is then only asked whether the client is still there. False means that the application broke
        off without a whole response.
        """
        exchange = Exchange(scope, body)
        self._to_app.put(lambda: self._start(exchange))
        watch = asyncio.ensure_future(self._watch(exchange, receive))
        self._exchanges.add(exchange)
        try:
            while True:
                await exchange.arrived.wait()
                exchange.arrived.clear()
                while exchange.messages:
                    message = exchange.messages.popleft()
                    await send(message)
                    if message["type"] == "http.response.body":
                        if not message.get("more_body"):
                            return True
                        self._acknowledge(exchange, len(message.get("body", b"")))
                if exchange.failed:
                    return False
        finally:
            self._exchanges.discard(exchange)
            watch.cancel()

    def cancel_all(self) -> None:
        """From any thread: cancel what the application still works on."""

        def cancel() -> None:
            for task in tuple(self._tasks):
                task.cancel()

        self._to_app.put(cancel)

    def abandon_all(self) -> None:
        """On the I/O loop: wait no longer for what the application still works on; each is a failure."""
        for exchange in self._exchanges:
            exchange.failed = True
            exchange.arrived.set()

    async def _watch(self, exchange: Exchange, receive: Receive) -> None:
        """Tell the application when the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        exchange.disconnected = True

        def tell() -> None:
            if exchange.gone is not None:
                exchange.gone.set()
            if exchange.window is not None:
                exchange.window.set()

        self._to_app.put(tell)

    def _acknowledge(self, exchange: Exchange, count: int) -> None:
        def open_window() -> None:
            exchange.acknowledged += count
            if exchange.window is not None and exchange.sent - exchange.acknowledged < _STREAM_WINDOW:
                exchange.window.set()

        self._to_app.put(open_window)

    # From here on: the application's loop.

    def _start(self, exchange: Exchange) -> None:
        context = contextvars.copy_context()
        context.run(logs.request_id.set, exchange.scope["state"]["request_id"])
        task = self._app_loop.create_task(self._run(exchange), context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        held: list[Message] = []

        async def receive() -> Message:
            if not exchange.taken:
                exchange.taken = True
                return {"type": "http.request", "body": exchange.body, "more_body": False}
            if not exchange.disconnected:
                exchange.gone = exchange.gone or asyncio.Event()
                await exchange.gone.wait()
            return _DISCONNECT

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)  # leaves with the first body, in one hand-over
                return
            exchange.finished = not message.get("more_body")
            self._reply(exchange, [*held, message])
            held.clear()
            if not exchange.finished:
                await self._flow(exchange, len(message.get("body", b"")))

        try:
            await self._app(exchange.scope, receive, send)
        finally:
            if not exchange.finished:
                self._reply(exchange, [], failed=True)

    async def _flow(self, exchange: Exchange, count: int) -> None:
        """Wait while more than a window's bytes are on their way to the client."""
        exchange.sent += count
        while exchange.sent - exchange.acknowledged >= _STREAM_WINDOW and not exchange.disconnected:
            exchange.window = asyncio.Event()
            await exchange.window.wait()

    def _reply(self, exchange: Exchange, messages: list[Message], *, failed: bool = False) -> None:
        def deliver() -> None:
            exchange.messages.extend(messages)
            exchange.failed = failed
            exchange.arrived.set()

        assert self._to_io is not None, "connect() comes before the first request"
        self._to_io.put(deliver)


def _call(action: Callable[[], None]) -> None:
    action()
