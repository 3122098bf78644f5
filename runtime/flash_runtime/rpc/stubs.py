"""Peers: what a handler calls that another resource has, in another container.

A function of another resource is imported with its module like any other; in its place stands a stub, which
calls `/execute` of that resource.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from flash_runtime.logs import context
from flash_runtime.rpc import envelope
from flash_runtime.rpc.client import Broken, Client, NotReached, Response
from flash_runtime.usercode.tracebacks import text_of

_TRIES = 3
_PAUSE_SECONDS = 0.1
_SPARE_SECONDS = 1.0
"""A call may take so much longer than the request that makes it, which ends first, and the call with it."""
_PATH = "/execute"


class PeerError(Exception):
    """A call of another resource has failed, and not by an exception of the function's own."""


class RemoteTraceback(Exception):
    """The cause of an exception that a function raised elsewhere: the traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f"\n{self._text}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where peers are: by name, or by a template with `{resource}` in it; and the token to show them."""

    by_name: Mapping[str, str]
    template: str | None
    token: str | None = field(repr=False)

    def find(self, resource: str) -> str:
        """The base URL. Raises `PeerError`."""
        url = self.by_name.get(resource)
        if url is None and self.template is not None:
            url = self.template.replace("{resource}", quote(resource, safe=""))
        if url is None:
            raise PeerError(
                f"This container does not know where the resource `{resource}` is. Fix: set FLASH_PEER_URL, "
                "such as http://{resource}:80, or name it in FLASH_PEERS."
            )
        return url


NOWHERE = Addresses({}, None, None)


class Peers:
    """The application's functions that are elsewhere, each with its resource."""

    def __init__(self, addresses: Addresses, elsewhere: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._elsewhere = elsewhere
        self._client = Client()

    def stand_in(self, function_or_class: Any) -> Any:
        """What is to stand in the place of a decorated function: a stub where it is elsewhere."""
        name = function_or_class.__name__
        resource = self._elsewhere.get(name)
        if resource is None:
            return function_or_class
        if isinstance(function_or_class, type):
            return self._class_stub(resource, function_or_class)

        @functools.wraps(function_or_class)
        async def stub(*args: Any, **kwargs: Any) -> Any:
            answered = await self._call(resource, {"function": name}, (args, kwargs))
            return answered.result()

        return stub

    def _class_stub(self, resource: str, original: type) -> Callable[..., Any]:
        peers = self

        class Stub:
            """Stands for an instance elsewhere, which is made at the first call of a method."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self._arguments = args, kwargs
                self._instance_id: str | None = None
                self._making = asyncio.Lock()
                """Held by the call that makes the instance, for which the others wait."""

            def __getattr__(self, method: str) -> Callable[..., Any]:
                if method.startswith("_"):
                    raise AttributeError(f"{original.__name__} is elsewhere: {method!r} cannot be reached")

                async def call(*args: Any, **kwargs: Any) -> Any:
                    return await self._call(method, args, kwargs)

                return call

            async def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return await self._call("__call__", args, kwargs)

            async def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                if self._instance_id is None:
                    async with self._making:
                        if self._instance_id is None:
                            return await self._ask(method, args, kwargs)
                return await self._ask(method, args, kwargs)

            async def _ask(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                header = {
                    "class": original.__name__,
                    "method": method,
                    "instance_id": self._instance_id,
                    "create_new_instance": self._instance_id is None,
                }
                answered = await peers._call(resource, header, (args, kwargs, *self._arguments))
                self._instance_id = answered.header.get("instance_id", self._instance_id)
                return answered.result()

        Stub.__name__ = Stub.__qualname__ = original.__name__
        Stub.__doc__ = original.__doc__
        return Stub

    async def _call(self, resource: str, header: dict[str, Any], arguments: tuple[Any, ...]) -> _Answered:
        """What came back. Raises `PeerError` where nothing that can be read did."""
        url = self._addresses.find(resource)
        name = header.get("function") or f"{header['class']}.{header['method']}"
        left = context.seconds_left() + _SPARE_SECONDS
        parts = envelope.pack(header, arguments)
        headers = [
            (b"content-type", envelope.CONTENT_TYPE),
            (b"authorization", b"Bearer " + (self._addresses.token or "").encode()),
            (b"x-request-id", (context.request_id.get() or "").encode()),
            (b"x-flash-timeout", b"%.3f" % left),
        ]
        try:
            async with asyncio.timeout(left):
                response = await self._post(url, headers, parts)
        except TimeoutError:
            raise PeerError(f"`{name}` of `{resource}` did not answer within {left:.1f} seconds.") from None
        except NotReached as error:
            raise PeerError(f"`{resource}` cannot be reached at {url}: {error}.") from error
        except Broken as error:
            raise PeerError(f"`{name}` of `{resource}`: {error}. It may have been run.") from error
        return _read(f"`{name}` of `{resource}`", response)

    async def _post(self, url: str, headers: list[tuple[bytes, bytes]], parts: Any) -> Response:
        for attempt in range(_TRIES):
            try:
                return await self._client.post(url, _PATH, headers, parts)
            except NotReached:
                # Only then is it sure that the call was not made.
                if attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class _Answered:
    """What a call came to; `what` says which call it was."""

    what: str
    header: dict[str, Any]
    value: Any

    def result(self) -> Any:
        """What the function returned. Raises what it raised, or `PeerError` where that cannot be had here."""
        if self.header.get("success") is True:
            return self.value
        trace = self.header.get("traceback") or ""
        cause = RemoteTraceback(trace) if trace else None
        # One that would end the process, or a task, was meant for those of there.
        if isinstance(self.value, Exception):
            raise self.value from cause
        raise PeerError(f"{self.what} has failed: {self.header.get('error')}") from cause


def _read(what: str, response: Response) -> _Answered:
    if response.headers.get(b"content-type") != envelope.CONTENT_TYPE:
        if response.status == 200:
            raise PeerError(f"{what}: its answer is no envelope; is that a worker of this kind?")
        raise PeerError(f"{what} was refused with {response.status}: {_refusal(response.body)}")
    view = memoryview(response.body)
    header: dict[str, Any] = {}
    try:
        header, start = envelope.unpack_header(view)
        value = envelope.unpack_value(view, header, start)
    except BaseException as error:  # a pickle may raise anything
        if header.get("success") is not False:
            raise PeerError(f"{what}: its answer cannot be read: {text_of(error)}.") from error
        value = None  # its exception is of a class that is not here, or no pickle restores
    return _Answered(what, header, value)


def _refusal(body: bytearray) -> str:
    try:
        told = orjson.loads(body)
        return str(told.get("detail") or told.get("error"))
    except (ValueError, AttributeError):
        return repr(bytes(body[:200]))


_ORIGINAL = "__flash_original__"


class Together:
    """The names of the functions and classes that are awaited: those of queue-based resources."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def stand_in(self, function_or_class: Any) -> Any:
        """What is to stand in the place of a decorated function: what can be awaited."""
        if function_or_class.__name__ not in self._names:
            return function_or_class
        if isinstance(function_or_class, type):
            return _local_class_stub(function_or_class)
        return _awaited(function_or_class)


def original(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The user's own function or class that a stub stands for; any other as it is."""
    found: Callable[..., Any] = getattr(handler, _ORIGINAL, handler)
    return found


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def stub(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    setattr(stub, _ORIGINAL, function)
    return stub


def _local_class_stub(class_: type) -> Any:
    class Stub:
        """Stands for an instance, which is made at the first call of a method."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._arguments = args, kwargs
            self._making: asyncio.Future[Any] | None = None

        def __getattr__(self, method: str) -> Callable[..., Any]:
            if method.startswith("_"):
                raise AttributeError(f"{class_.__name__} may be elsewhere: {method!r} cannot be reached")
            return self._method(method)

        async def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return await self._method("__call__")(*args, **kwargs)

        def _method(self, name: str) -> Callable[..., Any]:
            async def call(*args: Any, **kwargs: Any) -> Any:
                if self._making is None:  # of calls at the same time, the first one makes it
                    positional, named = self._arguments
                    self._making = asyncio.ensure_future(asyncio.to_thread(class_, *positional, **named))
                instance = await asyncio.shield(self._making)
                return await _awaited(getattr(instance, name))(*args, **kwargs)

            return call

    Stub.__name__ = Stub.__qualname__ = class_.__name__
    Stub.__doc__ = class_.__doc__
    setattr(Stub, _ORIGINAL, class_)
    return Stub
