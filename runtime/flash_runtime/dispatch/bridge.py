"""The bridge: carries requests from the I/O loop to the application, and responses back.

A request crosses with its whole body. A responder, such as a compiled route, answers on the application loop
or (a plain function) in a handler thread: one hop there and one back. Everything else, and what a responder
leaves to it, runs as ASGI on the application loop: a whole response comes back in one piece, a stream chunk
by chunk with flow control. Each direction is a mailbox.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import ASGIApp, Message

from flash_runtime.dispatch.exchange import Exchange
from flash_runtime.dispatch.mailbox import Mailbox
from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply, WholeResponse
from flash_runtime.dispatch.threads import Threads
from flash_runtime.logs import context

_DISCONNECT = {"type": "http.disconnect"}
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""A handler that does not wait for anything then runs to its end at once, without another turn of the
loop."""


class Bridge:
    """Joins the two loops. Make it in the application loop's thread, before the I/O loop runs.

    `app` runs on the application loop, each request in a task of its own. The task's context has the
    request's id and deadline, and otherwise what the context had in which the bridge was made. Plain
    functions run in `threads`.
    """

    def __init__(
        self,
        app: ASGIApp,
        app_loop: asyncio.AbstractEventLoop,
        io_loop: asyncio.AbstractEventLoop,
        threads: Threads,
    ) -> None:
        self._app = app
        self._app_loop = app_loop
        self._io_loop = io_loop
        self._threads = threads
        self._context = contextvars.copy_context()
        self._to_app: Mailbox[Callable[[], None]] = Mailbox(app_loop, _call)
        self._to_io: Mailbox[Callable[[], None]] = Mailbox(io_loop, _call)
        self._for_threads: list[Exchange] = []
        self._tasks: dict[asyncio.Task[Any], Exchange] = {}
        self._starting: Exchange | None = None
        """The exchange whose task runs its first steps, and is not among the tasks yet."""

    # On the I/O loop.

    def submit(self, exchange: Exchange) -> None:
        """Have the request answered; the exchange's receiver gets the response."""
        responder = exchange.responder
        if responder is not None and responder.in_thread:
            if not self._for_threads:
                self._io_loop.call_soon(self._submit_to_threads)
            self._for_threads.append(exchange)
        else:
            self._to_app.put_with_others(
                lambda: self._start(exchange, self._respond(exchange)), self._io_loop
            )

    def _submit_to_threads(self) -> None:
        # At the end of the loop's turn, as the mailbox does.
        exchanges, self._for_threads = self._for_threads, []
        for exchange in exchanges:
            self._threads.submit(self._run_in_thread, exchange)

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for the response any more. The receiver's `on_end` is still to come."""
        exchange.cancel()
        self._to_app.put(exchange.interrupt)

    def acknowledge(self, exchange: Exchange, count: int) -> None:
        """The client took `count` bytes of the response: a stream may send as many more."""
        self._to_app.put(lambda: exchange.acknowledge(count))

    def call_on_app_loop(self, action: Callable[[], None]) -> None:
        """Have the application loop call `action`, as soon as it turns."""
        self._to_app.put(action)

    def current(self) -> str | None:
        """From any thread: the name of the request whose task holds the application loop right now."""
        task = asyncio.current_task(self._app_loop)
        exchange = self._starting or (self._tasks.get(task) if task is not None else None)
        return exchange.request.name if exchange is not None else None

    # In a handler thread.

    def _run_in_thread(self, exchange: Exchange) -> None:
        if exchange.cancelled:
            self._end(exchange, None)
            return
        assert exchange.responder is not None, "otherwise it runs on the application loop"
        respond = exchange.responder.respond_in_thread
        try:
            result = self._context_of(exchange).run(respond, exchange.request)
        except BaseException:
            self._end(exchange, None)  # whatever it is, the request must not keep its place
            raise
        if isinstance(result, bytes | Reply):
            self._end(exchange, result)
        else:
            self._to_app.put(lambda: self._start(exchange, self._run(exchange, result or self._app)))

    # On the application loop.

    def _context_of(self, exchange: Exchange) -> contextvars.Context:
        context = self._context.copy()
        context.run(_enter, exchange.request)
        return context

    def _start(self, exchange: Exchange, work: Coroutine[Any, Any, WholeResponse | None]) -> None:
        if exchange.cancelled:
            work.close()
            self._end(exchange, None)
            return
        self._starting = exchange
        try:
            task = asyncio.Task(work, loop=self._app_loop, context=self._context_of(exchange), **_EAGER)
        except BaseException:
            # SystemExit and its like pass through the first steps of a task that starts eagerly.
            self._end(exchange, None)
            raise
        finally:
            self._starting = None
        if task.done():
            self._on_task_done(task, exchange)
            return
        exchange.run_in(task)
        self._tasks[task] = exchange
        # Here and not in the task: one that is cancelled before its first step never runs.
        task.add_done_callback(self._on_waiting_task_done)

    def _on_waiting_task_done(self, task: asyncio.Task[WholeResponse | None]) -> None:
        self._on_task_done(task, self._tasks.pop(task))

    def _on_task_done(self, task: asyncio.Task[WholeResponse | None], exchange: Exchange) -> None:
        if task.cancelled():
            self._end(exchange, None)
            return
        error = task.exception()
        if error is not None:
            details = {"message": "the application failed", "exception": error, "task": task}
            self._app_loop.call_exception_handler(details)
        self._end(exchange, task.result() if error is None else None)

    async def _respond(self, exchange: Exchange) -> WholeResponse | None:
        """The response if it is whole; `None` if it was sent as ASGI messages."""
        app: ASGIApp | None = None
        if exchange.responder is not None:
            result = await exchange.responder.respond(exchange.request)
            if isinstance(result, bytes | Reply):
                return result
            app = result
        await self._run(exchange, app or self._app)
        return None

    async def _run(self, exchange: Exchange, app: ASGIApp) -> None:
        held: list[Message] = []
        begun = False

        async def receive() -> Message:
            body = exchange.take_body()
            if body is not None:
                return {"type": "http.request", "body": body, "more_body": False}
            await exchange.wait_for_disconnect()
            return _DISCONNECT

        async def send(message: Message) -> None:
            nonlocal begun
            if exchange.finished:
                raise RuntimeError(f"{message['type']} was sent after the response's end")
            if message["type"] != ("http.response.body" if begun else "http.response.start"):
                raise RuntimeError(f"{message['type']} was sent out of its order")
            if not begun:
                begun = True
                held.append(message)  # crosses with the first part of the body
                return
            messages = [*held, message]
            held.clear()
            if not message.get("more_body"):
                exchange.finish()
                self._app_loop.call_soon(self._finish, exchange, messages)
                return
            self._to_io.put(lambda: _deliver(exchange, messages))
            await exchange.wait_for_client(len(message.get("body", b"")))

        await app(exchange.request.scope(), receive, send)

    def _finish(self, exchange: Exchange, messages: list[Message]) -> None:
        """Hand over the response's last part, and that the application is done if it is by now.

        The end comes first: a client that has its response may send the next request, which must find room.
        """
        over = exchange.end_if_done()

        def deliver() -> None:
            if over:
                exchange.receiver.on_end()
            _deliver(exchange, messages)

        self._to_io.put(deliver)

    # From the application loop or a handler thread.

    def _end(self, exchange: Exchange, response: WholeResponse | None) -> None:
        """The application is done. `response` is `None` if there is none, or if it was sent already."""
        if exchange.end():
            self._to_io.put(lambda: _deliver_end(exchange, response))


# On the I/O loop.


def _deliver(exchange: Exchange, messages: list[Message]) -> None:
    for message in messages:
        exchange.receiver.on_message(message)


def _deliver_end(exchange: Exchange, response: WholeResponse | None) -> None:
    receiver = exchange.receiver
    receiver.on_end()  # first, as in `Bridge._finish`
    if isinstance(response, bytes):
        receiver.on_json(response)
    elif response is not None:
        receiver.on_reply(response)
    elif not exchange.finished:
        receiver.on_failure()


def _enter(request: DispatchedRequest) -> None:
    context.request_id.set(request.request_id)
    context.deadline.set(request.deadline)


def _call(action: Callable[[], None]) -> None:
    action()
