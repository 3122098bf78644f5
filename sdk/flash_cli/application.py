"""The application: the endpoints that a project's source declares, with their routes and functions.

`discovery` makes these records. The manifest, the development server and the deployments read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of the source. `path` is a POSIX path from the project's root."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def module(self) -> str:
        """The name of the file's module, as it is imported from the project's root."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True, slots=True)
class Function:
    """A decorated function or class. With a `method` and a `path` it is the handler of a route."""

    name: str
    module: str
    """The module's name from the project's root, such as `services.users`."""
    place: Place
    is_async: bool = False
    is_class: bool = False
    class_methods: tuple[str, ...] = ()
    """Public methods, in the order of the source."""
    method: str | None = None
    """The HTTP method, in upper case."""
    path: str | None = None
    summary: str = ""
    """The docstring's first line."""
    required: tuple[tuple[str, str], ...] = ()
    """The parameters without a default, each with its annotation as it is written."""


@dataclass(frozen=True, slots=True)
class DeclaredEndpoint:
    """An `Endpoint(...)`. With routes it is load-balanced. As a decorator of a function it is queue-based."""

    name: str
    place: Place
    functions: tuple[Function, ...]
    options: Mapping[str, Any]
    """The constructor's arguments by name, without `name`. The values have Python's or the SDK's types."""
    variable: str | None = None
    """The variable of the module that holds the endpoint, if there is one."""
    calls_others: bool = False
    """Whether the endpoint's functions call functions of other endpoints by name."""

    @property
    def is_load_balanced(self) -> bool:
        return any(function.path is not None for function in self.functions)

    @property
    def is_cpu(self) -> bool:
        return self.options.get("cpu") is not None

    @property
    def module(self) -> str:
        """The module that declares the endpoint."""
        return self.place.module


@dataclass(frozen=True, slots=True)
class Application:
    """Everything that a project declares, sorted by name. `name` is the project's name."""

    name: str
    root: Path
    endpoints: tuple[DeclaredEndpoint, ...] = ()
    clients: tuple[DeclaredEndpoint, ...] = field(default=())
    """Endpoints with `image=…`: somebody else's images, without functions in this project."""
