"""Invocations: what a call by name asks for, and what reads and writes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from flash_runtime.dispatch.responder import Reply
from flash_runtime.errors import CallFault
from flash_runtime.rpc.instances import Instance


@dataclass(frozen=True, slots=True)
class Invocation:
    """What is to be called. With `source` or `modules`, the caller has sent code."""

    name: str
    is_class: bool = False
    method: str = "__call__"
    instance_id: str | None = None
    create_new_instance: bool = True
    source: str | None = None
    modules: dict[str, str] = field(default_factory=dict)


class CallArguments(NamedTuple):
    """What a function or method is called with, and the constructor of the method's class."""

    args: list[Any]
    kwargs: dict[str, Any]
    constructor_args: list[Any]
    constructor_kwargs: dict[str, Any]


class Codec(Protocol):
    """Decodes one request, and encodes its answer."""

    def decode_invocation(self) -> Invocation:
        """What the request asks for, without its arguments. Raises `CallFault`."""

    def decode_arguments(self) -> CallArguments:
        """Add the arguments. Decoding them may run code that the caller names. Raises `CallFault`."""

    def encode_result(self, value: Any, stdout: str, instance: Instance | None) -> Reply:
        """The answer. Raises `CallFault` if the value cannot be sent."""

    def encode_failure(self, fault: CallFault, stdout: str, instance: Instance | None) -> Reply:
        """The answer to a call that was not made or has failed."""


def check_arguments(function: Callable[..., Any], name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Raise `CallFault` if the function, which the caller knows by `name`, cannot take the arguments."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise CallFault(400, f"The arguments do not match the signature of `{name}`: {error}.") from None
    except ValueError:
        pass  # it has no signature: the call itself shows
