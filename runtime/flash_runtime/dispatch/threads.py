"""Handler threads: where plain functions run."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from flash_runtime.usercode.exits import HandlerExit, escapes

log = logging.getLogger("flash_runtime.threads")

T = TypeVar("T")


class Threads:
    """At most `limit` threads, started when they are needed and kept from then on."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._unfinished = 0

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        """Have a thread call `job`, which must not raise."""
        with self._lock:
            self._unfinished += 1
            is_short = self._started < min(self._unfinished, self._limit)
            self._started += is_short
        self._jobs.put((job, arguments))
        if is_short:
            self._start_thread()

    def _start_thread(self) -> None:
        name = f"flash-handler-{self._started}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # the system has no more: the job waits for a thread that exists
            with self._lock:
                self._started -= 1
            log.exception("no thread could be started; there are %d", self._started)

    def _work(self) -> None:
        while True:
            job, arguments = self._jobs.get()
            try:
                job(*arguments)
            except BaseException:
                log.critical("a handler thread's job raised", exc_info=True)
            del job, arguments  # they may hold a request's whole body
            with self._lock:
                self._unfinished -= 1

    async def run(self, function: Callable[..., T], /, *arguments: Any, **values: Any) -> T:
        """Run the function in a thread that has the caller's context; returns its result.

        A function cannot be cancelled. A caller that is cancelled waits until the function has ended, so that
        its place is not given away before.

        Raises:
            HandlerExit: the function raised something that would end more than the request.
            BaseException: anything else that the function raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def call() -> None:
            try:
                result = context.run(function, *arguments, **values)
            except BaseException as error:  # noqa: BLE001  it is the caller's
                raised = HandlerExit(error) if escapes(error) else error
                raised.__cause__ = error if raised is not error else error.__cause__
                loop.call_soon_threadsafe(future.set_exception, raised)
            else:
                loop.call_soon_threadsafe(future.set_result, result)

        self.submit(call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # cancelled once more
            future.exception()  # nobody waits for it any more
            raise
