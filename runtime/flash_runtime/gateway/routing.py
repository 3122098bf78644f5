"""Routing on the I/O loop: which handler a request is for, before the application is asked.

The answer decides where the request waits, how long it may take, and whether it needs FastAPI. What goes
FastAPI's way is routed again there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.convertors import Convertor
from starlette.routing import compile_path

from flash_runtime.dispatch.admission import Kind
from flash_runtime.dispatch.responder import Answering
from flash_runtime.handlers.fastapi_app import Mounted

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for. `name` is for people; `path` is the route's, with its parameters' names."""

    name: str
    path: str | None
    kind: Kind
    timeout: float
    """Seconds from the request's arrival to the end of its response."""
    answering: Answering | None = None
    """What answers it without FastAPI: a compiled route, or the runtime's own."""
    is_internal: bool = False
    """Whether it is for the framework's own callers, who show another token than users."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    method: str
    regex: re.Pattern[str]
    convertors: dict[str, Convertor[Any]]
    target: Target


class RouteTable:
    """The routes in the order of `manifest.routes_for`: those without path parameters first.

    `timeouts` has the seconds of the routes (`METHOD /path`) that do not take `timeout`. `documents` are the
    paths that come before any pattern and have no handler, `own` the runtime's own targets of POST requests.
    """

    def __init__(
        self,
        mounted: Iterable[Mounted],
        timeout: float,
        timeouts: Mapping[str, float],
        documents: Iterable[str] = (),
        own: Iterable[Target] = (),
    ) -> None:
        self._nothing = Target("no handler", None, Kind.NONE, timeout)
        self._plain = {("GET", path): self._nothing for path in documents}
        self._plain |= {("POST", target.path): target for target in own if target.path is not None}
        self._patterns: list[_Pattern] = []
        for each in mounted:
            route = each.route
            name = f"{route} ({route.module}.{route.function})"
            seconds = timeouts.get(str(route), timeout)
            target = Target(name, route.path, each.kind, seconds, each.compiled)
            if "{" in route.path:
                regex, _, convertors = compile_path(route.path)
                self._patterns.append(_Pattern(route.method, regex, convertors, target))
            else:
                self._plain.setdefault((route.method, route.path), target)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of what users can ask for; of what the framework can, where there is nothing else."""
        targets = [*self._plain.values(), *(pattern.target for pattern in self._patterns)]
        kinds = frozenset(target.kind for target in targets if not target.is_internal)
        return kinds - {Kind.NONE} or frozenset(target.kind for target in targets)

    def find(self, method: str, path: str) -> tuple[Target, Values]:
        """The target of a request for `path`, percent-decoded, and the values of its path's parameters."""
        # In the application's patterns, as in Python's, the end is also before a last line feed.
        target = self._plain.get((method, path.removesuffix("\n")))
        if target is not None:
            return target, {}
        for pattern in self._patterns:
            if pattern.method == method and (match := pattern.regex.match(path)):
                given = match.groupdict()
                try:
                    return pattern.target, {
                        name: pattern.convertors[name].convert(value) for name, value in given.items()
                    }
                except ValueError:  # more digits than Python reads
                    return self._nothing, {}
        return self._nothing, {}
