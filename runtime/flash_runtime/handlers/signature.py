"""A handler's signature, read once: which parameters FastAPI reads for it, and of which kind.

GET handlers, and those that take a model, an upload or a dependency in FastAPI's way, stay as they are. For
other handlers that take a body, the parameters are gathered into one JSON object, as Flash defines it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, get_args, get_origin

from fastapi import File, Form, UploadFile, params
from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response

from flash_runtime.artifact.selection import Route
from flash_runtime.dispatch.admission import Kind
from flash_runtime.dispatch.threads import Threads
from flash_runtime.errors import UserCodeFault
from flash_runtime.handlers.streaming import stream
from flash_runtime.usercode import gpu_errors as gpu
from flash_runtime.usercode.exits import HandlerExit, escapes

Handler = Callable[..., Any]
Endpoint = Callable[..., Awaitable[Any]]

_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_BODY = "flash_body"
"""The name of the parameter that carries the gathered body."""
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Binding:
    """A handler, ready for FastAPI.

    `endpoint` has the signature that FastAPI reads. `result` is the type that the API document shows for a
    handler whose result is not validated against it, or `None`. `streams` says whether it is a generator,
    `in_thread` whether it is a plain function, and `by_fastapi` why FastAPI must do every step, if it must.

    `positional` are the names of its positional-only parameters, `fields` the parameters that one body is
    gathered from, with the names of their fields in its model.
    """

    endpoint: Endpoint
    result: Any
    streams: bool
    in_thread: bool
    by_fastapi: str | None
    handler: Handler
    positional: tuple[str, ...]
    fields: dict[str, str]


def bind(route: Route, handler: Handler, threads: Threads) -> Binding:
    """Read the handler's signature for its route. A plain function runs in one of the `threads`.

    Call `untaken` before. Raises `UserCodeFault` if the signature cannot be read or validated.
    """
    signature = _signature(route, handler)
    given = [each for each in signature.parameters.values() if each.kind not in _VARIADIC]
    in_path = set(route.path_parameters)
    own = [each for each in given if each.name in in_path]
    own += [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=str)
        for name in route.path_parameters
        if name not in signature.parameters  # it has `**kwargs`
    ]
    rest = [each for each in given if each.name not in in_path]
    gathered = route.method in _BODY_METHODS and _is_gathered(rest)
    fields: dict[str, str] = {}
    if gathered and any(_is_upload(each) for each in rest):
        own += [_multipart(each) for each in rest]
    elif gathered:
        own += [each for each in rest if _is_fastapis(each)]
        plain = [each for each in rest if not _is_fastapis(each)]
        if plain:
            fields = {each.name: f"p{number}" for number, each in enumerate(plain)}
            model = _body_model(route, handler, plain, fields)
            own.append(Parameter(_BODY, Parameter.KEYWORD_ONLY, annotation=model))
    else:
        own += rest
    positional = tuple(each.name for each in given if each.kind is Parameter.POSITIONAL_ONLY)
    endpoint = _endpoint(handler, positional, fields, threads)
    returned = Parameter.empty if gathered or _streams(handler) else signature.return_annotation
    keyword_only = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in own]
    shown = inspect.Signature(keyword_only, return_annotation=returned)
    endpoint.__name__ = _name(handler)
    endpoint.__doc__ = inspect.getdoc(handler)
    endpoint.__module__ = getattr(handler, "__module__", __name__)
    endpoint.__signature__ = shown  # type: ignore[attr-defined]
    documented = signature.return_annotation if gathered and not _streams(handler) else None
    return Binding(
        endpoint,
        result=documented if _is_documentable(documented) else None,
        streams=_streams(handler),
        in_thread=kind(handler) is Kind.SYNC,
        by_fastapi=_why_fastapi(handler, given),
        handler=handler,
        positional=positional,
        fields=fields,
    )


def untaken(route: Route, handler: Handler) -> tuple[str, ...]:
    """The parameters of the route's path that the handler does not take. Raises `UserCodeFault` like
    `bind`."""
    parameters = _signature(route, handler).parameters
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        return ()
    return tuple(name for name in route.path_parameters if name not in parameters)


def kind(handler: Handler) -> Kind:
    """How a request to the handler runs."""
    on_the_loop = _is(inspect.iscoroutinefunction, handler) or _is(inspect.isasyncgenfunction, handler)
    return Kind.ASYNC if on_the_loop else Kind.SYNC


def unreadable(handler: Handler) -> str | None:
    """Which parameter, if any, has a type that no request can carry; in words."""
    for parameter in inspect.signature(handler, eval_str=True).parameters.values():
        if parameter.kind not in _VARIADIC and not _is_fastapis(parameter):
            annotation = Any if parameter.annotation is Parameter.empty else parameter.annotation
            try:
                TypeAdapter(annotation)
            except (PydanticSchemaGenerationError, PydanticUserError):
                shown = inspect.formatannotation(annotation)
                return f"parameter `{parameter.name}` has the type {shown}, which no request can carry"
    return None


# Signatures.


def _name(handler: Handler) -> str:
    return getattr(handler, "__name__", None) or type(handler).__name__


def _signature(route: Route, handler: Handler) -> inspect.Signature:
    """The signature with its annotations evaluated."""
    try:
        return inspect.signature(handler, eval_str=True)
    except Exception as error:
        raise UserCodeFault(
            f"The signature of `{route.module}.{route.function}` cannot be read: {error}.",
            where=place(handler),
            remedy="annotate with names that exist at run time, not under `if TYPE_CHECKING:` alone.",
        ) from error


def place(handler: Handler) -> str | None:
    """`file:line` of the handler; `None` if it was not written in Python."""
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None


def _base(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_class(annotation: Any, *classes: type) -> bool:
    base = _base(annotation)
    return isinstance(base, type) and issubclass(base, classes)


def _markers(parameter: Parameter) -> list[Any]:
    """What FastAPI reads besides the type: the metadata and the default."""
    extra = get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()
    return [*extra, parameter.default]


def _is_fastapis(parameter: Parameter) -> bool:
    """Whether FastAPI provides the parameter, and not the body."""
    if _is_class(parameter.annotation, HTTPConnection, Response, BackgroundTasks):
        return True
    return any(isinstance(each, params.Depends | params.Param) for each in _markers(parameter))


def _why_fastapi(handler: Handler, parameters: list[Parameter]) -> str | None:
    """Why only FastAPI can serve the handler, in words; `None` if a compiled route can."""
    if _streams(handler):
        return "it yields its result"
    for each in parameters:
        if _is_fastapis(each):
            return f"`{each.name}` is provided by FastAPI"
        if _is_upload(each) or any(isinstance(marker, params.Form) for marker in _markers(each)):
            return f"`{each.name}` comes from a form"
    return None


def _is_upload(parameter: Parameter) -> bool:
    return _base(parameter.annotation) is bytes or _is_class(parameter.annotation, UploadFile)


def _is_gathered(parameters: list[Parameter]) -> bool:
    """Whether the parameters come from one object: not if one is a model, or a form in FastAPI's way."""
    if any(_is_class(each.annotation, BaseModel) for each in parameters):
        return False
    uploads = any(_is_upload(each) for each in parameters)
    forms = any(isinstance(each, params.Form) for one in parameters for each in _markers(one))
    return uploads or not forms


def _multipart(parameter: Parameter) -> Parameter:
    """The parameter as a part of a form: a file for bytes, otherwise a field."""
    if _is_fastapis(parameter) or any(isinstance(each, params.Form) for each in _markers(parameter)):
        return parameter
    default = ... if parameter.default is Parameter.empty else parameter.default
    return parameter.replace(default=File(default) if _has_bytes(parameter.annotation) else Form(default))


def _has_bytes(annotation: Any) -> bool:
    """Whether it is a file, may be one, or is a list of files."""
    if annotation is bytes or _is_class(annotation, UploadFile):
        return True
    return any(_has_bytes(each) for each in get_args(annotation))


def _body_model(
    route: Route, handler: Handler, parameters: list[Parameter], fields: dict[str, str]
) -> type[BaseModel]:
    """A model of the body with one field per parameter, which clients know by the parameter's name.

    `fields` has the fields' own names: not every parameter's name can be a field's.
    """
    definitions: dict[str, Any] = {}
    for parameter in parameters:
        annotation = Any if parameter.annotation is Parameter.empty else parameter.annotation
        default = ... if parameter.default is Parameter.empty else parameter.default
        info = FieldInfo.from_annotated_attribute(annotation, default)
        if info.alias is None and info.validation_alias is None:
            title = info.title or parameter.name.replace("_", " ").title()
            annotation = Annotated[annotation, Field(alias=parameter.name, title=title)]
        definitions[fields[parameter.name]] = (annotation, default)
    name = _name(handler).title().replace("_", "") + "Body"
    try:
        return create_model(name, **definitions)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise UserCodeFault(
            f"The parameters of `{route.module}.{route.function}` cannot be read from JSON: "
            f"{unreadable(handler) or str(error).splitlines()[0]}",
            where=place(handler),
            remedy="annotate them with types that JSON can carry: numbers, str, list, dict, dataclasses, "
            "pydantic models.",
        ) from error


def _is_documentable(result: Any) -> bool:
    if result in (None, Parameter.empty, Any) or _is_class(result, Response):
        return False
    try:
        TypeAdapter(result).json_schema(mode="serialization")
    except Exception:  # noqa: BLE001  any type may be annotated; one that has no schema is only not shown
        return False
    return True


# Calls.


def _endpoint(
    handler: Handler, positional: tuple[str, ...], fields: dict[str, str], threads: Threads
) -> Endpoint:
    """What FastAPI calls: it sorts the arguments, runs the handler where it belongs, and streams
    generators."""
    call = _caller(handler, threads)

    async def endpoint(**values: Any) -> Any:
        if fields:
            body = values.pop(_BODY)
            values.update({name: getattr(body, field) for name, field in fields.items()})
        arguments = [values.pop(name) for name in positional]
        try:
            result = await call(*arguments, **values)
            if isinstance(result, Generator | AsyncGenerator):
                return await stream(result, threads.run)
        except BaseException as error:
            if escapes(error):
                raise HandlerExit(error) from error
            if gpu.classify(error) is not None:
                # Before FastAPI makes a response of it: a handler may have raised HTTPException over it.
                raise gpu.GpuFailure(error) from error
            raise
        return result

    return endpoint


def _caller(handler: Handler, threads: Threads) -> Callable[..., Awaitable[Any]]:
    """The handler as a coroutine function; a plain function runs in a thread."""
    if _is(inspect.iscoroutinefunction, handler):
        return handler
    if _streams(handler):

        async def begin(*arguments: Any, **values: Any) -> Any:
            return handler(*arguments, **values)

        return begin

    async def in_thread(*arguments: Any, **values: Any) -> Any:
        result = await threads.run(handler, *arguments, **values)
        # A decorator may have made a plain function of an async one.
        return await result if inspect.isawaitable(result) else result

    return in_thread


def _streams(handler: Handler) -> bool:
    return _is(inspect.isgeneratorfunction, handler) or _is(inspect.isasyncgenfunction, handler)


def _is(kind: Callable[[Any], bool], handler: Handler) -> bool:
    """Whether the handler, or its `__call__`, is a function of that kind."""
    return kind(handler) or (not inspect.isroutine(handler) and kind(getattr(handler, "__call__", None)))  # noqa: B004
