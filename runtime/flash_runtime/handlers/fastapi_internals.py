"""What we use of FastAPI's internals, and all of it: what it has read off a handler's signature.

`APIRoute.dependant`, its `ModelField`s, `body_field` and `response_field` are not public API.
`pyproject.toml` bounds the version, and tests/handlers/test_fastapi_internals.py names what has moved.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from fastapi import params
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute

_SCALARS = (str, int, float, bool, Decimal, UUID, date, datetime, time, timedelta, enum.Enum, type(None))


class RequestField:
    """One value of a request, with FastAPI's own validator for it."""

    def __init__(self, field: Any) -> None:
        self.name: str = field.name
        self.alias: str = field.validation_alias or field.alias
        self._validate: Callable[[Any], tuple[Any, list[Any]]] = field.validate
        self._is_required: bool = field.field_info.is_required()
        self._validate_default = bool(field.field_info.validate_default)
        self._default: Callable[[], Any] = field.get_default

    def take(self, value: Any, values: dict[str, Any]) -> bool:
        """Put the valid value into `values`; the default if `value` is `None`. False if it is not valid."""
        if value is None:
            if self._is_required:
                return False
            value = deepcopy(self._default())
            if not self._validate_default:
                values[self.name] = value
                return True
        valid, errors = self._validate(value)
        values[self.name] = valid
        return not errors


class ResultField:
    """A handler's result, with FastAPI's own validator and serializer for its type."""

    def __init__(self, field: Any) -> None:
        self._validate: Callable[..., tuple[Any, list[Any]]] = field.validate
        self._serialize: Callable[[Any], Any] = field.serialize

    def serialized(self, result: Any) -> Any:
        """The result in JSON's own types. Raises `ResponseValidationError` if it is not of its type."""
        value, errors = self._validate(result, {}, loc=("response",))
        if errors:
            raise ResponseValidationError(errors=errors, body=result)
        return self._serialize(value)


@dataclass(frozen=True, slots=True)
class RouteFields:
    """What a route reads of a request, and what it makes of the result. `body` is the whole JSON body."""

    path: tuple[RequestField, ...]
    query: tuple[RequestField, ...]
    body: RequestField | None
    result: ResultField | None


def fields_of(route: APIRoute) -> RouteFields:
    """The route's fields. Call it only if `why_fastapi_reads` is `None`."""
    dependant, result = route.dependant, route.response_field
    return RouteFields(
        tuple(map(RequestField, dependant.path_params)),
        tuple(map(RequestField, dependant.query_params)),
        RequestField(dependant.body_params[0]) if dependant.body_params else None,
        ResultField(result) if result is not None else None,
    )


def why_fastapi_reads(route: APIRoute) -> str | None:
    """Why only FastAPI can read the route's requests, in words; `None` if its fields suffice."""
    dependant = route.dependant
    for field in (*dependant.path_params, *dependant.query_params):
        if not _is_scalar(field.field_info.annotation) or field.config:
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
