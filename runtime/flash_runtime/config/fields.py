"""Records whose fields say where their values come from: a name, a parser and a default each.

`source` describes such a field, and `read` finds the values of all of them. The worker reads its settings
this way from the environment, and the command its deployment environments from pyproject.toml.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_METADATA = "source"
_MISSING = object()

Parser = Callable[[Any], Any]
"""Takes a given value and returns the field's value, or raises `Refused`."""


class Refused(Exception):
    """A value is not allowed. The text says what is."""


class Problem(NamedTuple):
    """A given value that its parser refuses."""

    name: str
    value: Any
    parse: Parser
    allowed: str


def source(
    name: str, parse: Parser, default: Any = None, fallbacks: Mapping[str, Parser] | None = None
) -> dict[str, Any]:
    """The metadata of a dataclass's field that `read` gives its value.

    Args:
        name: the variable or key that gives the value.
        parse: makes the field's value of it.
        default: the value if nothing is given. A function is called with the values of the fields before.
        fallbacks: names, each with its parser, that count in this order if `name` is not given.
    """
    return {_METADATA: ({name: parse, **(fallbacks or {})}, default)}


def names(record: type[Any]) -> tuple[str, ...]:
    """Every name that gives a value to a field of this dataclass."""
    return tuple(name for _, parsers, _ in _sources(record) for name in parsers)


def name_of(record: type[Any], field: str) -> str:
    """The first of the names that give a value to this field. Raises `KeyError` for an unknown field."""
    parsers = {name: each for name, each, _ in _sources(record)}[field]
    return next(iter(parsers))


def read(record: type[Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The values of a dataclass's fields, by field name, and every given value that is not allowed.

    A field whose value is refused gets its default. Every name is parsed, also one that does not count.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for field, parsers, default in _sources(record):
        value = _MISSING
        for name, parse in parsers.items():
            if name in given:
                try:
                    parsed = parse(given[name])
                except Refused as refused:
                    problems.append(Problem(name, given[name], parse, str(refused)))
                else:
                    value = parsed if value is _MISSING else value
        if value is _MISSING:
            value = default(values) if callable(default) else default
        values[field] = value
    return values, problems


def _sources(record: type[Any]) -> list[tuple[str, Mapping[str, Parser], Any]]:
    """Each field that `source` describes: its name, the parser of each name that gives it, its default."""
    return [
        (field.name, *field.metadata[_METADATA])
        for field in dataclasses.fields(record)
        if _METADATA in field.metadata
    ]
