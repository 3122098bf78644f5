"""`POST /runsync`: a job for a queue-based resource, answered in the same request. Nothing is queued.

As the vendor's API has it: `{"input": {…}}` to `{"id", "status", "output"}`, or `error` in the place of
`output`. The input's keys are the function's arguments.
"""

from __future__ import annotations

import inspect
import typing
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.encoders import jsonable_encoder
from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply, ResponderResult, ThreadResponder, send_reply
from flash_runtime.handlers.failures import Failures
from flash_runtime.handlers.results import to_json
from flash_runtime.rpc.invocation import CallFault
from flash_runtime.usercode.exits import ends_the_task

_JSON = ((b"content-type", b"application/json"),)


class Runsync(ThreadResponder):
    """Answers `POST {path}` with the resource's one function, in a thread, or on the application loop."""

    def __init__(self, path: str, name: str, function: Callable[..., Any], failures: Failures) -> None:
        self._path = path
        self._name = name
        self._function = function
        self._failures = failures

    def respond_in_thread(self, request: DispatchedRequest) -> ResponderResult:
        """Decode, call, encode."""
        job = f"sync-{uuid.uuid4()}"
        try:
            arguments = self._arguments(request.body)
            result = self._function(**arguments)
            if inspect.isawaitable(result):
                return self._later(job, result)
            return _completed(job, result)
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            return self._failed(job, error)

    def _arguments(self, body: bytes | bytearray) -> dict[str, Any]:
        try:
            content = from_json(body)
        except ValueError:
            raise CallFault(400, "The body is no JSON.") from None
        given = content.get("input") if isinstance(content, dict) else None
        if not isinstance(given, dict):
            raise CallFault(
                400, 'The body has no object `input`: send {"input": {…}} with the arguments by name.'
            )
        try:
            inspect.signature(self._function).bind(**given)
        except TypeError as error:
            raise CallFault(400, f"The input does not fit `{self._name}`: {error}.") from None
        return given

    def _later(self, job: str, awaitable: Awaitable[Any]) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                reply = _completed(job, await awaitable)
            except BaseException as error:
                if ends_the_task(error):
                    raise
                reply = self._failed(job, error)
            await send_reply(reply, send)

        return app

    def _failed(self, job: str, error: BaseException) -> Reply:
        if isinstance(error, CallFault):
            return _reply(error.status, {"id": job, "status": "FAILED", "error": error.error})
        self._failures.note(f"POST {self._path}", error)
        # As for any route: the log has what happened, and the client only that it did.
        return _reply(500, {"id": job, "status": "FAILED", "error": "Internal Server Error"})


def _completed(job: str, result: Any) -> Reply:
    return _reply(200, {"id": job, "status": "COMPLETED", "output": jsonable_encoder(result)})


def _reply(status: int, content: dict[str, Any]) -> Reply:
    return Reply(status, _JSON, [to_json(content)])


_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def documented(function: Callable[..., Any]) -> dict[str, Any]:
    """What the API document says of the body of the function's jobs (OpenAPI, a part of an operation)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function of an extension's may have none that can be read
        return {}
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    content = {
        "type": "object",
        "properties": {each.name: _schema(each.annotation) for each in named},
        "required": [each.name for each in named if each.default is each.empty],
    }
    body = {"type": "object", "properties": {"input": content}, "required": ["input"]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}


def _schema(annotation: Any) -> dict[str, Any]:
    # Not pydantic's reading: a function that jobs can call need have no types that a route could.
    known = {kind.__name__: name for kind, name in _TYPES.items()}
    name = _TYPES.get(typing.get_origin(annotation) or annotation) if callable(annotation) else None
    name = known.get(annotation) if isinstance(annotation, str) else name
    return {"type": name} if name else {}
