"""The codec of the binary envelope: `envelope.py` has its bytes."""

from __future__ import annotations

from typing import Any

from flash_runtime.dispatch.responder import Reply
from flash_runtime.errors import CallFault
from flash_runtime.rpc import envelope
from flash_runtime.rpc.envelope import BadEnvelope
from flash_runtime.rpc.instances import Instance
from flash_runtime.rpc.invocation import CallArguments, Invocation
from flash_runtime.rpc.pickles import UNPICKLABLE
from flash_runtime.usercode.tracebacks import text_of


class EnvelopeCodec:
    """Decodes a call from an envelope, and encodes its answer as one."""

    def __init__(self, body: bytes | bytearray) -> None:
        # A bytearray: a function may write to the arrays it gets.
        self._body = memoryview(body if isinstance(body, bytearray) else bytearray(body))
        self._header: dict[str, Any] = {}
        self._start = 0

    def decode_invocation(self) -> Invocation:
        try:
            self._header, self._start = envelope.unpack_header(self._body)
        except BadEnvelope as error:
            raise CallFault(400, f"The request body is not a valid envelope: {error}.") from None
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
            raise CallFault(
                400, "The envelope's header has no `function` or `class`, or a field in it is not a string."
            )
        return Invocation(
            name,
            is_class,
            method=method,
            instance_id=instance_id,
            create_new_instance=bool(header.get("create_new_instance", True)),
        )

    def decode_arguments(self) -> CallArguments:
        try:
            value = envelope.unpack_value(self._body, self._header, self._start)
            args, kwargs, *constructor = value
            constructor_args, constructor_kwargs = constructor or ((), {})
            return CallArguments(list(args), dict(kwargs), list(constructor_args), dict(constructor_kwargs))
        except BaseException as error:  # noqa: BLE001  a pickle may raise anything
            raise CallFault(400, f"The arguments cannot be unpickled: {text_of(error)}.") from None

    def encode_result(self, value: Any, stdout: str, instance: Instance | None) -> Reply:
        header = {"success": True, "stdout": stdout, **_instance_fields(instance)}
        try:
            return self._reply(200, header, value)
        except BaseException as error:  # a value may raise anything
            raise CallFault(500, UNPICKLABLE.format(text_of(error))) from error

    def encode_failure(self, fault: CallFault, stdout: str, instance: Instance | None) -> Reply:
        header = {
            "success": False,
            "stdout": stdout,
            "error": fault.what,
            "type": fault.kind,
            "traceback": fault.trace,
            **_instance_fields(instance),
        }
        try:
            return self._reply(fault.status, header, fault.raised)
        except BaseException:  # noqa: BLE001  an exception may hold anything
            return self._reply(fault.status, header, None)

    def _reply(self, status: int, header: dict[str, Any], value: Any) -> Reply:
        # Copied: the application may still write to an array that it has returned.
        parts = [bytes(part) for part in envelope.pack(header, value)]
        return Reply(status, ((b"content-type", envelope.CONTENT_TYPE),), parts)


def _instance_fields(instance: Instance | None) -> dict[str, Any]:
    return {"instance_id": instance.id, "instance_info": instance.info} if instance is not None else {}
