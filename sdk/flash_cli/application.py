"""What the source of an application declares: endpoints, their routes and functions, each with its place.

`discovery` makes these records; the manifest, the development server and the deployments read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of the source. `path` is POSIX, from the project's root."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def module(self) -> str:
        """The file's module, as it is imported from the project's root."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True, slots=True)
class Function:
    """A decorated function or class. One with a `method` and a `path` is the handler of a route."""

    name: str
    module: str
    """As it is imported from the project's root: `services.users`."""
    place: Place
    is_async: bool = False
    is_class: bool = False
    class_methods: tuple[str, ...] = ()
    """Public methods, in the order of the source."""
    method: str | None = None
    """Of HTTP, in upper case."""
    path: str | None = None
    summary: str = ""
    """The docstring's first line."""
    required: tuple[tuple[str, str], ...] = ()
    """The parameters without a default, each with its annotation as it is written."""


@dataclass(frozen=True, slots=True)
class DeclaredEndpoint:
    """An `Endpoint(...)`: with routes it is load-balanced, as a decorator it is queue-based."""

    name: str
    place: Place
    functions: tuple[Function, ...]
    options: Mapping[str, Any]
    """The constructor's arguments by name, of Python's and `runpod_flash`'s types, without `name`."""
    variable: str | None = None
    """The module's variable that holds it, where one does."""
    calls_others: bool = False
    """Whether its functions call functions of other endpoints by name."""

    @property
    def is_load_balanced(self) -> bool:
        return any(function.path is not None for function in self.functions)

    @property
    def is_cpu(self) -> bool:
        return self.options.get("cpu") is not None

    @property
    def module(self) -> str:
        """The module that declares it."""
        return self.place.module


@dataclass(frozen=True, slots=True)
class Application:
    """All that a project declares, in the order of the names. `name` is the project's."""

    name: str
    root: Path
    endpoints: tuple[DeclaredEndpoint, ...] = ()
    clients: tuple[DeclaredEndpoint, ...] = field(default=())
    """`Endpoint(image=…)`: what is deployed as it is, and has no functions here."""

    def dependencies(self) -> Iterator[str]:
        """What the endpoints ask for, as pip names it; each once, in the order of the endpoints."""
        seen: set[str] = set()
        for endpoint in self.endpoints:
            for each in endpoint.options.get("dependencies") or ():
                if each not in seen:
                    seen.add(each)
                    yield each
