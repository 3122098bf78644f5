"""Forms of a call: the vendor's JSON, and the envelope; the same call and the same answer in both.

The JSON form is `FunctionRequest` and `FunctionResponse` of runpod-flash 1.21.0 (protos/remote_execution.py).
"""

from __future__ import annotations

import base64
import binascii
import pickle
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from flash_runtime import envelope
from flash_runtime.envelope import BadEnvelope
from flash_runtime.exceptions import text_of
from flash_runtime.instances import Instance
from flash_runtime.responses import Reply, to_json

_JSON = (b"content-type", b"application/json")


class CallFault(Exception):
    """A call that is not made, or has failed: a status, and what to tell the caller."""

    def __init__(self, status: int, error: str, *, kind: str | None = None, trace: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.kind = kind
        """The type of what the function raised."""
        self.trace = trace
        self.raised: BaseException | None = None


@dataclass(slots=True)
class Invocation:
    """What is to be called. Where there is `source`, or `modules`, the caller has sent code."""

    name: str
    is_class: bool = False
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    constructor_args: list[Any] = field(default_factory=list)
    constructor_kwargs: dict[str, Any] = field(default_factory=dict)
    method: str = "__call__"
    instance_id: str | None = None
    create_new_instance: bool = True
    source: str | None = None
    modules: dict[str, str] = field(default_factory=dict)


class Form(Protocol):
    """How one request and its answer are written."""

    def invocation(self) -> Invocation:
        """What the request asks for, without its arguments. Raises `CallFault`."""

    def fill(self, invocation: Invocation) -> None:
        """Decode the arguments, which may run code that the caller names. Raises `CallFault`."""

    def result(self, value: Any, stdout: str, instance: Instance | None) -> Reply:
        """The answer. Raises `CallFault` where the value cannot be sent."""

    def failure(self, fault: CallFault, stdout: str, instance: Instance | None) -> Reply:
        """The answer of a call that was not made or has failed."""


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


class JsonForm:
    """The vendor's; arguments are JSON, or pickles in base64, by `serialization_format`."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._request = _Request()

    def invocation(self) -> Invocation:
        try:
            content = from_json(self._body)
        except ValueError:
            raise CallFault(400, "The body is no JSON.") from None
        if isinstance(content, dict) and "input" in content:
            content = content["input"]
        try:
            self._request = request = _Request.model_validate(content)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, each["loc"])) or "the body" for each in error.errors())
            raise CallFault(400, f"The request does not fit: {places}.") from None
        is_class = request.execution_type == "class"
        name = request.class_name if is_class else request.function_name
        if not name:
            missing = "class_name" if is_class else "function_name"
            raise CallFault(400, f"The request has no `{missing}`.")
        return Invocation(
            name,
            is_class,
            method=request.method_name,
            instance_id=request.instance_id,
            create_new_instance=request.create_new_instance,
            source=request.class_code if is_class else request.function_code,
            modules=request.modules or {},
        )

    def fill(self, invocation: Invocation) -> None:
        request = self._request
        read = _as_it_is if request.serialization_format == "json" else _unpickle
        invocation.args = [read(each) for each in request.args]
        invocation.kwargs = {name: read(each) for name, each in request.kwargs.items()}
        invocation.constructor_args = [read(each) for each in request.constructor_args]
        invocation.constructor_kwargs = {
            name: read(each) for name, each in request.constructor_kwargs.items()
        }

    def result(self, value: Any, stdout: str, instance: Instance | None) -> Reply:
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
            raise CallFault(500, _NO_JSON.format(text_of(error))) from error

    def failure(self, fault: CallFault, stdout: str, instance: Instance | None) -> Reply:
        content = {
            "success": False,
            "result": None,
            "json_result": None,
            "error": f"{fault.error}\n{fault.trace}" if fault.trace else fault.error,
            "stdout": stdout,
            "instance_id": None,
            "instance_info": None,
        }
        return Reply(fault.status, (_JSON,), [_encode(content)])


class EnvelopeForm:
    """The binary form of `envelope.py`."""

    def __init__(self, body: bytes | bytearray) -> None:
        # Whoever gets an array may write to it.
        self._body = memoryview(body if isinstance(body, bytearray) else bytearray(body))
        self._header: dict[str, Any] = {}
        self._start = 0

    def invocation(self) -> Invocation:
        try:
            self._header, self._start = envelope.unpack_header(self._body)
        except BadEnvelope as error:
            raise CallFault(400, f"The body is no envelope: {error}.") from None
        header = self._header
        name, is_class = header.get("function"), False
        if name is None:
            name, is_class = header.get("class"), True
        method, instance_id = header.get("method", "__call__"), header.get("instance_id")
        if (
            not isinstance(name, str)
            or not isinstance(method, str)
            or not isinstance(instance_id, str | None)
        ):
            raise CallFault(400, "The header names no `function` and no `class`, or not as a string.")
        return Invocation(
            name,
            is_class,
            method=method,
            instance_id=instance_id,
            create_new_instance=bool(header.get("create_new_instance", True)),
        )

    def fill(self, invocation: Invocation) -> None:
        try:
            value = envelope.unpack_value(self._body, self._header, self._start)
            args, kwargs, *constructor = value
            invocation.args, invocation.kwargs = list(args), dict(kwargs)
            if constructor:
                invocation.constructor_args, invocation.constructor_kwargs = (
                    list(constructor[0]),
                    dict(constructor[1]),
                )
        except BaseException as error:  # noqa: BLE001  a pickle may raise anything
            raise CallFault(400, f"The arguments cannot be unpickled: {text_of(error)}.") from None

    def result(self, value: Any, stdout: str, instance: Instance | None) -> Reply:
        header = {"success": True, "stdout": stdout, **_told(instance)}
        try:
            return self._reply(200, header, value)
        except BaseException as error:  # so may a value
            raise CallFault(500, _UNPICKLABLE.format(text_of(error))) from error

    def failure(self, fault: CallFault, stdout: str, instance: Instance | None) -> Reply:
        header = {
            "success": False,
            "stdout": stdout,
            "error": fault.error,
            "type": fault.kind,
            "traceback": fault.trace,
            **_told(instance),
        }
        try:
            return self._reply(fault.status, header, fault.raised)
        except BaseException:  # noqa: BLE001  an exception may hold anything
            return self._reply(fault.status, header, None)

    def _reply(self, status: int, header: dict[str, Any], value: Any) -> Reply:
        # Copied: the application may go on writing to an array that it has returned.
        parts = [bytes(part) for part in envelope.pack(header, value)]
        return Reply(status, ((b"content-type", envelope.CONTENT_TYPE),), parts)


def _told(instance: Instance | None) -> dict[str, Any]:
    return {"instance_id": instance.id, "instance_info": instance.info} if instance is not None else {}


_NO_JSON = "The result cannot be sent as JSON: {}. Return JSON's own types, or ask for a pickle."
_UNPICKLABLE = "The result cannot be pickled: {}. Return what pickle can carry: data, not handles and locks."


def pickled(value: Any) -> bytes:
    """The value as pickle has it, or cloudpickle where only that can: a lambda. Raises `CallFault`."""
    try:
        return pickle.dumps(value, protocol=5)
    except BaseException as error:  # noqa: BLE001  a value may raise anything
        try:
            import cloudpickle  # seldom needed

            return cloudpickle.dumps(value)  # type: ignore[no-any-return]
        except BaseException:  # noqa: BLE001  so may it
            raise CallFault(500, _UNPICKLABLE.format(text_of(error))) from error


def _unpickle(text: Any) -> Any:
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise CallFault(
            400, "An argument is no base64. Send `serialization_format: json` for JSON."
        ) from None
    try:
        return pickle.loads(raw)  # noqa: S301  the caller has shown the token
    except BaseException as error:  # noqa: BLE001  a pickle may raise anything
        raise CallFault(400, f"An argument cannot be unpickled: {text_of(error)}.") from None


def _as_it_is(value: Any) -> Any:
    return value


def _encode(content: Any) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:
        return to_json(content)
