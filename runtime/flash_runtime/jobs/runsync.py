"""`POST /runsync`: runs a job of a queue-based resource, and answers in the same request. Nothing is queued.

The body and the answer are those of the vendor's API: `{"input": {…}}` to `{"id", "status", "output"}`, or to
`error` in place of `output`. The input's keys are the function's arguments.
"""

from __future__ import annotations

import inspect
import typing
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi.encoders import jsonable_encoder

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply, ResponderResult, ThreadResponder
from flash_runtime.errors import CallFault
from flash_runtime.handlers import user_call
from flash_runtime.handlers.failures import Failures
from flash_runtime.handlers.results import to_json
from flash_runtime.rpc.invocation import check_arguments
from flash_runtime.rpc.json_codec import read_json

_JSON = ((b"content-type", b"application/json"),)


class Runsync(ThreadResponder):
    """Answers `POST {path}` with the resource's one function, in a thread. The application loop awaits
    coroutines."""

    def __init__(self, path: str, name: str, function: Callable[..., Any], failures: Failures) -> None:
        self.path = path
        self.name = name
        self.function = function
        self.failures = failures

    def respond_in_thread(self, request: DispatchedRequest) -> ResponderResult:
        """Decode, call, encode."""
        return user_call.respond(_Job(self, request.body))


class _Job:
    """One job, which one request hands in and waits for."""

    def __init__(self, runsync: Runsync, body: bytes | bytearray) -> None:
        self._runsync = runsync
        self._body = body
        self._id = f"sync-{uuid.uuid4()}"

    def run(self) -> Any:
        content = read_json(self._body)
        given = content.get("input") if isinstance(content, dict) else None
        if not isinstance(given, dict):
            raise CallFault(
                400,
                'The request body has no object `input`. Send {"input": {…}} with the arguments by name.',
            )
        check_arguments(self._runsync.function, self._runsync.name, [], given)
        return self._runsync.function(**given)

    def running(self) -> AbstractContextManager[object]:
        return nullcontext()

    def result(self, value: Any) -> Reply:
        return self._reply(200, "COMPLETED", output=jsonable_encoder(value))

    def failure(self, error: BaseException) -> Reply:
        if isinstance(error, CallFault):
            return self._reply(error.status, "FAILED", error=error.what)
        self._runsync.failures.note(f"POST {self._runsync.path}", error)
        # As with any route, the details are in the log. The client learns only that the job failed.
        return self._reply(500, "FAILED", error="Internal Server Error")

    def _reply(self, code: int, status: str, **content: Any) -> Reply:
        return Reply(code, _JSON, [to_json({"id": self._id, "status": status, **content})])


_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def documented(function: Callable[..., Any]) -> dict[str, Any]:
    """The part of an OpenAPI operation that describes the body of the function's jobs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # functions of C extensions may have no signature
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
    # Not by pydantic: such a function may have types that no route could have.
    known = {kind.__name__: name for kind, name in _TYPES.items()}
    name = _TYPES.get(typing.get_origin(annotation) or annotation) if callable(annotation) else None
    name = known.get(annotation) if isinstance(annotation, str) else name
    return {"type": name} if name else {}
