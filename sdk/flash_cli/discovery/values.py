"""Values: what an expression of the source stands for: a name of the SDK, a name of the project, or a value.

An expression has a value here only if every run gives the same one. Other expressions are `Unknowable`. The
project's code does not run.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import runpod_flash
from flash_cli.discovery.source import SDK, Assigned, Imported, Module

_DEEPEST = 40
_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_BUILTINS: Mapping[str, Callable[..., Any]] = {"dict": dict, "list": list, "str": str, "tuple": tuple}
_VALUE_METHODS = ("all", "from_string")


class Unknowable(Exception):
    """The source does not state the value of `node` in `module`."""

    def __init__(self, module: Module, node: ast.expr) -> None:
        super().__init__(ast.unparse(node))
        self.module = module
        self.node = node


class BadValue(Exception):
    """The SDK refuses the value. The text is the SDK's."""

    def __init__(self, module: Module, node: ast.expr, text: str) -> None:
        super().__init__(text)
        self.module = module
        self.node = node


@dataclass(frozen=True, slots=True)
class SdkName:
    """A name of `runpod_flash`."""

    name: str


@dataclass(frozen=True, slots=True)
class ProjectName:
    """A name in a module of the project that is not an import."""

    module: Module
    name: str


@dataclass(frozen=True, slots=True)
class ModuleName:
    """A module, of the project or not."""

    name: str


class Sources:
    """The modules of a project. Names are followed through their imports."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self.modules = modules

    def resolve(self, module: Module, node: ast.expr) -> SdkName | ProjectName | ModuleName | None:
        """What a plain or dotted name stands for, or `None` if that is none of the three kinds."""
        return self._resolve(module, node, _DEEPEST)

    def _resolve(
        self, module: Module, node: ast.expr | None, depth: int
    ) -> SdkName | ProjectName | ModuleName | None:
        if isinstance(node, ast.Name):
            return self._follow(module, node.id, depth)
        if isinstance(node, ast.Attribute):
            base = self._resolve(module, node.value, depth)
            if isinstance(base, ModuleName):
                return self._member(base.name, node.attr, depth)
        return None

    def _follow(self, module: Module, name: str, depth: int) -> SdkName | ProjectName | ModuleName | None:
        bindings = module.bindings.get(name)
        if bindings:
            # `try: from x import y; except ImportError: y = None` means x's.
            sure = [each for each in bindings if not (isinstance(each, Assigned) and each.in_block)]
            last = (sure or bindings)[-1]
            if isinstance(last, Assigned) and len(bindings) == 1 and depth:
                aliased = self._resolve(module, last.value, depth - 1)
                if isinstance(aliased, SdkName):  # `Endpoint = runpod_flash.Endpoint`
                    return aliased
            if not isinstance(last, Imported):
                return ProjectName(module, name)
            if last.attribute is None:
                return ModuleName(last.module)
            return self._member(last.module, last.attribute, depth)
        for star in module.stars:
            if star == SDK and name in runpod_flash.__all__:
                return SdkName(name)
            if star in self.modules and depth:
                found = self._follow(self.modules[star], name, depth - 1)
                if found is not None:
                    return found
        return None

    def _member(self, module: str, name: str, depth: int) -> SdkName | ProjectName | ModuleName | None:
        if module == SDK or module.startswith(f"{SDK}."):
            return SdkName(name)
        if module in self.modules and name in self.modules[module].bindings and depth:
            return self._follow(self.modules[module], name, depth - 1)
        return ModuleName(f"{module}.{name}")

    def evaluate(self, module: Module, node: ast.expr, depth: int = _DEEPEST) -> Any:
        """The expression's value. Raises `Unknowable`, or `BadValue` if the SDK refuses the value."""
        if not depth:
            raise Unknowable(module, node)

        def value(part: ast.expr) -> Any:
            return self.evaluate(module, part, depth - 1)

        def spread(parts: list[ast.expr]) -> list[Any]:
            found: list[Any] = []
            for part in parts:
                found += list(value(part.value)) if isinstance(part, ast.Starred) else [value(part)]
            return found

        try:
            match node:
                case ast.Constant():
                    return node.value
                case ast.List():
                    return spread(node.elts)
                case ast.Tuple():
                    return tuple(spread(node.elts))
                case ast.Set():
                    return set(spread(node.elts))
                case ast.Dict():
                    merged: dict[Any, Any] = {}
                    for key, each in zip(node.keys, node.values, strict=True):
                        merged.update({value(key): value(each)} if key is not None else value(each))
                    return merged
                case ast.UnaryOp() if type(node.op) in _OPERATORS:
                    return _OPERATORS[type(node.op)](value(node.operand))
                case ast.BinOp() if type(node.op) in _OPERATORS:
                    return _combined(_OPERATORS[type(node.op)], value(node.left), value(node.right))
                case ast.JoinedStr():
                    return "".join(value(part) for part in node.values)
                case ast.FormattedValue(conversion=-1, format_spec=None):
                    return str(_plain(value(node.value)))
                case ast.Subscript():
                    return value(node.value)[value(node.slice)]
                case ast.Name() | ast.Attribute():
                    return self._named(module, node, depth)
                case ast.Call():
                    return self._called(module, node, spread(node.args), depth)
        except Unknowable as error:
            if error.node in (getattr(node, "value", None), getattr(node, "func", None)):
                raise Unknowable(module, node) from None  # `os.environ["A"]` says more than `os`
            raise
        except (TypeError, ArithmeticError, LookupError, ValueError) as error:
            if isinstance(error, ValueError) and isinstance(node, ast.Call):
                raise BadValue(module, node, str(error)) from None
            raise Unknowable(module, node) from error
        raise Unknowable(module, node)

    def arguments(self, module: Module, call: ast.Call) -> dict[str, Any]:
        """The values of a call's keyword arguments, including `**mapping`. Raises like `evaluate`."""
        found: dict[str, Any] = {}
        for keyword in call.keywords:
            value = self.evaluate(module, keyword.value)
            if keyword.arg is not None:
                found[keyword.arg] = value
            elif isinstance(value, dict):
                found.update(value)
            else:
                raise Unknowable(module, keyword.value)
        return found

    def _named(self, module: Module, node: ast.Name | ast.Attribute, depth: int) -> Any:
        found = self.resolve(module, node)
        if isinstance(found, ProjectName):
            bindings = found.module.bindings[found.name]
            only = bindings[0] if len(bindings) == 1 else None
            fixed = (
                isinstance(only, Assigned) and not only.in_block and found.name not in found.module.changed
            )
            if fixed and isinstance(only, Assigned) and only.value is not None:
                value = self.evaluate(found.module, only.value, depth - 1)
                if not isinstance(value, list | dict | set) or found.name not in found.module.lent:
                    return value
        elif isinstance(found, SdkName):
            return _sdk(module, node, found.name)
        elif isinstance(node, ast.Attribute):
            base = self.evaluate(module, node.value, depth - 1)
            if isinstance(base, type) and issubclass(base, Enum):
                if node.attr in base.__members__:
                    return base[node.attr]
                if node.attr not in _VALUE_METHODS:
                    known = ", ".join(base.__members__)
                    raise BadValue(module, node, f"{base.__name__} has no {node.attr!r}. It has {known}")
            if isinstance(base, Enum) and node.attr in ("value", "name"):
                return getattr(base, node.attr)
        raise Unknowable(module, node)

    def _called(self, module: Module, call: ast.Call, args: list[Any], depth: int) -> Any:
        function = call.func
        options = {
            each.arg: self.evaluate(module, each.value, depth - 1) for each in call.keywords if each.arg
        }
        if len(options) == len(call.keywords):
            found = self.resolve(module, function)
            if isinstance(found, SdkName) and found.name != "Endpoint":
                return _sdk(module, function, found.name)(*args, **options)
            if isinstance(function, ast.Attribute) and function.attr in _VALUE_METHODS:
                base = self.evaluate(module, function.value, depth - 1)
                if isinstance(base, type) and issubclass(base, Enum) and hasattr(base, function.attr):
                    return getattr(base, function.attr)(*args, **options)
            if found is None and isinstance(function, ast.Name) and function.id in _BUILTINS:
                return _BUILTINS[function.id](*args, **options)
        raise Unknowable(module, call)


def _sdk(module: Module, node: ast.expr, name: str) -> Any:
    try:
        return getattr(runpod_flash, name)
    except AttributeError as error:
        raise BadValue(module, node, str(error)) from None


def _combined(operation: Callable[..., Any], left: Any, right: Any) -> Any:
    # Only numbers are multiplied, so that no source makes a string of a terabyte.
    if operation is not operator.add and not all(isinstance(each, int | float) for each in (left, right)):
        raise TypeError
    return operation(left, right)


def _plain(value: Any) -> Any:
    if not isinstance(value, str | int | float) or isinstance(value, Enum):
        raise TypeError
    return value
