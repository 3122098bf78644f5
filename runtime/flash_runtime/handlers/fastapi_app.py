"""The application: a FastAPI app with the handlers as its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.responses import Response

from flash_runtime.artifact.selection import Route
from flash_runtime.dispatch.target import RouteTarget
from flash_runtime.dispatch.threads import Threads
from flash_runtime.errors import ManifestFault, UserCodeFault
from flash_runtime.handlers import signature as binding
from flash_runtime.handlers.compiled import CompiledRoute
from flash_runtime.handlers.failures import Failures, Guard, invalid_request
from flash_runtime.handlers.fastapi_internals import why_fastapi_reads
from flash_runtime.handlers.results import FiniteJSONResponse
from flash_runtime.handlers.signature import Handler
from flash_runtime.handlers.streaming import MEDIA_TYPES


@dataclass(frozen=True, slots=True)
class Application:
    """The handlers behind their routes: an ASGI application, and a target for each route."""

    asgi: FastAPI
    targets: tuple[RouteTarget, ...]
    failures: Failures

    @property
    def documents(self) -> tuple[str, ...]:
        """The paths of the API document and of the pages that show it."""
        app = self.asgi
        paths = (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
        return tuple(path for path in paths if path is not None)


def build(
    bound: Iterable[tuple[Route, Handler]],
    *,
    title: str,
    threads: Threads,
    device_lost: Callable[[str], None] = lambda why: None,
) -> Application:
    """The application of these handlers, each on its route, in the order given.

    `/docs`, `/redoc` and `/openapi.json` are FastAPI's, unless a route has one of these paths.

    Raises:
        ManifestFault: paths have parameters that their handlers do not take. It names every such route.
        UserCodeFault: a handler's signature cannot be served.
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
    failures = Failures(device_lost)
    app.add_middleware(Guard, failures=failures)
    routes = tuple(_mount(app, route, handler, failures, threads) for route, handler in pairs)
    return Application(app, routes, failures)


def _refuse_untaken(pairs: list[tuple[Route, Handler]]) -> None:
    problems = [
        f"{route}: `{route.module}.{route.function}` does not take {', '.join(missing)}"
        f" ({binding.place(handler)})"
        for route, handler in pairs
        if (missing := binding.untaken(route, handler))
    ]
    if problems:
        raise ManifestFault(
            "Some paths have parameters that their handlers do not take.",
            where="the routes of the manifest",
            remedy="give each handler a parameter for every name in braces, and build again.",
            problems=tuple(problems),
        )


def _mount(app: FastAPI, route: Route, handler: Handler, failures: Failures, threads: Threads) -> RouteTarget:
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
        # FastAPI reads the handler's types here. What it cannot read raises many kinds of exception.
        raise UserCodeFault(
            f"`{route.module}.{route.function}` cannot be the handler of {route}: "
            f"{binding.unreadable(handler) or error}",
            where=binding.place(handler),
            remedy="annotate with types that a request can carry: numbers, str, list, dict, dataclasses, "
            "pydantic models.",
        ) from error
    mounted = app.routes[-1]
    assert isinstance(mounted, APIRoute), "it was added last"
    reason = bound.by_fastapi or why_fastapi_reads(mounted)
    return RouteTarget(
        f"{route} ({route.module}.{route.function})",
        route.method,
        route.path,
        binding.kind(handler),
        route.timeout,
        CompiledRoute(mounted, bound, failures, threads) if reason is None else None,
        why_not_compiled=reason,
    )


def _documented(bound: binding.Binding) -> dict[int | str, dict[str, Any]] | None:
    """What the API document says about a 200, besides what FastAPI reads off the signature."""
    if bound.streams:
        return {200: {"content": {media_type: {} for media_type in MEDIA_TYPES}}}
    return {200: {"model": bound.result}} if bound.result is not None else None


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "it is registered for these alone"
    return invalid_request(error)
