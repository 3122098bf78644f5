"""Compiled routes: from a request's bytes to the handler's arguments, and from its result to bytes.

FastAPI's own fields validate, without FastAPI's steps between: so what is accepted is the same. JSON is
parsed to Python's types first, and these are validated: pydantic resolves some unions in another way when it
validates JSON itself (`bytes | str`, for one).

Only what goes well is done here. Input that is not plainly right is left to FastAPI, for its errors, before
the handler runs. Results that JSON's own types do not carry are encoded as FastAPI encodes them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import orjson
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import ResponderResult
from flash_runtime.dispatch.threads import Threads
from flash_runtime.handlers.failures import Failures, Guard
from flash_runtime.handlers.fastapi_internals import fields_of
from flash_runtime.handlers.results import to_json
from flash_runtime.handlers.signature import Binding
from flash_runtime.handlers.streaming import stream

_JSON = b"application/json"
_EXACT = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
"""orjson encodes these in its own way; FastAPI's way is the reference."""
_LATER = (Response, Generator, AsyncGenerator)
"""Results that become a response on the application loop."""


class CompiledRoute:
    """A route that does not need FastAPI: a responder for one handler, on the loop or in a thread."""

    def __init__(self, route: APIRoute, binding: Binding, failures: Failures, threads: Threads) -> None:
        fields = fields_of(route)
        self.in_thread = binding.in_thread
        self._name = f"{next(iter(route.methods or ()), '')} {route.path}"
        self._handler: Callable[..., Any] = binding.handler
        self._positional = binding.positional
        self._unpack = tuple(binding.fields.items())
        self._failures = failures
        self._threads = threads
        self._path = fields.path
        self._query = fields.query
        self._body = fields.body
        self._result = fields.result

    async def respond(self, request: DispatchedRequest) -> ResponderResult:
        """Run the coroutine function that is the handler."""
        try:
            values = self._read(request)
            if values is None:
                return None
            result = await self._handler(*[values.pop(name) for name in self._positional], **values)
            if isinstance(result, _LATER):
                return self._later(result)
            return self._encode(result)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            return self._raised(error)

    def respond_in_thread(self, request: DispatchedRequest) -> ResponderResult:
        """Run the plain function that is the handler, in this thread."""
        try:
            values = self._read(request)
            if values is None:
                return None
            result = self._handler(*[values.pop(name) for name in self._positional], **values)
            if isinstance(result, _LATER) or inspect.isawaitable(result):
                return self._later(result)
            return self._encode(result)
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            return self._raised(error)

    def _read(self, request: DispatchedRequest) -> dict[str, Any] | None:
        """The handler's arguments by name, or `None` if FastAPI is to look at the request."""
        content, body = None, self._body
        if body is not None:
            # First, as FastAPI does: what is not JSON reaches no validator.
            content_type = request.content_type
            if content_type != _JSON and not _is_json(content_type):
                return None
            try:
                content = from_json(request.body)
            except ValueError:  # also if it is empty
                return None
        values: dict[str, Any] = {}
        for field in self._path:
            if not field.take(request.path_values.get(field.alias), values):
                return None
        if self._query:
            query_string = request.head.query_string
            given = QueryParams(query_string) if query_string else {}
            for field in self._query:
                if not field.take(given.get(field.alias), values):
                    return None
        if body is None:
            return values
        if content is None or not body.take(content, values):
            return None
        if self._unpack:
            gathered = values.pop(body.name)
            for name, attribute in self._unpack:
                values[name] = getattr(gathered, attribute)
        return values

    def _encode(self, result: Any) -> bytes:
        encode: Callable[[Any], Any] = jsonable_encoder
        if self._result is not None:
            result, encode = self._result.serialized(result), _as_it_is
        try:
            return orjson.dumps(result, option=_EXACT)
        except TypeError:
            return to_json(encode(result))

    def _later(self, result: Any) -> ASGIApp:
        """An ASGI application that responds with a result that is not there yet, or that is a response."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if self._body is not None:
                await receive()  # a response that reads on finds what it finds behind FastAPI
            try:
                # A decorator may have made a plain function of an async one.
                response = await result if inspect.isawaitable(result) else result
                if isinstance(response, Generator | AsyncGenerator):
                    response = await stream(response, self._threads.run)
                if not isinstance(response, Response):
                    response = Response(self._encode(response), media_type="application/json")
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001  user code may raise anything
                response = self._raised(error)
            await response(scope, receive, send)

        return Guard(app, self._failures)

    def _raised(self, error: BaseException) -> Response:
        """The response to what was raised: made now, since it must be logged even if the client has left."""
        try:
            return self._failures.answer(self._name, error)
        except BaseException as another:  # noqa: BLE001  an HTTPException may have any detail and any headers
            return self._failures.answer(self._name, another)


def _as_it_is(result: Any) -> Any:
    return result


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == _JSON
