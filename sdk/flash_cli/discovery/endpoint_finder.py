"""The endpoint finder: finds the `Endpoint(...)` calls in a project's source, and what they decorate."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import runpod_flash
from flash_cli.application import Place
from flash_cli.discovery.declarations import Declaration, Use
from flash_cli.discovery.endpoint_calls import Makers, calls, is_client
from flash_cli.discovery.source import SDK, Assigned, Definition, Imported, Module
from flash_cli.discovery.values import BadValue, ProjectName, Sources, Unknowable
from flash_cli.faults import Problem

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a module has to be imported: what its source does not state, and where."""

    place: Place
    what: str


@dataclass(slots=True)
class Gathered:
    """What the source states, and what it does not: `doubts`, by the module's name."""

    declarations: list[Declaration] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    doubts: dict[str, Doubt] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    """The modules whose endpoints and routes are in doubt. The other doubts are only about values."""


def gather(modules: Mapping[str, Module]) -> Gathered:
    """Read the modules that can have to do with endpoints. `modules` has all by name."""
    gatherer = _Gatherer(Sources(modules))
    for module in _relevant(modules):
        gatherer.read(module)
    return gatherer.gathered


def _relevant(modules: Mapping[str, Module]) -> list[Module]:
    """The modules that mention the SDK, and those that import them, directly or not, in order.

    An import counts even if a part of the module's name is missing, so that the mistake can be reported.
    """
    importers: dict[str, list[str]] = {}
    for module in modules.values():
        for _, dotted, _ in module.imports():
            importers.setdefault(dotted, []).append(module.name)
    waiting = [module.name for module in modules.values() if module.mentions_sdk]
    relevant = set(waiting)
    while waiting:
        parts = waiting.pop().split(".")
        for written in (".".join(parts[start:]) for start in range(len(parts))):
            for name in importers.get(written, ()):
                if name not in relevant:
                    relevant.add(name)
                    waiting.append(name)
    return [module for module in modules.values() if module.name in relevant]


Owner = Declaration | Literal["made"]
"""The endpoint of a route. `made` is one that a loop, a function or a collection makes: the source does not
show which."""


class _Gatherer:
    def __init__(self, sources: Sources) -> None:
        self.gathered = Gathered()
        self._sources = sources
        self._makers = Makers(sources)
        self._declared: dict[tuple[str, int, int], Declaration] = {}

    def read(self, module: Module) -> None:
        """Collect the endpoints and decorators of a module, in the order of the source."""
        for statement, in_block in module.statements():
            if isinstance(statement, ast.ImportFrom) and statement.module == SDK and not in_block:
                self._check_import(module, statement)
            elif isinstance(statement, _DEFINITIONS):
                self._read_definition(module, statement, in_block)
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                self._read_assignment(module, statement, statement.value, in_block)
            elif isinstance(statement, ast.Expr):
                self._read_expression(module, statement.value)

    def _check_import(self, module: Module, statement: ast.ImportFrom) -> None:
        for alias in statement.names:
            if alias.name != "*" and not hasattr(runpod_flash, alias.name):
                remedy = f"import one of {', '.join(runpod_flash.__all__)}"
                if alias.name == "remote":
                    remedy = "write @Endpoint(name=…) in place of @remote(…)"
                self._refuse(module.place(statement), f"this runpod_flash has no {alias.name!r}", remedy)

    def _read_assignment(self, module: Module, statement: ast.stmt, value: ast.expr, in_block: bool) -> None:
        names = [
            (name, binding.value)
            for name, binding in module.bound(statement, in_block)
            if isinstance(binding, Assigned)
        ]
        found = False
        for name, its in names:
            if isinstance(its, ast.Call) and self._makers.is_endpoint(module, its.func):
                found = True
                if is_client(its) or not in_block:
                    self._declare(module, its, name)
                else:
                    self._doubt(module, its, "an endpoint that is made in a block")
        if not found:
            self._read_expression(module, value)

    def _read_expression(self, module: Module, node: ast.expr) -> None:
        if self._makers.is_making(module, node):
            self._doubt(module, node, "an endpoint that a function, a loop or an expression makes")
        elif self._is_registering(module, node):
            self._doubt(module, node, "the routes that are added here")

    def _read_definition(self, module: Module, definition: Definition, in_block: bool) -> None:
        for decorator in definition.decorator_list:
            self._read_decorator(module, definition, decorator, in_block)
        if isinstance(definition, ast.ClassDef):
            for inner in definition.body:
                if not isinstance(inner, _DEFINITIONS) and self._makers.is_making(module, inner):
                    self._doubt(module, inner, "an endpoint of a class")

    def _read_decorator(
        self, module: Module, definition: Definition, decorator: ast.expr, in_block: bool
    ) -> None:
        call = decorator if isinstance(decorator, ast.Call) else None
        function = call.func if call else decorator
        if self._makers.is_endpoint(module, function):
            if call is None:
                return self._refuse(
                    module.place(decorator), "@Endpoint needs its arguments", "write @Endpoint(name=…)"
                )
            return self._decorate(
                module, definition, decorator, "made" if in_block else self._declare(module, call, None)
            )
        owner = self._owner(module, decorator)  # `@worker`, of `worker = Endpoint(...)`
        if owner is not None:
            return self._decorate(module, definition, decorator, "made" if in_block else owner)
        if isinstance(function, ast.Attribute):
            owner = self._owner(module, function.value)
            if owner is not None:
                self._route(module, definition, decorator, function.attr, "made" if in_block else owner)
            elif function.attr.upper() in METHODS and _names_a_path(call):
                self._check_stranger(module, decorator, function.value)
        elif isinstance(function, ast.Name) and self._is_method(module, function):
            self._doubt(module, decorator, "the endpoint of this route")
        return None

    def _check_stranger(self, module: Module, decorator: ast.expr, node: ast.expr) -> None:
        """Refuse a route on a name that cannot be imported. It would be left out silently otherwise."""
        while isinstance(node, ast.Attribute):
            node = node.value
        bindings = module.bindings.get(node.id, []) if isinstance(node, ast.Name) else []
        imported = bindings[-1] if bindings else None
        if not isinstance(imported, Imported) or imported.module in self._sources.modules:
            return
        meant = [name for name in self._sources.modules if name.endswith(f".{imported.module}")]
        if meant or importlib.util.find_spec(imported.module.partition(".")[0]) is None:
            self._refuse(
                module.place(decorator),
                f"`{imported.module}` is not a module of the project, so this route's endpoint is unknown",
                f"import from `{meant[0]}`: the worker imports modules by their names from the project's root"
                if meant
                else "correct the import, or remove the route",
            )

    def _decorate(self, module: Module, definition: Definition, decorator: ast.expr, owner: Owner) -> None:
        if owner == "made":
            self._doubt(module, decorator, "the endpoint of this decorator")
        else:
            owner.uses.append(Use(module, definition, module.place(decorator)))

    def _route(
        self,
        module: Module,
        definition: Definition,
        decorator: ast.expr,
        attribute: str,
        owner: Owner,
    ) -> None:
        place = module.place(decorator)
        if owner == "made":
            return self._doubt(module, decorator, "the endpoint of this route")
        method = attribute.upper()
        if method not in METHODS:
            return self._refuse(
                place,
                f"an Endpoint has no method .{attribute}()",
                f"use one of {', '.join(f'.{each.lower()}(path)' for each in METHODS)}",
            )
        try:
            path = self._path(module, decorator)
        except Unknowable:
            return self._doubt(module, decorator, "the path of this route")
        except BadValue as error:
            return self._refuse(place, str(error), "write the path as a string")
        if path is None:
            return self._refuse(
                place,
                f"a route takes only a path, and this is @{ast.unparse(decorator)}",
                f'write @{ast.unparse(_function(decorator))}("/path")',
            )
        owner.uses.append(Use(module, definition, place, method, path))
        return None

    def _path(self, module: Module, decorator: ast.expr) -> str | None:
        if not isinstance(decorator, ast.Call):
            return None
        arguments = self._sources.arguments(module, decorator)
        positional = [self._sources.evaluate(module, each) for each in decorator.args]
        given = [*positional, *([arguments.pop("path")] if "path" in arguments else [])]
        return given[0] if len(given) == 1 and not arguments and isinstance(given[0], str) else None

    def _declare(self, module: Module, call: ast.Call, variable: str | None) -> Declaration:
        key = (module.name, call.lineno, call.col_offset)
        if key in self._declared:
            return self._declared[key]
        declaration = Declaration(module.place(call), call.end_lineno or call.lineno, variable)
        self._declared[key] = declaration
        self.gathered.declarations.append(declaration)
        try:
            declaration.options = self._arguments(module, call)
            declaration.is_known = True
        except Unknowable as error:
            if is_client(call):
                declaration.options = {"id": ""}
            else:
                what = f"{_argument(call, error.node)} of this Endpoint, `{error}`,"
                self.gathered.doubts.setdefault(module.name, Doubt(module.place(call), what))
        except BadValue as error:
            self._refuse(error.module.place(error.node), str(error), "correct this value")
        return declaration

    def _arguments(self, module: Module, call: ast.Call) -> dict[str, Any]:
        positional = [self._sources.evaluate(module, each) for each in call.args]
        if len(positional) > 1:
            raise BadValue(module, call, "Endpoint() takes one positional argument, its name")
        return {**({"name": positional[0]} if positional else {}), **self._sources.arguments(module, call)}

    def _owner(self, module: Module, node: ast.expr, depth: int = _DEEPEST) -> Owner | None:
        """The endpoint that an expression stands for, if any."""
        if isinstance(node, ast.Call) and self._makers.is_endpoint(module, node.func):
            return self._declare(module, node, None)
        held = self._sources.resolve(module, node)
        if not isinstance(held, ProjectName) or not depth:
            inside = node.value if isinstance(node, ast.Attribute | ast.Subscript) else None
            if self._makers.is_making(module, node):
                return "made"
            # An element of a collection of endpoints counts, an attribute of one endpoint does not.
            owner = self._owner(module, inside, depth - 1) if inside is not None and depth else None
            return owner if owner == "made" else None
        bindings = held.module.bindings[held.name]
        assigned = [each for each in bindings if isinstance(each, Assigned)]
        earlier = [each for each in assigned if held.module is not module or each.line <= node.lineno]
        if earlier and not earlier[-1].in_block and (value := earlier[-1].value) is not None:
            if isinstance(value, ast.Call) and self._makers.is_endpoint(held.module, value.func):
                return self._declare(held.module, value, held.name)
            if isinstance(value, ast.Name | ast.Attribute):
                return self._owner(held.module, value, depth - 1)
        values = [each.value for each in assigned if each.value is not None]
        return (
            "made"
            if any(self._involves_endpoints(held.module, value, depth - 1) for value in values)
            else None
        )

    def _involves_endpoints(self, module: Module, node: ast.expr, depth: int = _DEEPEST) -> bool:
        """Whether an expression makes endpoints or contains some, like a collection or a wrapper."""
        names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
        return self._makers.is_making(module, node) or any(self._owner(module, name, depth) for name in names)

    def _is_method(self, module: Module, node: ast.Name) -> bool:
        """Whether a name stands for an endpoint's method, as in `get = api.get`."""
        held = self._sources.resolve(module, node)
        return isinstance(held, ProjectName) and any(
            self._involves_endpoints(held.module, each.value)
            for each in held.module.bindings[held.name]
            if isinstance(each, Assigned) and each.value is not None
        )

    def _is_registering(self, module: Module, node: ast.expr) -> bool:
        """Whether it adds routes without a decorator, like `api.get("/x")(function)` or `add_routes(api)`."""
        for call in calls(node):
            if isinstance(call.func, ast.Call) and isinstance(call.func.func, ast.Attribute):
                if self._owner(module, call.func.func.value) is not None:
                    return True
            elif isinstance(self._sources.resolve(module, call.func), ProjectName):
                given = [*call.args, *(each.value for each in call.keywords)]
                if any(isinstance(each, ast.Name) and self._owner(module, each) for each in given):
                    return True
        return False

    def _doubt(self, module: Module, node: ast.stmt | ast.expr, what: str) -> None:
        self.gathered.doubts.setdefault(module.name, Doubt(module.place(node), what))
        self.gathered.unlisted.add(module.name)

    def _refuse(self, place: Place, what: str, remedy: str) -> None:
        self.gathered.problems.append(Problem(place, what, remedy))


def _names_a_path(call: ast.Call | None) -> bool:
    first = call.args[0] if call is not None and call.args else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.startswith("/")


def _function(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _argument(call: ast.Call, node: ast.expr) -> str:
    """The name of the argument that holds this expression."""
    for keyword in call.keywords:
        if any(each is node for each in ast.walk(keyword.value)):
            return f"`{keyword.arg}`" if keyword.arg else "`**`"
    return "`name`" if any(each is node for arg in call.args for each in ast.walk(arg)) else "a value"
