"""`POST /execute`: calls one of the application's functions or classes by name, for the framework's callers.

The caller has shown the token: the gate checks it before the body is read. A worker runs only what the
manifest names. It runs source code that a caller sends in the development mode (FLASH_LIVE) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import Reply, ResponderResult, ThreadResponder
from flash_runtime.errors import CallFault
from flash_runtime.handlers import user_call
from flash_runtime.handlers.failures import Failures
from flash_runtime.rpc import envelope
from flash_runtime.rpc import live_source as live
from flash_runtime.rpc.capture import Capture, capturing
from flash_runtime.rpc.envelope_codec import EnvelopeCodec
from flash_runtime.rpc.instances import LONGEST_ID, Instance, Instances
from flash_runtime.rpc.invocation import CallArguments, Codec, Invocation, check_arguments
from flash_runtime.rpc.json_codec import JsonCodec
from flash_runtime.usercode.gpu_errors import GpuError, release_memory
from flash_runtime.usercode.tracebacks import kind_of, text_of, trace_of

PATH = "/execute"


@dataclass(frozen=True, slots=True)
class Functions:
    """What can be called by name: this container's functions and classes, and who serves the others."""

    own: Mapping[str, Callable[..., Any]]
    elsewhere: Mapping[str, str]
    """The resource of each of the application's other functions."""

    def find(self, name: str, *, is_class: bool) -> Callable[..., Any]:
        """The function or class of that name. Raises `CallFault`."""
        found = self.own.get(name)
        if found is None:
            resource = self.elsewhere.get(name)
            if resource is not None:
                raise CallFault(404, f"`{name}` belongs to the resource `{resource}`. Call that resource.")
            listed = ", ".join(f"`{each}`" for each in sorted(self.own)) or "none"
            raise CallFault(404, f"This worker has no function `{name}`. Its functions: {listed}.")
        if is_class is not isinstance(found, type):
            kind = "class" if isinstance(found, type) else "function"
            raise CallFault(400, f"`{name}` is a {kind}. Call it as a {kind}.")
        return found


class Execute(ThreadResponder):
    """Answers `/execute`, in a thread. The application loop awaits coroutines."""

    def __init__(self, functions: Functions, failures: Failures, *, live: bool) -> None:
        self.failures = failures
        self._functions = functions
        self._live = live
        self._instances = Instances()

    def respond_in_thread(self, request: DispatchedRequest) -> ResponderResult:
        """Decode, look up, call, encode."""
        codec: Codec = (
            EnvelopeCodec(request.body) if _is_envelope(request.content_type) else JsonCodec(request.body)
        )
        return user_call.respond(_Execution(self, codec))

    def find(self, invocation: Invocation) -> Callable[..., Any]:
        """The function or class that is to be called. Raises `CallFault`."""
        if invocation.source is None and not invocation.modules:
            return self._functions.find(invocation.name, is_class=invocation.is_class)
        if not self._live:
            raise CallFault(
                403,
                "This worker runs only its application's functions, not source code from a caller. Send the "
                "function's name alone. (FLASH_LIVE=1 allows source code, for development.)",
            )
        return live.define(invocation)

    def instance(
        self, class_: Callable[..., Any], invocation: Invocation, arguments: CallArguments
    ) -> Instance:
        """The instance whose method is to be called, or a new one. Raises `CallFault`."""
        name, wanted = invocation.name, invocation.instance_id
        if wanted is not None and len(wanted) > LONGEST_ID:
            raise CallFault(
                400, f"The `instance_id` is too long. It may have at most {LONGEST_ID} characters."
            )
        if wanted is None or invocation.create_new_instance:
            args, kwargs = arguments.constructor_args, arguments.constructor_kwargs
            check_arguments(class_, name, args, kwargs)
            return Instance.of(name, class_(*args, **kwargs), wanted)
        instance = self._instances.find(wanted, name)
        if instance is None:
            raise CallFault(
                404,
                f"This worker has no instance `{wanted}` of `{name}`, or no longer. Request a new one "
                "(`create_new_instance`). Workers do not share instances.",
            )
        return instance

    def keep(self, instance: Instance) -> None:
        """Keep the instance for later calls, in the place of the one used longest ago."""
        self._instances.keep(instance)


class _Execution:
    """One request to `/execute`."""

    def __init__(self, execute: Execute, codec: Codec) -> None:
        self._execute = execute
        self._codec = codec
        self._capture = Capture()
        self._name = ""
        self._instance: Instance | None = None

    def run(self) -> Any:
        invocation = self._codec.decode_invocation()
        self._name = invocation.name
        found = self._execute.find(invocation)
        arguments = self._codec.decode_arguments()
        if invocation.is_class:
            return self._call_method(found, invocation, arguments)
        check_arguments(found, invocation.name, arguments.args, arguments.kwargs)
        return found(*arguments.args, **arguments.kwargs)

    def _call_method(
        self, class_: Callable[..., Any], invocation: Invocation, arguments: CallArguments
    ) -> Any:
        name = f"{invocation.name}.{invocation.method}"
        if invocation.method.startswith("_") and invocation.method != "__call__":
            raise CallFault(403, f"`{invocation.method}` is private. Call a public method.")
        instance = self._execute.instance(class_, invocation, arguments)
        method = getattr(instance.value, invocation.method, None)
        if not callable(method):
            raise CallFault(404, f"`{invocation.name}` has no method `{invocation.method}`.")
        check_arguments(method, name, arguments.args, arguments.kwargs)
        self._execute.keep(instance)  # only now: one that cannot be called must not take another's place
        instance.note_call()
        self._instance = instance
        return method(*arguments.args, **arguments.kwargs)

    def running(self) -> AbstractContextManager[object]:
        return capturing(self._capture)

    def result(self, value: Any) -> Reply:
        return self._codec.encode_result(value, self._capture.text(), self._instance)

    def failure(self, error: BaseException) -> Reply:
        return self._codec.encode_failure(self._fault(error), self._capture.text(), self._instance)

    def _fault(self, error: BaseException) -> CallFault:
        """The fault that tells the caller about `error`."""
        if isinstance(error, CallFault):
            return error
        gpu_error = self._execute.failures.note(f"POST {PATH} of `{self._name}`", error)
        out_of_memory = gpu_error is GpuError.OUT_OF_MEMORY
        trace = trace_of(error)
        if out_of_memory:
            release_memory(error)  # the frames, which hold the tensors
        status = 503 if out_of_memory else 500
        return CallFault(status, text_of(error), kind=kind_of(error), trace=trace, raised=error)


def _is_envelope(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == envelope.CONTENT_TYPE
