"""Together: resources that one process serves, and whose functions await each other as between containers.

A plain function of another resource is awaited, since a worker has a stub in its place. Where one process
serves all resources, for development, it must be awaited too.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

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
            return _class_stub(function_or_class)
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


def _class_stub(class_: type) -> Any:
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
