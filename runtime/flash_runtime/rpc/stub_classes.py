"""Stubs of classes: each stands for an instance that the first call of a method makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named ones."""


class InstanceCaller(Protocol):
    """Calls the methods of one instance, wherever that is."""

    async def call(self, method: str, arguments: Arguments) -> Any:
        """Call the method. The first call makes the instance; calls at the same time wait for it."""


def class_stub(original: type, caller: Callable[[Arguments], InstanceCaller]) -> type:
    """A class whose objects stand for instances of `original`. Their methods are awaited.

    `caller` is given the constructor's arguments and returns what calls that instance's methods.
    """

    class Stub:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._caller = caller((args, kwargs))

        def __getattr__(self, method: str) -> Callable[..., Any]:
            if method.startswith("_"):
                raise AttributeError(
                    f"`{method}` of `{original.__name__}` cannot be reached: the instance may be in another "
                    "process, where only its public methods can be called."
                )

            async def call(*args: Any, **kwargs: Any) -> Any:
                return await self._caller.call(method, (args, kwargs))

            return call

        async def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return await self._caller.call("__call__", (args, kwargs))

    Stub.__name__ = Stub.__qualname__ = original.__name__
    Stub.__doc__ = original.__doc__
    return Stub
