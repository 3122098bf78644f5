"""`POST /execute`: one of the application's functions or classes, by name, for the framework's own callers.

Whoever asks has shown the token: the gate sees to that before the body is read. Only what the manifest names
is run; source text that a caller sends is run in the development mode (FLASH_LIVE) alone.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from flash_runtime.dispatch.request import DispatchedRequest
from flash_runtime.dispatch.responder import ResponderResult, ThreadResponder, send_reply
from flash_runtime.handlers.failures import Failures
from flash_runtime.logs.prints import end_printed_lines
from flash_runtime.rpc import envelope
from flash_runtime.rpc import live_source as live
from flash_runtime.rpc.capture import Capture, capturing
from flash_runtime.rpc.envelope_codec import EnvelopeCodec
from flash_runtime.rpc.instances import LONGEST_ID, Instance, Instances
from flash_runtime.rpc.invocation import CallFault, Form, Invocation
from flash_runtime.rpc.json_codec import JsonCodec
from flash_runtime.usercode.exits import ends_the_task
from flash_runtime.usercode.gpu_errors import GpuFault, release_memory
from flash_runtime.usercode.tracebacks import kind_of, text_of, trace_of

log = logging.getLogger("flash_runtime.execute")

PATH = "/execute"


@dataclass(frozen=True, slots=True)
class Functions:
    """What can be called: this container's functions and classes by name, and whose the others are."""

    own: Mapping[str, Callable[..., Any]]
    elsewhere: Mapping[str, str]
    """The resource of each of the application's other functions."""

    def find(self, name: str, *, is_class: bool) -> Callable[..., Any]:
        """Raises `CallFault`."""
        found = self.own.get(name)
        if found is None:
            resource = self.elsewhere.get(name)
            if resource is not None:
                raise CallFault(404, f"`{name}` belongs to the resource `{resource}`: call that one.")
            listed = ", ".join(f"`{each}`" for each in sorted(self.own)) or "none"
            raise CallFault(404, f"There is no function `{name}` here. There are: {listed}.")
        if is_class is not isinstance(found, type):
            kind = "class" if isinstance(found, type) else "function"
            raise CallFault(400, f"`{name}` is a {kind}: ask for it as one.")
        return found


class Execute(ThreadResponder):
    """Answers `/execute`, in a thread; a coroutine is awaited on the application loop."""

    def __init__(self, functions: Functions, failures: Failures, *, live: bool) -> None:
        self._functions = functions
        self._failures = failures
        self._live = live
        self._instances = Instances()

    def respond_in_thread(self, request: DispatchedRequest) -> ResponderResult:
        """Decode, look up, call, encode."""
        form: Form = (
            EnvelopeCodec(request.body) if _is_envelope(request.content_type) else JsonCodec(request.body)
        )
        with capturing() as capture:
            name, instance = "", None
            try:
                invocation = form.invocation()
                name = invocation.name
                run, instance = self._prepare(invocation, form)
                result = run()
                if inspect.isawaitable(result):
                    return self._later(form, capture, name, result, instance)
                return form.result(result, _printed(capture), instance)
            except BaseException as error:  # noqa: BLE001  user code may raise anything
                return form.failure(self._fault(name, error), _printed(capture), instance)

    def _prepare(self, invocation: Invocation, form: Form) -> tuple[Callable[[], Any], Instance | None]:
        """What is to be run, with its arguments, and the instance that it belongs to."""
        if invocation.source is not None or invocation.modules:
            if not self._live:
                raise CallFault(
                    403,
                    "This worker runs its application's functions, and no source text: send the function's "
                    "name alone. (FLASH_LIVE=1 allows it, for development.)",
                )
            found = live.define(invocation)
        else:
            found = self._functions.find(invocation.name, is_class=invocation.is_class)
        form.fill(invocation)
        if not invocation.is_class:
            return _bound(found, invocation.name, invocation.args, invocation.kwargs), None
        if invocation.method.startswith("_") and invocation.method != "__call__":
            raise CallFault(403, f"`{invocation.method}` is private: name a public method.")
        instance = self._instance(found, invocation)
        method = _method(instance.value, invocation)
        run = _bound(method, f"{invocation.name}.{invocation.method}", invocation.args, invocation.kwargs)
        self._instances.keep(instance)  # only now: one that cannot be called must not take another's place
        instance.note_call()
        return run, instance

    def _instance(self, found: Callable[..., Any], invocation: Invocation) -> Instance:
        wanted = invocation.instance_id
        if wanted is not None and len(wanted) > LONGEST_ID:
            raise CallFault(400, f"An `instance_id` has at most {LONGEST_ID} characters.")
        if wanted is not None and not invocation.create_new_instance:
            instance = self._instances.find(wanted, invocation.name)
            if instance is None:
                raise CallFault(
                    404,
                    f"There is no instance `{wanted}` of `{invocation.name}` in this worker, or no more: "
                    "ask for a new one (`create_new_instance`). Each worker has its own.",
                )
            return instance
        construct = _bound(found, invocation.name, invocation.constructor_args, invocation.constructor_kwargs)
        return Instance.of(invocation.name, construct(), wanted)

    def _later(
        self,
        form: Form,
        capture: Capture,
        name: str,
        awaitable: Awaitable[Any],
        instance: Instance | None,
    ) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                with capturing(capture):
                    try:
                        result = await awaitable
                    finally:
                        end_printed_lines()
                reply = form.result(result, capture.text(), instance)
            except BaseException as error:
                if ends_the_task(error):
                    raise
                reply = form.failure(self._fault(name, error), capture.text(), instance)
            await send_reply(reply, send)

        return app

    def _fault(self, name: str, error: BaseException) -> CallFault:
        """What the caller is told of `error`."""
        if isinstance(error, CallFault):
            return error
        gpu_fault = self._failures.note(f"POST {PATH} of `{name}`", error)
        fault = CallFault(500, text_of(error), kind=kind_of(error), trace=trace_of(error))
        fault.raised = error
        if gpu_fault is GpuFault.OUT_OF_MEMORY:
            fault.status = 503
            release_memory(error)  # the frames, which hold the tensors
        return fault


def _printed(capture: Capture) -> str:
    end_printed_lines()
    return capture.text()


def _is_envelope(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == envelope.CONTENT_TYPE


def _bound(
    function: Callable[..., Any], name: str, args: list[Any], kwargs: dict[str, Any]
) -> Callable[[], Any]:
    """The call, once its arguments are known to fit. Raises `CallFault`."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise CallFault(400, f"The arguments do not fit `{name}`: {error}.") from None
    except ValueError:
        pass  # it has no signature: the call itself tells
    return lambda: function(*args, **kwargs)


def _method(value: Any, invocation: Invocation) -> Callable[..., Any]:
    method = getattr(value, invocation.method, None)
    if not callable(method):
        raise CallFault(404, f"`{invocation.name}` has no method `{invocation.method}`.")
    return method  # type: ignore[no-any-return]
