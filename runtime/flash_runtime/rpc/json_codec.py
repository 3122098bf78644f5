"""The codec of the vendor's JSON.

It is `FunctionRequest` and `FunctionResponse` of runpod-flash 1.21.0 (protos/remote_execution.py).
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from flash_runtime.dispatch.responder import Reply
from flash_runtime.errors import CallFault
from flash_runtime.handlers.results import to_json
from flash_runtime.rpc.instances import Instance
from flash_runtime.rpc.invocation import CallArguments, Invocation
from flash_runtime.rpc.pickles import pickled, unpickled
from flash_runtime.usercode.tracebacks import text_of

_JSON = (b"content-type", b"application/json")


class _Request(BaseModel):
    """The vendor's `FunctionRequest`."""

    model_config = ConfigDict(extra="ignore")

    function_name: str | None = None
    function_code: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    modules: dict[str, str] | None = None
    execution_type: Literal["function", "class"] = "function"
    class_name: str | None = None
    class_code: str | None = None
    constructor_args: list[Any] = []
    constructor_kwargs: dict[str, Any] = {}
    method_name: str = "__call__"
    instance_id: str | None = None
    create_new_instance: bool = True
    serialization_format: Literal["cloudpickle", "json"] = "cloudpickle"


class JsonCodec:
    """Decodes a call from JSON. By `serialization_format`, arguments are JSON or pickles in base64."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._request = _Request()

    def decode_invocation(self) -> Invocation:
        content = read_json(self._body)
        if isinstance(content, dict) and "input" in content:
            content = content["input"]
        try:
            self._request = request = _Request.model_validate(content)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, each["loc"])) or "the body" for each in error.errors())
            raise CallFault(400, f"The request body has invalid fields: {places}.") from None
        is_class = request.execution_type == "class"
        name = request.class_name if is_class else request.function_name
        if not name:
            missing = "class_name" if is_class else "function_name"
            raise CallFault(400, f"The request body has no `{missing}`.")
        return Invocation(
            name,
            is_class,
            method=request.method_name,
            instance_id=request.instance_id,
            create_new_instance=request.create_new_instance,
            source=request.class_code if is_class else request.function_code,
            modules=request.modules or {},
        )

    def decode_arguments(self) -> CallArguments:
        request = self._request
        read = _as_it_is if request.serialization_format == "json" else unpickled
        return CallArguments(
            [read(each) for each in request.args],
            {name: read(each) for name, each in request.kwargs.items()},
            [read(each) for each in request.constructor_args],
            {name: read(each) for name, each in request.constructor_kwargs.items()},
        )

    def encode_result(self, value: Any, stdout: str, instance: Instance | None) -> Reply:
        in_json = self._request.serialization_format == "json"
        content = {
            "success": True,
            "result": None if in_json else base64.b64encode(pickled(value)).decode(),
            "json_result": value if in_json else None,
            "error": None,
            "stdout": stdout,
            "instance_id": instance.id if instance is not None else None,
            "instance_info": instance.info if instance is not None else None,
        }
        try:
            return Reply(200, (_JSON,), [_encode(content)])
        except (TypeError, ValueError, RecursionError) as error:
            raise CallFault(500, _NOT_JSON.format(text_of(error))) from error

    def encode_failure(self, fault: CallFault, stdout: str, instance: Instance | None) -> Reply:
        content = {
            "success": False,
            "result": None,
            "json_result": None,
            "error": f"{fault.what}\n{fault.trace}" if fault.trace else fault.what,
            "stdout": stdout,
            "instance_id": None,
            "instance_info": None,
        }
        return Reply(fault.status, (_JSON,), [_encode(content)])


_NOT_JSON = "The result cannot be sent as JSON: {}. Return only JSON types, or request a pickle."


def read_json(body: bytes | bytearray) -> Any:
    """The body's content. Raises `CallFault`."""
    try:
        return from_json(body)
    except ValueError:
        raise CallFault(400, "The request body is not valid JSON.") from None


def _as_it_is(value: Any) -> Any:
    return value


def _encode(content: Any) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:
        return to_json(content)
