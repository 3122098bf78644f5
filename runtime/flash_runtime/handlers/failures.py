"""Failures: what becomes of an exception that a handler raises, for the client, the log and the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.utils import is_body_allowed_for_status_code
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flash_runtime.handlers.results import FiniteJSONResponse
from flash_runtime.logs import context
from flash_runtime.usercode import gpu_errors as gpu
from flash_runtime.usercode.exits import HandlerExit, escapes
from flash_runtime.usercode.tracebacks import kind_of, text_of, user_traceback

log = logging.getLogger("flash_runtime.failures")


class Failures:
    """Responds to what handlers raise. `device_lost` is called with the reason if the GPU is lost.

    A client gets an `HTTPException` as in FastAPI. Everything else is logged whole, and the client only
    learns that the request failed: 503 if the GPU was out of memory, else 500.
    """

    def __init__(self, device_lost: Callable[[str], None]) -> None:
        self._device_lost = device_lost

    def answer(self, request: str, error: BaseException) -> Response:
        """The response to a `request` (`METHOD /path`) whose handling ended in `error`."""
        error = _raised(error)
        if gpu.classify(error) is None:
            if isinstance(error, HTTPException):
                return _http_exception(error)
            if isinstance(error, RequestValidationError):
                return invalid_request(error)
        if self.note(request, error) is gpu.GpuError.OUT_OF_MEMORY:
            gpu.release_memory(error)
            return _failure(503, "The GPU is out of memory: try again.", {"retry-after": "1"})
        return _failure(500, "Internal Server Error")

    def note(self, request: str, error: BaseException) -> gpu.GpuError | None:
        """Log an error whose text no client gets; returns what it says about the GPU."""
        error = _raised(error)
        trace = user_traceback(error.__traceback__)
        log.error("%s failed: %s", request, kind_of(error), exc_info=(type(error), error, trace))
        fault = gpu.classify(error)
        if fault is gpu.GpuError.LOST:
            self._device_lost(text_of(error))
        return fault


class Guard:
    """Middleware: `failures` responds to what `app` raises, unless a response has begun.

    One that has begun stays unfinished, and the connection closes: nothing else is left to tell the client.
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
        except BaseException as error:
            if not isinstance(error, Exception) and not escapes(error):
                raise
            path = getattr(scope.get("route"), "path", None) or scope.get("path")
            request = f"{scope.get('method')} {path}"
            if started:
                self._failures.note(request, error)
                return
            response = self._failures.answer(request, error)
        else:
            return
        await response(scope, receive, send)


def _raised(error: BaseException) -> BaseException:
    """What the handler raised, if another exception stands in for it."""
    return error.raised if isinstance(error, HandlerExit | gpu.GpuFailure) else error


def _http_exception(error: HTTPException) -> Response:
    headers = dict(error.headers) if error.headers else None
    if not is_body_allowed_for_status_code(error.status_code):
        return Response(status_code=error.status_code, headers=headers)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=headers)


def invalid_request(error: RequestValidationError) -> Response:
    """422 in FastAPI's shape. It repeats the input, so a NaN there must not make the response fail."""
    # Of a body that is not text, the text in it is repeated.
    encoders = {bytes: lambda each: each.decode("utf-8", "replace")}
    detail = jsonable_encoder(error.errors(), custom_encoder=encoders)
    return FiniteJSONResponse({"detail": detail}, status_code=422)


def _failure(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    content = {"detail": detail, "request_id": context.request_id.get()}
    return FiniteJSONResponse(content, status_code=status, headers=headers)
