"""Endpoint calls: finds what makes endpoints: `Endpoint(...)`, and calls of functions that do so."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from flash_cli.discovery.source import Assigned, Binding, Module
from flash_cli.discovery.values import ProjectName, SdkName, Sources


class Makers:
    """Knows which names of one project make endpoints."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._known: dict[tuple[str, str], bool] = {}

    def is_endpoint(self, module: Module, node: ast.expr) -> bool:
        """Whether the expression is the SDK's `Endpoint`, under any name."""
        return self._sources.resolve(module, node) == SdkName("Endpoint")

    def is_making(self, module: Module, node: ast.AST) -> bool:
        """Whether the code makes endpoints that can have functions, directly or by a call."""
        return any(
            (self.is_endpoint(module, call.func) and not is_client(call)) or self._makes(module, call.func)
            for call in calls(node)
        )

    def _makes(self, module: Module, node: ast.expr) -> bool:
        """Whether calling the expression makes endpoints."""
        held = self._sources.resolve(module, node)
        if not isinstance(held, ProjectName):
            return False
        key = (held.module.name, held.name)
        if key not in self._known:
            self._known[key] = False  # for now: a function may call itself
            bindings = held.module.bindings[held.name]
            self._known[key] = any(self._makes_by(held.module, binding) for binding in bindings)
        return self._known[key]

    def _makes_by(self, module: Module, binding: Binding) -> bool:
        """Whether it binds a function, a subclass or a `partial(Endpoint, …)` that makes endpoints."""
        match binding:
            case Assigned(value=ast.Call(args=args)):
                return any(self.is_endpoint(module, each) for each in args)
            case ast.ClassDef(bases=bases, body=body):
                parents = (self.is_endpoint(module, each) or self._makes(module, each) for each in bases)
                return any(parents) or any(self.is_making(module, each) for each in body)
            case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body):
                return any(self.is_making(module, each) for each in body)
        return False


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """Every call in the code, at any depth."""
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def is_client(call: ast.Call) -> bool:
    """Whether this `Endpoint(...)` stands for an existing endpoint."""
    return any(keyword.arg == "id" for keyword in call.keywords)
