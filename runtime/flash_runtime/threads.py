"""Threads: where handlers that are plain functions run, as many at once as there is room for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flash_runtime.responses import HandlerExit, escapes

T = TypeVar("T")


class Threads:
    """At most `count` threads, started when they are needed."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="flash-handler")

    async def run(self, function: Callable[..., T], *arguments: Any, **values: Any) -> T:
        """The function's result, from a thread that has the caller's context.

        A function cannot be cancelled: where the caller is, it waits until the function has ended, so that
        its place is not given away before. Raises what the function raises, or `HandlerExit` for what would
        end more than the request.
        """
        context = contextvars.copy_context()

        def call() -> T:
            try:
                return context.run(function, *arguments, **values)
            except BaseException as error:
                if escapes(error):
                    raise HandlerExit(error) from error
                raise

        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # more than once, too
            future.exception()  # nobody is left to hear it
            raise
