"""The bridge: carries requests from the I/O loop to where they are answered, and the answers back.

A request goes over with its whole body. What answers without FastAPI, such as a compiled route, does so on
the application loop or, for a plain function, in a thread: one hop there and one back. Else, and where that
says so, it goes the application's way: ASGI on the application loop, the response handed back in one piece
where it is whole, chunk by chunk with flow control where it is streamed. Each way is a mailbox: a deque, and
one wake-up of the other loop for all that is in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from starlette.types import ASGIApp, Message, Scope

from flash_runtime.dispatch.responder import Answering, Reply
from flash_runtime.dispatch.threads import Threads
from flash_runtime.logs import context

T = TypeVar("T")
Answer = bytes | Reply

_STREAM_WINDOW = 256 * 1024
"""Bytes of a streamed response that may be on their way; past it, the application's `send` waits."""
_DISCONNECT = {"type": "http.disconnect"}
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""A handler that does not wait for anything is run to its end at once, without another turn of the loop."""


class Mailbox(Generic[T]):
    """Hands items to `deliver` on `loop`, from any thread, waking the loop once for all that wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[T], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._woken = False
        self._to_wake = False

    def put(self, item: T) -> None:
        """From any thread: hand over the item now."""
        self._items.append(item)
        self._wake()

    def put_with_others(self, item: T, sender: asyncio.AbstractEventLoop) -> None:
        """From the `sender`'s loop alone: hand over the item at the end of its turn, with those that follow.

        A loop that wakes the other at once has it compete for the interpreter's lock, item by item.
        """
        self._items.append(item)
        if not self._to_wake:
            self._to_wake = True
            sender.call_soon(self._wake_for_all)

    def _wake_for_all(self) -> None:
        self._to_wake = False
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # Cleared first: an item that is put from now on wakes the loop again.
        self._woken = False
        items = self._items
        try:
            # Not what comes meanwhile: the loop has other work, too.
            for _ in range(len(items)):
                self._deliver(items.popleft())
        finally:
            if items and not self._woken:  # one of them raised
                self._loop.call_soon(self._drain)


class Asked(Protocol):
    """What the bridge is asked: a request, whole."""

    request_id: str

    @property
    def deadline(self) -> float:
        """When its time is over, on the clock of `time.monotonic()`."""

    @property
    def name(self) -> str:
        """Of what it is for, for people."""

    @property
    def body(self) -> bytes | bytearray:
        """The whole body."""

    def scope(self) -> Scope:
        """The request as ASGI has it."""


class Receiver(Protocol):
    """Who is told, on the I/O loop, what comes back."""

    def on_json(self, exchange: Exchange, body: bytes) -> None:
        """The answer: a 200 with this JSON."""

    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        """The answer, whole."""

    def on_message(self, exchange: Exchange, message: Message) -> None:
        """A message of an ASGI response."""

    def on_failure(self, exchange: Exchange) -> None:
        """The application is done and has not finished its response."""

    def on_end(self, exchange: Exchange) -> None:
        """The application is done: maybe long after its response, or after everyone has lost interest."""


class Exchange:
    """One request on its way there and back. Each attribute says who writes it."""

    __slots__ = (
        "acknowledged",
        "answering",
        "asked",
        "cancelled",
        "ended",
        "finished",
        "gone",
        "sent",
        "taken",
        "task",
        "window",
    )

    def __init__(self, asked: Asked, answering: Answering | None) -> None:
        self.asked: Any = asked
        self.answering = answering
        # Written by the I/O loop.
        self.cancelled = False
        # Written by the application loop, or by the thread that has the request.
        self.task: asyncio.Task[Answer | None] | None = None
        self.taken = False
        self.gone: asyncio.Event | None = None
        self.finished = False
        self.ended = False
        self.window: asyncio.Event | None = None
        self.sent = 0
        self.acknowledged = 0


class Bridge:
    """Joins the loops. Construct it on the application's loop, then `connect` it from the I/O loop.

    `app` runs on the application's loop, each request in a task whose context has the request's id, and else
    what the context had in which the bridge was made. Plain functions run in the `threads`.
    """

    def __init__(self, app: ASGIApp, app_loop: asyncio.AbstractEventLoop, threads: Threads) -> None:
        self._app = app
        self._app_loop = app_loop
        self._threads = threads
        self._context = contextvars.copy_context()
        self._to_app: Mailbox[Callable[[], None]] = Mailbox(app_loop, _call)
        self._for_threads: list[Exchange] = []
        self._tasks: dict[asyncio.Task[Any], Exchange] = {}
        self._starting: Exchange | None = None
        """The exchange whose task runs its first steps, and is not among the tasks yet."""

    def connect(self, io_loop: asyncio.AbstractEventLoop, receiver: Receiver) -> None:
        """Name the loop that requests come from, and who is told on it what comes back."""
        self._io_loop = io_loop
        self._receiver = receiver
        self._to_io: Mailbox[Callable[[], None]] = Mailbox(io_loop, _call)

    # On the I/O loop.

    def submit(self, exchange: Exchange) -> None:
        """Have the request answered; the receiver is told what comes of it."""
        answering = exchange.answering
        if answering is not None and answering.in_thread:
            if not self._for_threads:
                self._io_loop.call_soon(self._submit_to_threads)
            self._for_threads.append(exchange)
        else:
            self._to_app.put_with_others(lambda: self._start(exchange, self._answer(exchange)), self._io_loop)

    def _submit_to_threads(self) -> None:
        # At the end of the turn, as the mailbox does.
        exchanges, self._for_threads = self._for_threads, []
        for exchange in exchanges:
            self._threads.submit(self._run_in_thread, exchange)

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for the answer any more. `on_end` is still to come."""
        exchange.cancelled = True
        self._to_app.put(lambda: self._cancel(exchange))

    def acknowledge(self, exchange: Exchange, count: int) -> None:
        """So many bytes of the response have left; a stream may send as many more."""

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
        exchange = self._starting or (self._tasks.get(task) if task is not None else None)
        return exchange.asked.name if exchange is not None else None

    # In a thread.

    def _run_in_thread(self, exchange: Exchange) -> None:
        if exchange.cancelled:
            self._end(exchange, None)
            return
        assert exchange.answering is not None, "else it is the application loop's"
        try:
            outcome = self._context_of(exchange).run(exchange.answering.call, exchange.asked)
        except BaseException:
            self._end(exchange, None)  # whatever it is, the request must not keep its place
            raise
        if isinstance(outcome, bytes | Reply):
            self._end(exchange, outcome)
        else:
            self._to_app.put(lambda: self._start(exchange, self._run(exchange, outcome or self._app)))

    # On the application's loop.

    def _context_of(self, exchange: Exchange) -> contextvars.Context:
        context = self._context.copy()
        context.run(_enter, exchange.asked)
        return context

    def _start(self, exchange: Exchange, work: Coroutine[Any, Any, Answer | None]) -> None:
        if exchange.cancelled:
            work.close()
            self._end(exchange, None)
            return
        self._starting = exchange
        try:
            task = asyncio.Task(work, loop=self._app_loop, context=self._context_of(exchange), **_EAGER)
        except BaseException:
            # What is meant to end the process passes through the first steps of a task that starts eagerly.
            self._end(exchange, None)
            raise
        finally:
            self._starting = None
        if task.done():
            self._on_task_done(task, exchange)
            return
        exchange.task = task
        self._tasks[task] = exchange
        # Here and not in the task: one that is cancelled before its first step never runs.
        task.add_done_callback(self._on_waiting_task_done)

    def _on_waiting_task_done(self, task: asyncio.Task[Answer | None]) -> None:
        self._on_task_done(task, self._tasks.pop(task))

    def _on_task_done(self, task: asyncio.Task[Answer | None], exchange: Exchange) -> None:
        if task.cancelled():
            self._end(exchange, None)
            return
        error = task.exception()
        if error is not None:
            context = {"message": "the application failed", "exception": error, "task": task}
            self._app_loop.call_exception_handler(context)
        self._end(exchange, task.result() if error is None else None)

    async def _answer(self, exchange: Exchange) -> Answer | None:
        """The answer where it is whole; else the response has been sent, and it is `None`."""
        app: ASGIApp | None = None
        if exchange.answering is not None:
            outcome = await exchange.answering.answer(exchange.asked)
            if isinstance(outcome, bytes | Reply):
                return outcome
            app = outcome
        await self._run(exchange, app or self._app)
        return None

    async def _run(self, exchange: Exchange, app: ASGIApp) -> None:
        held: list[Message] = []
        begun = False

        async def receive() -> Message:
            if not exchange.taken:
                exchange.taken = True
                return {"type": "http.request", "body": bytes(exchange.asked.body), "more_body": False}
            if not exchange.cancelled and not exchange.finished:
                exchange.gone = exchange.gone or asyncio.Event()
                await exchange.gone.wait()
            return _DISCONNECT

        async def send(message: Message) -> None:
            nonlocal begun
            if exchange.finished:
                raise RuntimeError(f"{message['type']} was sent after the response's end")
            if message["type"] != ("http.response.body" if begun else "http.response.start"):
                raise RuntimeError(f"{message['type']} was sent out of its order")
            if not begun:
                begun = True
                held.append(message)  # leaves with the first body, in one hand-over
                return
            messages = [*held, message]
            held.clear()
            if not message.get("more_body"):
                exchange.finished = True
                if exchange.gone is not None:
                    exchange.gone.set()
                self._app_loop.call_soon(self._finish, exchange, messages)
                return
            self._to_io.put(lambda: self._deliver(exchange, messages))
            await self._flow(exchange, len(message.get("body", b"")))

        await app(exchange.asked.scope(), receive, send)

    async def _flow(self, exchange: Exchange, count: int) -> None:
        """Wait while more than a window's bytes are on their way to the client."""
        exchange.sent += count
        while exchange.sent - exchange.acknowledged >= _STREAM_WINDOW and not exchange.cancelled:
            exchange.window = asyncio.Event()
            await exchange.window.wait()
        if exchange.cancelled:
            await asyncio.sleep(0)  # the task may be cancelled only where it waits for something

    def _finish(self, exchange: Exchange, messages: list[Message]) -> None:
        """Hand over the response's last part, with the news that the application is done if it is by now.

        That comes first: whoever has the answer may send the next request, and must find the room free.
        """
        over = not exchange.ended and exchange.task is not None and exchange.task.done()
        exchange.ended = exchange.ended or over

        def deliver() -> None:
            if over:
                self._receiver.on_end(exchange)
            self._deliver(exchange, messages)

        self._to_io.put(deliver)

    def _cancel(self, exchange: Exchange) -> None:
        if exchange.gone is not None:
            exchange.gone.set()
        if exchange.window is not None:
            exchange.window.set()
        if exchange.task is not None:
            exchange.task.cancel()

    # From the application's loop or a thread.

    def _end(self, exchange: Exchange, answer: Answer | None) -> None:
        """The application is done; this is its answer, unless that was sent or there is none."""
        if exchange.ended:
            return
        exchange.ended = True
        self._to_io.put(lambda: self._deliver_end(exchange, answer))

    # On the I/O loop.

    def _deliver(self, exchange: Exchange, messages: list[Message]) -> None:
        for message in messages:
            self._receiver.on_message(exchange, message)

    def _deliver_end(self, exchange: Exchange, answer: Answer | None) -> None:
        self._receiver.on_end(exchange)  # first, as in `_finish`
        if isinstance(answer, bytes):
            self._receiver.on_json(exchange, answer)
        elif answer is not None:
            self._receiver.on_reply(exchange, answer)
        elif not exchange.finished:
            self._receiver.on_failure(exchange)


def _enter(asked: Asked) -> None:
    context.request_id.set(asked.request_id)
    context.deadline.set(asked.deadline)


def _call(action: Callable[[], None]) -> None:
    action()
