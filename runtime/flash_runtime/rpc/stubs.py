"""Stubs: what stands in the place of functions and classes that a handler awaits.

A function of another resource is imported with its module like any other. In its place stands a stub, which
calls `/execute` of that resource (`RemoteStubs`), or runs the function in a thread if this container serves
that resource too (`LocalStubs`).
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
from flash_runtime.rpc.stub_classes import Arguments, class_stub
from flash_runtime.usercode.tracebacks import text_of

_TRIES = 3
_PAUSE_SECONDS = 0.1
_SPARE_SECONDS = 1.0
"""A call may take this much longer than the request that makes it. So the request ends first."""
_PATH = "/execute"
_ORIGINAL = "__flash_original__"


class PeerError(Exception):
    """A call of another resource failed for a reason other than an exception of the function's own."""


class RemoteTraceback(Exception):
    """The cause of an exception that a function raised elsewhere: the traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f"\n{self._text}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of other resources, and the token to show them."""

    by_name: Mapping[str, str]
    template: str | None
    """For resources without a name above: a URL with `{resource}` in it."""
    token: str | None = field(repr=False)

    def find(self, resource: str) -> str:
        """The base URL. Raises `PeerError`."""
        url = self.by_name.get(resource)
        if url is None and self.template is not None:
            url = self.template.replace("{resource}", quote(resource, safe=""))
        if url is None:
            raise PeerError(
                f"This container does not know the address of the resource `{resource}`. Set FLASH_PEER_URL, "
                "for example to http://{resource}:80, or add the resource to FLASH_PEERS."
            )
        return url


NOWHERE = Addresses({}, None, None)


# Stubs of functions and classes in other containers.


class RemoteStubs:
    """Stubs for the functions and classes that other containers serve, by the resource of each."""

    def __init__(self, addresses: Addresses, elsewhere: Mapping[str, str]) -> None:
        self._calls = _RemoteCalls(addresses)
        self._elsewhere = elsewhere

    def stand_in(self, function_or_class: Any) -> Any:
        """What stands in the place of a decorated function: a stub if another container serves it."""
        name = function_or_class.__name__
        resource = self._elsewhere.get(name)
        if resource is None:
            return function_or_class
        if isinstance(function_or_class, type):
            return class_stub(
                function_or_class,
                functools.partial(_RemoteInstance, self._calls, resource, name),
            )

        @functools.wraps(function_or_class)
        async def stub(*args: Any, **kwargs: Any) -> Any:
            answer = await self._calls.call(resource, {"function": name}, (args, kwargs))
            return answer.result()

        return stub


class _RemoteInstance:
    """An instance in another container."""

    def __init__(self, calls: _RemoteCalls, resource: str, name: str, constructor: Arguments) -> None:
        self._calls = calls
        self._resource = resource
        self._name = name
        self._constructor = constructor
        self._id: str | None = None
        self._making = asyncio.Lock()
        """Held by the call that makes the instance. The others wait for it."""

    async def call(self, method: str, arguments: Arguments) -> Any:
        if self._id is None:
            async with self._making:
                if self._id is None:
                    return await self._call(method, arguments)
        return await self._call(method, arguments)

    async def _call(self, method: str, arguments: Arguments) -> Any:
        header = {
            "class": self._name,
            "method": method,
            "instance_id": self._id,
            "create_new_instance": self._id is None,
        }
        answer = await self._calls.call(self._resource, header, (*arguments, *self._constructor))
        self._id = answer.header.get("instance_id", self._id)
        return answer.result()


class _RemoteCalls:
    """Calls `/execute` of other resources."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._client = Client()

    async def call(self, resource: str, header: dict[str, Any], arguments: tuple[Any, ...]) -> _Answer:
        """The answer of the resource. Raises `PeerError` if there is none that can be read."""
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
            raise PeerError(f"Cannot connect to `{resource}` at {url}: {error}.") from error
        except Broken as error:
            raise PeerError(f"`{name}` of `{resource}`: {error}. The function may have run.") from error
        return _read(f"`{name}` of `{resource}`", response)

    async def _post(self, url: str, headers: list[tuple[bytes, bytes]], parts: Any) -> Response:
        for attempt in range(_TRIES):
            try:
                return await self._client.post(url, _PATH, headers, parts)
            except NotReached:
                # Only then is it certain that the function has not run.
                if attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer to a call; `what` says which call it was."""

    what: str
    header: dict[str, Any]
    value: Any

    def result(self) -> Any:
        """What the function returned. Raises what it raised, or `PeerError` if that cannot be raised here."""
        if self.header.get("success") is True:
            return self.value
        trace = self.header.get("traceback") or ""
        cause = RemoteTraceback(trace) if trace else None
        # Only an `Exception`: SystemExit, for example, was meant for the process there.
        if isinstance(self.value, Exception):
            raise self.value from cause
        raise PeerError(f"{self.what} failed: {self.header.get('error')}") from cause


def _read(what: str, response: Response) -> _Answer:
    if response.headers.get(b"content-type") != envelope.CONTENT_TYPE:
        if response.status == 200:
            raise PeerError(
                f"{what}: the answer is not an envelope. Is a flash-runtime worker at that address?"
            )
        raise PeerError(f"{what} was refused with status {response.status}: {_refusal(response.body)}")
    view = memoryview(response.body)
    header: dict[str, Any] = {}
    try:
        header, start = envelope.unpack_header(view)
        value = envelope.unpack_value(view, header, start)
    except BaseException as error:  # a pickle may raise anything
        if header.get("success") is not False:
            raise PeerError(f"{what}: the answer cannot be read: {text_of(error)}.") from error
        value = None  # the exception's class is not here, or no pickle restores it
    return _Answer(what, header, value)


def _refusal(body: bytearray) -> str:
    try:
        content = orjson.loads(body)
        return str(content.get("detail") or content.get("error"))
    except (ValueError, AttributeError):
        return repr(bytes(body[:200]))


# Stubs of functions and classes in this container.


class LocalStubs:
    """Stubs for functions and classes of queue-based resources that this container serves too.

    They are awaited as if they were elsewhere. `names` has those that the application awaits.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def stand_in(self, function_or_class: Any) -> Any:
        """What stands in the place of a decorated function: something that can be awaited."""
        if function_or_class.__name__ not in self._names:
            return function_or_class
        if not isinstance(function_or_class, type):
            return _awaited(function_or_class)
        stub = class_stub(function_or_class, functools.partial(_LocalInstance, function_or_class))
        setattr(stub, _ORIGINAL, function_or_class)
        return stub


class _LocalInstance:
    """An instance in this process. Its class and its plain methods run in threads."""

    def __init__(self, class_: type, constructor: Arguments) -> None:
        self._class = class_
        self._constructor = constructor
        self._making: asyncio.Future[Any] | None = None

    async def call(self, method: str, arguments: Arguments) -> Any:
        if self._making is None:  # of calls at the same time, the first one makes it
            args, kwargs = self._constructor
            self._making = asyncio.ensure_future(asyncio.to_thread(self._class, *args, **kwargs))
        instance = await asyncio.shield(self._making)
        args, kwargs = arguments
        return await _awaited(getattr(instance, method))(*args, **kwargs)


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def stub(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    setattr(stub, _ORIGINAL, function)
    return stub


def original(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The user's own function or class that a local stub stands for; anything else as it is."""
    found: Callable[..., Any] = getattr(handler, _ORIGINAL, handler)
    return found
