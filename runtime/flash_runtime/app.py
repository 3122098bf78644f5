"""The application: a FastAPI app with the handlers as its routes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flash_runtime import binding, gpu, importer, logs
from flash_runtime.admission import Kind
from flash_runtime.binding import Handler
from flash_runtime.errors import ManifestFault, UserCodeFault
from flash_runtime.frames import user_traceback
from flash_runtime.manifest import Route
from flash_runtime.package import Package
from flash_runtime.responses import MEDIA_TYPES, FiniteJSONResponse, HandlerExit
from flash_runtime.threads import Threads

log = logging.getLogger("flash_runtime.app")


@dataclass(frozen=True, slots=True)
class Application:
    """The handlers behind their routes: an ASGI application, and how each of them is worked on."""

    asgi: FastAPI
    kinds: tuple[tuple[Route, Kind], ...]

    @property
    def documents(self) -> tuple[str, ...]:
        """The paths of the API document and of the pages that show it."""
        app = self.asgi
        paths = (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
        return tuple(path for path in paths if path is not None)


def load(
    package: Package,
    sdk: Literal["image", "artifact"],
    threads: Threads,
    device_lost: Callable[[str], None] = lambda why: None,
) -> Application:
    """Import the package's handlers, in this process and for good, and build their application.

    Plain functions run in the `threads`. `device_lost` is called with the reason when no further request of
    this process can use the GPU. Raises `UserCodeFault` and `ManifestFault` as `importer.enter`,
    `importer.load` and `build` do.
    """
    importer.enter(package.app_dir, sdk)
    bound = [(route, importer.load(route.module, route.function)) for route in package.routes]
    kinds = tuple((route, binding.kind(handler)) for route, handler in bound)
    asgi = build(bound, title=package.title, threads=threads, device_lost=device_lost)
    return Application(asgi, kinds)


def build(
    bound: Iterable[tuple[Route, Handler]],
    *,
    title: str,
    threads: Threads,
    device_lost: Callable[[str], None] = lambda why: None,
) -> FastAPI:
    """The application of these handlers, each on its route, in the order given.

    `/docs`, `/redoc` and `/openapi.json` are FastAPI's, unless a handler takes one of them. Raises
    `ManifestFault` naming every route whose path has parameters that the handler does not take, and
    `UserCodeFault` for a handler whose signature cannot be served.
    """
    pairs = list(bound)
    _refuse_untaken(pairs)
    taken = {route.path for route, _ in pairs}
    app = FastAPI(
        title=title,
        openapi_url=None if "/openapi.json" in taken else "/openapi.json",
        docs_url=None if "/docs" in taken else "/docs",
        redoc_url=None if "/redoc" in taken else "/redoc",
        default_response_class=FiniteJSONResponse,
        exception_handlers={RequestValidationError: _on_invalid_request},
    )
    app.add_middleware(_Failures, device_lost=device_lost)
    for route, handler in pairs:
        _mount(app, route, handler, threads)
    return app


def _refuse_untaken(pairs: list[tuple[Route, Handler]]) -> None:
    problems = [
        f"{route}: `{route.module}.{route.function}` does not take {', '.join(missing)}"
        f" ({binding.place(handler)})"
        for route, handler in pairs
        if (missing := binding.untaken(route, handler))
    ]
    if problems:
        raise ManifestFault(
            "Paths have parameters that their handlers do not take.",
            where="the routes of the manifest",
            remedy="give each handler a parameter for every name in braces, and build again.",
            problems=tuple(problems),
        )


def _mount(app: FastAPI, route: Route, handler: Handler, threads: Threads) -> None:
    bound = binding.bind(route, handler, threads)
    try:
        app.add_api_route(
            route.path,
            bound.endpoint,
            methods=[route.method],
            name=route.function,
            operation_id=f"{route.resource}_{route.function}_{route.method}".lower().replace("-", "_"),
            response_class=StreamingResponse if bound.streams else FiniteJSONResponse,
            responses=_documented(bound),
        )
    except Exception as error:
        # FastAPI reads the handler's types here, and says what it cannot read in many kinds of exception.
        raise UserCodeFault(
            f"`{route.module}.{route.function}` cannot be the handler of {route}: "
            f"{binding.unreadable(handler) or error}",
            where=binding.place(handler),
            remedy="annotate with types that a request can carry: numbers, str, list, dict, dataclasses, "
            "pydantic models.",
        ) from error


def _documented(bound: binding.Binding) -> dict[int | str, dict[str, Any]] | None:
    """What the API document says of a 200 besides what FastAPI reads off the signature."""
    if bound.streams:
        return {200: {"content": {media_type: {} for media_type in MEDIA_TYPES}}}
    return {200: {"model": bound.result}} if bound.result is not None else None


async def _on_invalid_request(request: Request, error: Exception) -> FiniteJSONResponse:
    """422 in FastAPI's shape; a NaN in the request, which it repeats, must not fail the answer."""
    assert isinstance(error, RequestValidationError)
    # A body that is no text is repeated as far as it is.
    encoders = {bytes: lambda each: each.decode("utf-8", "replace")}
    detail = jsonable_encoder(error.errors(), custom_encoder=encoders)
    return FiniteJSONResponse({"detail": detail}, status_code=422)


class _Failures:
    """Middleware: what a handler raises is logged whole, and the client only told that it failed."""

    def __init__(self, app: ASGIApp, device_lost: Callable[[str], None]) -> None:
        self._app = app
        self._device_lost = device_lost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  user code may raise anything
            answer = self._answer(scope, error.raised if isinstance(error, _STANDING_IN) else error)
            if not started:
                await answer(scope, receive, send)
            # Else the response stays unfinished, which closes the connection: all that is left to say.

    def _answer(self, scope: Scope, error: BaseException) -> FiniteJSONResponse:
        fault = gpu.classify(error)
        _log_failure(scope, error)
        if fault is gpu.GpuFault.LOST:
            self._device_lost(f"{type(error).__name__}: {error}")
        if fault is gpu.GpuFault.OUT_OF_MEMORY:
            gpu.release_memory(error)
            return _failure(503, "The GPU is out of memory: try again.", {"retry-after": "1"})
        return _failure(500, "Internal Server Error")


_STANDING_IN = (HandlerExit, gpu.GpuFailure)


def _failure(status: int, detail: str, headers: dict[str, str] | None = None) -> FiniteJSONResponse:
    content = {"detail": detail, "request_id": logs.request_id.get()}
    return FiniteJSONResponse(content, status_code=status, headers=headers)


def _log_failure(scope: Scope, error: BaseException) -> None:
    log.error(
        "%s %s failed: %s",
        scope.get("method"),
        getattr(scope.get("route"), "path", None) or scope.get("path"),
        type(error).__name__,
        exc_info=(type(error), error, user_traceback(error.__traceback__)),
    )
