"""A route's target: what a request is for, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass

from flash_runtime.dispatch.admission import Kind
from flash_runtime.dispatch.responder import Responder


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """What a request is for."""

    name: str
    """For people: `METHOD /path (module.function)`."""
    method: str
    path: str
    """The route's path, with its parameters' names in braces."""
    kind: Kind
    timeout: float
    """Seconds from the request's arrival to the end of its response."""
    responder: Responder | None = None
    """What responds without FastAPI: a compiled route, or the runtime's own."""
    why_not_compiled: str | None = None
    """Why FastAPI responds, in words; `None` if it does not."""
    is_internal: bool = False
    """Whether it is for calls between endpoints, which show another token than users do."""
