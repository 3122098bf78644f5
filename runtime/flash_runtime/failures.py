"""Failures: what a client is told of an exception, and what the log and the worker are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from fastapi import HTTPException, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flash_runtime import gpu, logs
from flash_runtime.frames import user_traceback
from flash_runtime.responses import FiniteJSONResponse, HandlerExit

log = logging.getLogger("flash_runtime.failures")

_STANDING_IN = (HandlerExit, gpu.GpuFailure)


class Failures:
    """Answers what handlers raise. `device_lost` is told why where the GPU can no longer be used.

    An `HTTPException` is the client's to read, as FastAPI has it. Anything else is logged whole, and the
    client only told that the request failed: 503 where the GPU was out of memory, else 500.
    """

    def __init__(self, device_lost: Callable[[str], None]) -> None:
        self._device_lost = device_lost

    async def answer(self, scope: Scope, error: BaseException) -> Response:
        """The response to a request whose handling ended in `error`."""
        if isinstance(error, _STANDING_IN):
            error = error.raised
        fault = gpu.classify(error)
        if fault is None and isinstance(error, StarletteHTTPException):
            return await http_exception_handler(Request(scope), cast(HTTPException, error))
        if fault is None and isinstance(error, RequestValidationError):
            return invalid_request(error)
        _log(scope, error)
        if fault is gpu.GpuFault.LOST:
            self._device_lost(f"{type(error).__name__}: {error}")
        if fault is gpu.GpuFault.OUT_OF_MEMORY:
            gpu.release_memory(error)
            return _failure(503, "The GPU is out of memory: try again.", {"retry-after": "1"})
        return _failure(500, "Internal Server Error")


class Guard:
    """Middleware: has the failures answer what `app` raises, where its response has not begun.

    Else the response stays unfinished, which closes the connection: all that is left to say.
    """

    def __init__(self, app: ASGIApp, failures: Failures) -> None:
        self._app = app
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  user code may raise anything
            response = await self._failures.answer(scope, error)
            if not started:
                await response(scope, receive, send)


def invalid_request(error: RequestValidationError) -> Response:
    """422 in FastAPI's shape; a NaN in the request, which it repeats, must not fail the answer."""
    # A body that is no text is repeated as far as it is.
    encoders = {bytes: lambda each: each.decode("utf-8", "replace")}
    detail = jsonable_encoder(error.errors(), custom_encoder=encoders)
    return FiniteJSONResponse({"detail": detail}, status_code=422)


def _failure(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    content = {"detail": detail, "request_id": logs.request_id.get()}
    return FiniteJSONResponse(content, status_code=status, headers=headers)


def _log(scope: Scope, error: BaseException) -> None:
    log.error(
        "%s %s failed: %s",
        scope.get("method"),
        getattr(scope.get("route"), "path", None) or scope.get("path"),
        type(error).__name__,
        exc_info=(type(error), error, user_traceback(error.__traceback__)),
    )
