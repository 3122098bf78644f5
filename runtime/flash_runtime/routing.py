"""Routing on the I/O loop: which handler a request is for, before the application is asked.

The answer decides where the request waits and how long it may take. The application routes again by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.routing import compile_path

from flash_runtime.admission import Kind
from flash_runtime.manifest import Route


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for. `name` is for people; `path` is the route's, with its parameters' names."""

    name: str
    path: str | None
    kind: Kind
    timeout: float
    """Seconds from the request's arrival to the end of its response."""


class RouteTable:
    """The routes in the order of `manifest.routes_for`: those without path parameters first.

    `kinds` has the kind of each route's handler, `timeouts` the seconds of the routes (`METHOD /path`) that
    do not take `timeout`. `documents` are the paths that come before any pattern and have no handler.
    """

    def __init__(
        self,
        kinds: Iterable[tuple[Route, Kind]],
        timeout: float,
        timeouts: Mapping[str, float],
        documents: Iterable[str] = (),
    ) -> None:
        self._nothing = Target("no handler", None, Kind.NONE, timeout)
        self._plain = {("GET", path): self._nothing for path in documents}
        self._patterns: list[tuple[str, re.Pattern[str], Target]] = []
        for route, kind in kinds:
            name = f"{route} ({route.module}.{route.function})"
            target = Target(name, route.path, kind, timeouts.get(str(route), timeout))
            if "{" in route.path:
                self._patterns.append((route.method, compile_path(route.path)[0], target))
            else:
                self._plain.setdefault((route.method, route.path), target)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of what there is."""
        targets = [*self._plain.values(), *(target for _, _, target in self._patterns)]
        return frozenset(target.kind for target in targets)

    def find(self, method: str, path: str) -> Target:
        """The target of a request for `path`, percent-decoded."""
        # In the application's patterns, as in Python's, the end is also before a last line feed.
        target = self._plain.get((method, path.removesuffix("\n")))
        if target is not None:
            return target
        for known, pattern, target in self._patterns:
            if known == method and pattern.match(path):
                return target
        return self._nothing
