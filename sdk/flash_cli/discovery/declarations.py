"""Declarations: endpoints while discovery collects them, from the source or from an imported module."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import runpod_flash
from flash_cli.application import Function, Place
from flash_cli.discovery.source import Definition, Module
from flash_cli.discovery.vendor_keys import placement_of
from flash_cli.faults import Problem


@dataclass(frozen=True, slots=True)
class Use:
    """One decorator on a function or class. With a method and a path it is a route."""

    module: Module
    definition: Definition
    place: Place
    method: str | None = None
    path: Any = None

    def function(self) -> Function:
        """The record for the manifest."""
        node = self.definition
        methods = tuple(_public_methods(node)) if isinstance(node, ast.ClassDef) else ()
        return Function(
            name=node.name,
            module=self.module.name,
            place=Place(self.module.path, node.lineno),
            # As at the vendor's, a class is asynchronous if one of its methods is.
            is_async=isinstance(node, ast.AsyncFunctionDef)
            or any(isinstance(each, ast.AsyncFunctionDef) for each in methods),
            is_class=self.is_class,
            class_methods=tuple(each.name for each in methods),
            method=self.method,
            path=self.path,
            summary=(ast.get_docstring(node) or "").partition("\n")[0].strip(),
            required=() if isinstance(node, ast.ClassDef) else tuple(_required(node.args)),
        )

    @property
    def is_class(self) -> bool:
        return isinstance(self.definition, ast.ClassDef)

    @property
    def parameters(self) -> frozenset[str] | None:
        """The names of the function's parameters, or `None` if it takes any."""
        if isinstance(self.definition, ast.ClassDef) or self.definition.args.kwarg is not None:
            return None
        args = self.definition.args
        return frozenset(each.arg for each in (*args.posonlyargs, *args.args, *args.kwonlyargs))


@dataclass(slots=True)
class Declaration:
    """One `Endpoint(...)` of the source. Its place is known first, and its arguments later."""

    place: Place
    last_line: int
    variable: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """The constructor's arguments by name, including `name`."""
    uses: list[Use] = field(default_factory=list)
    is_known: bool = False
    """Whether `options` has the real arguments. Otherwise they are unknown or refused."""

    @property
    def routes(self) -> list[Use]:
        return [use for use in self.uses if use.method is not None]

    @property
    def name(self) -> Any:
        """The given name, or the name of the function that the endpoint decorates."""
        given = self.options.get("name")
        if given is None and self.uses and not self.routes:
            return self.uses[0].definition.name
        return given

    def problem(self) -> Problem | None:
        """The SDK's error for these arguments, found by making such an `Endpoint`."""
        try:
            endpoint = runpod_flash.Endpoint(**self.options)
            json.dumps(dict(placement_of(endpoint, bool(self.routes), "3.12")))
        except (AttributeError, TypeError, ValueError) as error:
            # The SDK names the line that called it, which is the one above and not the user's.
            text = re.sub(rf" at {re.escape(__file__)}:\d+", "", str(error))
            text = text.replace("Endpoint.__init__()", "Endpoint()")
            what, _, fix = text.partition(" Fix: ")
            return Problem(self.place, what, fix or _correction(self.options))
        return None


def _correction(options: Mapping[str, Any]) -> str:
    """What to do about arguments that `Endpoint` refuses: the nearest name for an unknown one."""
    from difflib import get_close_matches  # only a problem needs it
    from inspect import signature

    known = signature(runpod_flash.Endpoint).parameters
    for name in options:
        if name not in known and (nearest := get_close_matches(name, known, 1)):
            return f"write `{nearest[0]}` in place of `{name}`"
    return "correct the arguments of this Endpoint"


def _required(args: ast.arguments) -> Iterator[tuple[str, str]]:
    positional = [*args.posonlyargs, *args.args]
    without = [*positional[: len(positional) - len(args.defaults)]]
    without += [each for each, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if not default]
    for each in without:
        yield each.arg, ast.unparse(each.annotation) if each.annotation else ""


def _public_methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public methods of instances, without properties, static methods and class methods."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_"):
            words = {
                part.id
                for mark in each.decorator_list
                for part in ast.walk(mark)
                if isinstance(part, ast.Name)
            }
            if not words & {"property", "staticmethod", "classmethod", "cached_property"}:
                yield each
