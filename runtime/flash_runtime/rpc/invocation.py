"""Invocations: what a call by name asks for, and the two ways to write one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from flash_runtime.dispatch.responder import Reply
from flash_runtime.rpc.instances import Instance


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
