"""Both ways to an answer: the compiled route, and the whole FastAPI application, over one real bridge."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.types import Message

from flash_runtime.artifact.selection import Route
from flash_runtime.dispatch.bridge import Bridge
from flash_runtime.dispatch.exchange import Exchange
from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply
from flash_runtime.dispatch.threads import Threads
from flash_runtime.gateway.routing import RouteTable
from flash_runtime.handlers import fastapi_app as application
from flash_runtime.handlers import signature as binding
from flash_runtime.handlers.fastapi_app import Application
from flash_runtime.http.head import Head

_SECONDS = 60


@dataclass
class Request:
    """A request of a client."""

    method: str
    raw_path: bytes
    query_string: bytes = b""
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    request_id: str = "the-id"

    @property
    def path(self) -> str:
        return unquote(self.raw_path.decode("ascii"))

    def dispatched(self, path_values: dict[str, Any]) -> DispatchedRequest:
        """The request as it crosses the bridge."""
        head = Head(self.method, b"/", [(b"host", b"test"), *self.headers], "1.1", keep_alive=True)
        # Past the parser, which refuses some bytes: what is compared is behind it.
        head.path, head.raw_path, head.query_string = self.path, self.raw_path, self.query_string
        return DispatchedRequest(
            self.path,
            self.request_id,
            time.monotonic() + 60,
            head,
            path_values,
            self.body,
            ("127.0.0.1", 80),
            ("127.0.0.1", 1),
        )


@dataclass(frozen=True)
class Answer:
    """What the client gets, and what else came of the request. Equal are those that nobody can tell apart."""

    status: int
    """0 where the response was not finished, or not begun: `headers` tells which."""
    headers: tuple[tuple[bytes, bytes], ...]
    content: Any
    """The body; where it is JSON, its value as `exactly` has it."""
    calls: tuple[str, ...]
    """The arguments of each time that the handler ran, and what else it noted."""
    logged: tuple[str, ...]
    """What the log says: the exceptions, without their tracebacks."""
    body: bytes = field(compare=False)
    """As it was sent."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def exactly(value: Any) -> Any:
    """The JSON value with its types: 1 is not 1.0 and not true; the order of keys does not matter."""
    if isinstance(value, dict):
        return {key: exactly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [exactly(each) for each in value]
    return f"{type(value).__name__} {value!r}"


class Ways:
    """An application on an application loop and an I/O loop of its own, until the block ends.

    Handlers note what they are called with. Each is there twice: as a coroutine function under `/async`, and
    as a plain one under `/sync`.
    """

    def __init__(self) -> None:
        self._bound: list[tuple[Route, binding.Handler]] = []
        self._calls: list[str] = []
        self._logged: list[str] = []
        self.threads = Threads(4)

    def note(self, what: str) -> None:
        """Note something that a handler has done."""
        self._calls.append(what)

    def add(self, method: str, path: str, handler: Callable[..., Any]) -> None:
        """Mount the plain function twice."""

        @functools.wraps(handler)
        def plain(*arguments: Any, **values: Any) -> Any:
            self._calls.append(_described(arguments, values))
            return handler(*arguments, **values)

        @functools.wraps(handler)
        async def coroutine(*arguments: Any, **values: Any) -> Any:
            self._calls.append(_described(arguments, values))
            return handler(*arguments, **values)

        # Without defaults of their own the copies would take the handler's as `__wrapped__` has them.
        for kind, made in (("sync", plain), ("async", coroutine)):
            made.__signature__ = inspect.signature(handler, eval_str=True)  # type: ignore[attr-defined]
            self._bound.append((Route("api", method, f"/{kind}{path}", "main", handler.__name__), made))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve, until the block ends."""
        self.app: Application = application.build(self._bound, title="test", threads=self.threads)
        self.table = RouteTable(self.app.targets, 60, self.app.documents)
        self._io = asyncio.new_event_loop()
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: self._logged.append(_told(context)))
        handler = _Records(self._logged)
        log = logging.getLogger("flash_runtime.failures")
        log.addHandler(handler)
        log.propagate = False
        self._bridge = Bridge(self.app.asgi, loop, self._io, self.threads)
        ended = threading.Event()
        running = [threading.Thread(target=_run, args=(each, ended)) for each in (loop, self._io)]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.propagate = True
            ended.set()
            for each, thread in zip((loop, self._io), running, strict=True):
                each.call_soon_threadsafe(each.stop)
                thread.join(_SECONDS)
                each.close()

    def why_not(self) -> dict[str, str | None]:
        """Of each route, why it is not compiled."""
        return {each.path: each.why_not_compiled for each in self.app.targets}

    def ask(self, request: Request, *, compiled: bool) -> Answer:
        """The answer of the compiled route, or of FastAPI."""
        target, path_values = self.table.find(request.method, request.path)
        self._exchange = exchange = Exchange(
            request.dispatched(path_values), target.responder if compiled else None, self
        )
        self._calls.clear()
        self._logged.clear()
        self._messages: list[Message] = []
        self._over = threading.Event()
        self._answered = threading.Event()
        self._io.call_soon_threadsafe(self._bridge.submit, exchange)
        assert self._over.wait(_SECONDS), f"{request} ends"
        assert self._answered.wait(_SECONDS), f"{request} is answered"
        return self._answer()

    def _answer(self) -> Answer:
        status, headers, body, over = 0, [], b"", False
        for message in self._messages:
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", []))
            else:
                body += message.get("body", b"")
                over = not message.get("more_body", False)
        # A cookie that is deleted expires now, and now may be another second.
        date = rb"expires=[^;]+ GMT"
        headers = [(name, re.sub(date, b"expires=DATE GMT", value)) for name, value in headers]
        names = [name for name, _ in headers]
        assert names == [name.lower() for name in names]
        content: Any = body
        if dict(headers).get(b"content-type") == b"application/json" and over:
            with contextlib.suppress(RecursionError):
                content = exactly(json.loads(body.decode()))
            length = [(b"content-length", b"%d" % len(body))]
            assert [each for each in headers if each[0] == b"content-length"] == length
            # How many bytes the same value takes is not the client's to mind.
            headers = [each for each in headers if each[0] != b"content-length"]
        return Answer(
            status if over else 0,
            tuple(sorted(headers)),
            content,
            tuple(self._calls),
            tuple(self._logged),
            body,
        )

    # What the bridge tells, on the I/O loop.

    def on_json(self, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        self._messages.append({"type": "http.response.start", "status": 200, "headers": headers})
        self._messages.append({"type": "http.response.body", "body": body})
        self._answered.set()

    def on_reply(self, reply: Reply) -> None:
        raise NotImplementedError("no compiled route answers so")

    def on_message(self, message: Message) -> None:
        self._messages.append(message)
        if message["type"] == "http.response.body":
            if not message.get("more_body"):
                self._answered.set()
            self._bridge.acknowledge(self._exchange, len(message.get("body", b"")))

    def on_failure(self) -> None:
        if not self._messages:  # the gate answers
            content = {"detail": "Internal Server Error", "request_id": self._exchange.request.request_id}
            body = json.dumps(content).encode()
            self.on_json(body)
            self._messages[0]["status"] = 500
        self._answered.set()

    def on_end(self) -> None:
        self._over.set()


class _Records(logging.Handler):
    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        assert record.exc_info is not None
        self._told.append(f"{record.getMessage()}: {type(record.exc_info[1]).__name__}")


def _run(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    """As the worker does."""
    while not ended.is_set():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue


def _told(context: dict[str, Any]) -> str:
    return f"{context['message']}: {context.get('exception')!r}"


def _described(arguments: tuple[Any, ...], values: dict[str, Any]) -> str:
    return repr((arguments, sorted(values.items())))
