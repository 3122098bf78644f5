"""Routing on the I/O loop: what a request is for, before the application gets it.

The target decides where the request waits, how long it may take, and whether it needs FastAPI. FastAPI routes
what goes its way once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from starlette.convertors import Convertor
from starlette.routing import compile_path

from flash_runtime.dispatch.admission import Kind
from flash_runtime.dispatch.target import RouteTarget

Values = dict[str, Any]
_Pattern = tuple[re.Pattern[str], dict[str, Convertor[Any]], RouteTarget]


class RouteTable:
    """The targets in the order in which they are tried: those without path parameters first.

    Args:
        targets: the application's routes.
        timeout: seconds for a request that has no target.
        documents: paths of GET requests that come before any pattern and have no handler.
        own: the runtime's own targets, which come before the application's.
    """

    def __init__(
        self,
        targets: Iterable[RouteTarget],
        timeout: float,
        documents: Iterable[str] = (),
        own: Iterable[RouteTarget] = (),
    ) -> None:
        self._nothing = RouteTarget("no handler", "", "", Kind.NONE, timeout)
        self._plain = {("GET", path): self._nothing for path in documents}
        self._plain |= {(target.method, target.path): target for target in own}
        self._patterns: list[_Pattern] = []
        for target in targets:
            if "{" in target.path:
                regex, _, convertors = compile_path(target.path)
                self._patterns.append((regex, convertors, target))
            else:
                self._plain.setdefault((target.method, target.path), target)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of what users can ask for; if there is nothing, of what other endpoints can."""
        targets = [*self._plain.values(), *(target for _, _, target in self._patterns)]
        kinds = frozenset(target.kind for target in targets if not target.is_internal)
        return kinds - {Kind.NONE} or frozenset(target.kind for target in targets)

    def find(self, method: str, path: str) -> tuple[RouteTarget, Values]:
        """The target of a request for `path`, percent-decoded, and the values of its path's parameters."""
        # In the application's patterns, as in Python's, the end is also before a last line feed.
        target = self._plain.get((method, path.removesuffix("\n")))
        if target is not None:
            return target, {}
        for regex, convertors, target in self._patterns:
            if target.method == method and (match := regex.match(path)):
                given = match.groupdict()
                try:
                    return target, {name: convertors[name].convert(value) for name, value in given.items()}
                except ValueError:  # more digits than Python reads
                    return self._nothing, {}
        return self._nothing, {}
