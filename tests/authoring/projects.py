"""Small projects for tests of the authoring side, written from the text of their files."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from flash_cli.application import Application, DeclaredEndpoint
from flash_cli.discovery.discover import discover
from flash_cli.project import Project

HELLO = """
    from runpod_flash import Endpoint

    api = Endpoint(name="hello", cpu="cpu3c-1-2")

    @api.get("/hello")
    def hello():
        return {"hello": "world"}
"""


def write(root: Path, files: Mapping[str, str | bytes]) -> Project:
    """A project of these files, each path from the root with its text."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, str):
            path.write_text(textwrap.dedent(text).lstrip("\n"))
        else:
            path.write_bytes(text)
    return Project.find(root)


def discovered(root: Path, main: str, **others: str) -> Application:
    """What a project of `main.py` and other modules declares; `a__b="…"` is the file `a/b.py`."""
    files = {f"{name.replace('__', '/')}.py": text for name, text in {"main": main, **others}.items()}
    return discover(write(root, files))


def routes(endpoint: DeclaredEndpoint) -> list[str]:
    """Each function of an endpoint in a line: `GET /path module.name`."""
    return [
        " ".join(filter(None, (each.method, each.path, f"{each.module}.{each.name}")))
        for each in endpoint.functions
    ]
