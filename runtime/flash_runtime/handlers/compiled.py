"""Compiled routes: from a request's bytes to the handler's arguments, and from its result to bytes.

What FastAPI has read off a signature is used here without FastAPI's steps between: its own fields validate,
so that what is accepted is the same. JSON is parsed to Python's types first, and these are validated, since
pydantic resolves some unions in another way when it validates JSON itself (`bytes | str`, for one).

Only what goes well is done here. Input that is not plainly right is left to FastAPI, for its errors, before
the handler is run; results that JSON's own types do not carry are encoded as FastAPI encodes them.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from copy import deepcopy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import orjson
from fastapi import params
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flash_runtime.dispatch.responder import Asked, Outcome
from flash_runtime.dispatch.threads import Threads
from flash_runtime.handlers.failures import Failures, Guard
from flash_runtime.handlers.results import to_json
from flash_runtime.handlers.signature import Binding
from flash_runtime.handlers.streaming import stream

_JSON = b"application/json"
_EXACT = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
"""orjson has ideas of its own about these: they go FastAPI's way."""
_LATER = (Response, Generator, AsyncGenerator)
"""Results that answer for themselves, on the application loop."""
_SCALARS = (str, int, float, bool, Decimal, UUID, date, datetime, time, timedelta, enum.Enum, type(None))


class Compiled:
    """A route that FastAPI is not needed for: `answer` for a coroutine function, `call` for a plain one."""

    def __init__(self, route: APIRoute, binding: Binding, failures: Failures, threads: Threads) -> None:
        self.in_thread = binding.in_thread
        self._name = f"{next(iter(route.methods or ()), '')} {route.path}"
        self._handler: Callable[..., Any] = binding.handler
        self._positional = binding.positional
        self._unpack = tuple(binding.fields.items())
        self._failures = failures
        self._threads = threads
        self._path = [_Parameter(field) for field in route.dependant.path_params]
        self._query = [_Parameter(field) for field in route.dependant.query_params]
        self._body = _Parameter(route.dependant.body_params[0]) if route.dependant.body_params else None
        self._result = route.response_field

    async def answer(self, asked: Asked) -> Outcome:
        """Run the coroutine function that is the handler."""
        try:
            values = self._read(asked)
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

    def call(self, asked: Asked) -> Outcome:
        """Run the plain function that is the handler, in this thread."""
        try:
            values = self._read(asked)
            if values is None:
                return None
            result = self._handler(*[values.pop(name) for name in self._positional], **values)
            if isinstance(result, _LATER) or inspect.isawaitable(result):
                return self._later(result)
            return self._encode(result)
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            return self._raised(error)

    def _read(self, asked: Asked) -> dict[str, Any] | None:
        """The handler's arguments by name, or `None` where FastAPI is to look at the request."""
        content, body = None, self._body
        if body is not None:
            # First, as FastAPI does: what is no JSON reaches no validator.
            if asked.content_type != _JSON and not _is_json(asked.content_type):
                return None
            try:
                content = from_json(asked.body)
            except ValueError:  # also where there is none
                return None
        values: dict[str, Any] = {}
        for parameter in self._path:
            if not parameter.take(asked.path_values.get(parameter.alias), values):
                return None
        if self._query:
            given = QueryParams(asked.query_string) if asked.query_string else {}
            for parameter in self._query:
                if not parameter.take(given.get(parameter.alias), values):
                    return None
        if body is None:
            return values
        if content is None or not body.take(content, values):
            return None
        if self._unpack:
            gathered = values.pop(body.name)
            for name, field in self._unpack:
                values[name] = getattr(gathered, field)
        return values

    def _encode(self, result: Any) -> bytes:
        encode: Callable[[Any], Any] = jsonable_encoder
        if self._result is not None:
            value, errors = self._result.validate(result, {}, loc=("response",))
            if errors:
                raise ResponseValidationError(errors=errors, body=result)
            result, encode = self._result.serialize(value), _as_it_is
        try:
            return orjson.dumps(result, option=_EXACT)
        except TypeError:
            return to_json(encode(result))

    def _later(self, result: Any) -> ASGIApp:
        """Answers on the application loop with a result that is not there yet, or is a response."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if self._body is not None:
                await receive()  # a response that reads on is to find what it finds behind FastAPI
            try:
                # What a decorator made of an async function, where it is a plain function's.
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
        """As the failures answer it: now, since nobody else hears of it where the client has left."""
        try:
            return self._failures.answer(self._name, error)
        except BaseException as another:  # noqa: BLE001  an HTTPException may have any detail and any headers
            return self._failures.answer(self._name, another)


class _Parameter:
    """One of the fields that FastAPI validates with."""

    def __init__(self, field: Any) -> None:
        self.name: str = field.name
        self.alias: str = field.validation_alias or field.alias
        self._validate: Callable[[Any], tuple[Any, list[Any]]] = field.validate
        self._is_required: bool = field.field_info.is_required()
        self._validate_default = bool(field.field_info.validate_default)
        self._field = field

    def take(self, value: Any, values: dict[str, Any]) -> bool:
        """Put the valid value into `values`, or the default of one that is not given; false if it cannot."""
        if value is None:
            if self._is_required:
                return False
            value = deepcopy(self._field.get_default())
            if not self._validate_default:
                values[self.name] = value
                return True
        valid, errors = self._validate(value)
        values[self.name] = valid
        return not errors


def _as_it_is(result: Any) -> Any:
    return result


def why_not(route: APIRoute, binding: Binding) -> str | None:
    """Why a route must go FastAPI's way, in words; `None` where it can be compiled."""
    if binding.by_fastapi is not None:
        return binding.by_fastapi
    dependant = route.dependant
    for field in (*dependant.path_params, *dependant.query_params):
        annotation = field.field_info.annotation
        if not _is_scalar(annotation) or field.config:
            return f"`{field.name}` is of a type that FastAPI reads in its own way"
        if not isinstance(field.field_info.validation_alias, str | None):
            return f"`{field.name}` has several aliases"
    if dependant.body_params:
        field = dependant.body_params[0]
        if route.body_field is not field or isinstance(field.field_info, params.Form):
            return "its body is embedded, or a form"
    return None


def _is_scalar(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_scalar(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return all(_is_scalar(each) for each in get_args(annotation))
    if get_origin(annotation) is Literal or annotation is Any:
        return True
    return isinstance(annotation, type) and issubclass(annotation, _SCALARS)


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == _JSON
