"""Exits: recognises exceptions of user code that would end more than the request that raised them."""

from __future__ import annotations

import asyncio

from flash_runtime.usercode.tracebacks import kind_of


class HandlerExit(Exception):
    """A handler raised something that ends a process, a loop or a generator: SystemExit, …"""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(f"the handler raised {kind_of(raised)}")
        self.raised = raised


def escapes(error: BaseException) -> bool:
    """Whether a handler's `error` would end more than its own request. `HandlerExit` stands in for it."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return False
    return not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration)


def ends_the_task(error: BaseException) -> bool:
    """Whether a coroutine's `error` is the end of its task, and was not raised by user code."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, GeneratorExit)
