"""Finds imports of project files that the build leaves out: a worker could not start without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from flash_cli.discovery.declarations import Declaration
from flash_cli.discovery.source import Module
from flash_cli.faults import Problem


def missing(
    root: Path, modules: Mapping[str, Module], declarations: Iterable[Declaration]
) -> Iterator[Problem]:
    """A problem for each import of a file that is not packed, in the modules that these endpoints need.

    Imports in a function, a `try` or an `if` are ignored, since they may never run.
    """
    waiting = [use.module for each in declarations for use in each.uses]
    seen = {module.name for module in waiting}
    absent: dict[str, str | None] = {}
    while waiting:
        module = waiting.pop()
        for statement, dotted, in_block in module.imports():
            for name in () if in_block else _prefixes(dotted):
                if name in modules:
                    if name not in seen:
                        seen.add(name)
                        waiting.append(modules[name])
                    continue
                if name not in absent:
                    absent[name] = _file(root, name)
                if absent[name] is not None:
                    yield Problem(
                        module.place(statement),
                        f"imports `{name}`, and {absent[name]} is left out of the build",
                        "remove the file from .gitignore (`!tests/` brings tests back), or remove the import",
                    )


def _prefixes(dotted: str) -> Iterator[str]:
    parts = dotted.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _file(root: Path, name: str) -> str | None:
    """The project's file of this module, if there is one."""
    path = "/".join(name.split("."))
    files = (f"{path}.py", f"{path}/__init__.py")
    return next((each for each in files if (root / each).is_file()), None)
