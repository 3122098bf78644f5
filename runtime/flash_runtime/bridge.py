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
    """One request on its way through both loops. Each attribute says which loop writes it.

    `wake` is called on the I/O loop when something came back, and `ended` when the application is done with
    the request: maybe long after its response, or after the I/O loop has lost interest.
    """

    __slots__ = (
        "acknowledged",
        "body",
        "cancelled",
        "ended",
        "failed",
        "finished",
        "gone",
        "messages",
        "name",
        "over",
        "scope",
        "sent",
        "taken",
        "task",
        "wake",
        "window",
    )

    def __init__(
        self, scope: Scope, body: bytes, name: str, wake: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self.scope = scope
        self.body = body
        self.name = name
        self.wake = wake
        self.ended = ended
        # Written by the I/O loop.
        self.messages: deque[Message] = deque()
        self.failed = False
        self.cancelled = False
        # Written by the application loop.
        self.task: asyncio.Task[None] | None = None
        self.taken = False
        self.gone: asyncio.Event | None = None
        self.finished = False
        self.over = False
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
        self._tasks: dict[asyncio.Task[None], Exchange] = {}
        self._to_app: Mailbox[Callable[[], None]] = Mailbox(app_loop, _call)
        self._to_io: Mailbox[Callable[[], None]] | None = None

    # On the I/O loop.

    def connect(self, io_loop: asyncio.AbstractEventLoop) -> None:
        """Name the I/O loop. Call it once, before the first request."""
        self._to_io = Mailbox(io_loop, _call)

    def submit(self, exchange: Exchange) -> None:
        """Have the application answer a request whose body is read."""
        self._to_app.put(lambda: self._start(exchange))

    def cancel(self, exchange: Exchange) -> None:
        """Have the application stop its work on a request that was submitted, as far as it can be stopped."""
        exchange.cancelled = True
        self._to_app.put(lambda: self._cancel(exchange))

    def acknowledge(self, exchange: Exchange, count: int) -> None:
        """Say that `count` bytes of a streamed response have left."""

        def open_window() -> None:
            exchange.acknowledged += count
            if exchange.window is not None and exchange.sent - exchange.acknowledged < _STREAM_WINDOW:
                exchange.window.set()

        self._to_app.put(open_window)

    def ask(self, answer: Callable[[], None]) -> None:
        """Have the application loop call `answer`, once it turns."""
        self._to_app.put(answer)

    def current(self) -> str | None:
        """From any thread: the name of the request whose task holds the application loop right now."""
        task = asyncio.current_task(self._app_loop)
        exchange = self._tasks.get(task) if task is not None else None
        return exchange.name if exchange is not None else None

    # On the application's loop.

    def _start(self, exchange: Exchange) -> None:
        if exchange.cancelled:
            self._end(exchange)
            return
        context = contextvars.copy_context()
        context.run(logs.request_id.set, exchange.scope["state"]["request_id"])
        exchange.task = task = self._app_loop.create_task(self._run(exchange), context=context)
        self._tasks[task] = exchange
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        # Here and not in the task: one that is cancelled before its first step never runs.
        self._end(self._tasks.pop(task))
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                context = {"message": "the application failed", "exception": error, "task": task}
                self._app_loop.call_exception_handler(context)

    def _end(self, exchange: Exchange) -> None:
        if exchange.over:
            return
        failed = not exchange.finished

        def deliver() -> None:
            if failed:
                exchange.failed = True
                exchange.wake()
            exchange.ended()

        self._post(deliver)

    def _finish(self, exchange: Exchange, messages: list[Message]) -> None:
        """Hand over the response's last part, with the news that the application is done if it is by now.

        That comes first: whoever has the answer may send the next request, and must find the room free.
        """
        exchange.over = over = exchange.task is not None and exchange.task.done()

        def deliver() -> None:
            if over:
                exchange.ended()
            exchange.messages.extend(messages)
            exchange.wake()

        self._post(deliver)

    def _cancel(self, exchange: Exchange) -> None:
        if exchange.gone is not None:
            exchange.gone.set()
        if exchange.window is not None:
            exchange.window.set()
        if exchange.task is not None:
            exchange.task.cancel()

    async def _run(self, exchange: Exchange) -> None:
        held: list[Message] = []

        async def receive() -> Message:
            if not exchange.taken:
                exchange.taken = True
                return {"type": "http.request", "body": exchange.body, "more_body": False}
            if not exchange.cancelled:
                exchange.gone = exchange.gone or asyncio.Event()
                await exchange.gone.wait()
            return _DISCONNECT

        async def send(message: Message) -> None:
            if exchange.finished:
                raise RuntimeError(f"{message['type']} was sent after the response's end")
            if message["type"] == "http.response.start":
                held.append(message)  # leaves with the first body, in one hand-over
                return
            messages = [*held, message]
            held.clear()
            if not message.get("more_body"):
                exchange.finished = True
                self._app_loop.call_soon(self._finish, exchange, messages)
                return

            def deliver() -> None:
                exchange.messages.extend(messages)
                exchange.wake()

            self._post(deliver)
            await self._flow(exchange, len(message.get("body", b"")))

        await self._app(exchange.scope, receive, send)

    async def _flow(self, exchange: Exchange, count: int) -> None:
        """Wait while more than a window's bytes are on their way to the client."""
        exchange.sent += count
        while exchange.sent - exchange.acknowledged >= _STREAM_WINDOW and not exchange.cancelled:
            exchange.window = asyncio.Event()
            await exchange.window.wait()

    def _post(self, action: Callable[[], None]) -> None:
        assert self._to_io is not None, "connect() comes before the first request"
        self._to_io.put(action)


def _call(action: Callable[[], None]) -> None:
    action()
