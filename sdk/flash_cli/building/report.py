"""The report of `flash build`: the endpoints with their routes, sizes, and the next command to run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flash_cli.application import DeclaredEndpoint
from flash_cli.building.build import Built
from flash_cli.project import Project
from flash_runtime.artifact.contract import variable
from flash_runtime.config.settings import Settings

_MOST_ROUTES = 12
"""How many routes of one endpoint are shown, so that the table fits a screen."""


def show(built: Built, project: Project, console: Console) -> None:
    """Print the report."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("endpoint", "kind", "route", "handler"):
        table.add_column(column, no_wrap=column in ("endpoint", "kind"))
    for endpoint in (*built.application.endpoints, *built.application.clients):
        name, kind = endpoint.name, _kind(endpoint)
        for route, handler in _rows(endpoint):
            table.add_row(*(Text(each) for each in (name, kind, route, handler)))
            name = kind = ""
    console.print(table)
    packages = f", {counted(len(built.packages), 'package')}" if built.packages else ""
    console.print(
        Text(
            f"{_shown(built.artifact)}  {size(built.packed.size)}, {size(built.packed.unpacked)} unpacked: "
            f"{counted(built.files, 'file')}{packages}"
        ),
        soft_wrap=True,
    )
    for note in built.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    console.print(Text(f"next: {next_command(built, project)}"), soft_wrap=True)


def size(count: int) -> str:
    """A number of bytes for people, such as `4.1 kB`."""
    number = float(count)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def counted(number: int, word: str) -> str:
    """A number with its word, such as `1 file` or `2 files`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def next_command(built: Built, project: Project) -> str:
    """The next command to run: a deployment if an environment is configured, or else a container."""
    environments = project.config.get("env")
    if isinstance(environments, dict) and environments:
        return f"flash deploy --env {shlex.quote(next(iter(environments)))}"
    served = [each for each in built.application.endpoints if each.is_load_balanced]
    kind = "cpu" if all(each.is_cpu for each in built.application.endpoints) else "cuda"
    resource = f" -e {variable('resource_name')}={shlex.quote(served[0].name)}" if len(served) > 1 else ""
    mount = shlex.quote(f"{built.artifact}:{Settings.from_environ({}).artifact_path}:ro")
    return f"docker run -p 8000:80{resource} -v {mount} flash-runtime:{kind}"


def _kind(endpoint: DeclaredEndpoint) -> str:
    if not endpoint.functions:
        return "image"
    how = "load-balanced" if endpoint.is_load_balanced else "queue-based"
    return f"{how}, {'CPU' if endpoint.is_cpu else 'GPU'}"


def _rows(endpoint: DeclaredEndpoint) -> Iterator[tuple[str, str]]:
    for function in endpoint.functions[:_MOST_ROUTES]:
        route = f"{function.method} {function.path}" if function.path is not None else ""
        yield route, f"{function.module}.{function.name}"
    more = len(endpoint.functions) - _MOST_ROUTES
    if more > 0:
        yield f"and {more} more", ""
    if not endpoint.functions:
        yield "", str(endpoint.options.get("image"))


def _shown(path: Path) -> str:
    """The path, or the relative path if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)
