"""Endpoints as they are being gathered, from the source and where that does not say from the live module."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import runpod_flash
from flash_cli.application import Function, Place
from flash_cli.discovery.placement import placement_of
from flash_cli.discovery.source import Definition, Module
from flash_cli.faults import Problem


@dataclass(frozen=True, slots=True)
class Use:
    """One decorator on a function or class: of a route where it has a method and a path."""

    module: Module
    definition: Definition
    place: Place
    method: str | None = None
    path: Any = None

    def function(self) -> Function:
        """The record that the manifest is written from."""
        node = self.definition
        methods = tuple(_public_methods(node)) if isinstance(node, ast.ClassDef) else ()
        return Function(
            name=node.name,
            module=self.module.name,
            place=Place(self.module.path, node.lineno),
            # A class is asynchronous where one of its methods is, as the vendor has it.
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
        """The names that the function takes; None where it takes any."""
        if isinstance(self.definition, ast.ClassDef) or self.definition.args.kwarg is not None:
            return None
        args = self.definition.args
        return frozenset(each.arg for each in (*args.posonlyargs, *args.args, *args.kwonlyargs))


@dataclass(slots=True)
class Declaration:
    """One `Endpoint(...)` of the source. What it is given is known later than where it is."""

    place: Place
    last_line: int
    variable: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """All of the constructor's arguments, `name` among them."""
    uses: list[Use] = field(default_factory=list)
    is_known: bool = False
    """Whether `options` are what it is given; else it is doubtful or refused."""

    @property
    def routes(self) -> list[Use]:
        return [use for use in self.uses if use.method is not None]

    @property
    def name(self) -> Any:
        """As given, or that of the function that it decorates."""
        given = self.options.get("name")
        if given is None and self.uses and not self.routes:
            return self.uses[0].definition.name
        return given

    def problem(self) -> Problem | None:
        """What the SDK says of its arguments, by making such an `Endpoint` and placing it."""
        try:
            endpoint = runpod_flash.Endpoint(**self.options)
            json.dumps(dict(placement_of(endpoint, bool(self.routes), "3.12")))
        except (AttributeError, TypeError, ValueError) as error:
            # The SDK names the line that called it, which is one above, and no one's to mend.
            text = re.sub(rf" at {re.escape(__file__)}:\d+", "", str(error))
            text = text.replace("Endpoint.__init__()", "Endpoint()")
            what, _, fix = text.partition(" Fix: ")
            return Problem(self.place, what, fix or "mend the arguments of this Endpoint")
        return None


def _required(args: ast.arguments) -> Iterator[tuple[str, str]]:
    positional = [*args.posonlyargs, *args.args]
    without = [*positional[: len(positional) - len(args.defaults)]]
    without += [each for each, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if not default]
    for each in without:
        yield each.arg, ast.unparse(each.annotation) if each.annotation else ""


def _public_methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Methods that are called on an instance: no properties, static or class methods."""
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
