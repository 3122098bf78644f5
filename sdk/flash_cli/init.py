"""`flash init`: writes a small project that can be served, tested, built and deployed as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flash_cli.faults import ConfigFault, OutputFault
from flash_cli.sample_calls import Call, curl

_MAIN = '''"""The application: an endpoint with routes, and a function that takes jobs from a queue."""

from runpod_flash import Endpoint

api = Endpoint(name="{name}", cpu="cpu3c-1-2", workers=(1, 3))


@api.get("/hello")
async def hello(name: str = "world"):
    """Greets somebody. The name is a query parameter."""
    return {{"message": f"Hello, {{name}}!"}}


@api.post("/words")
async def words(text: str):
    """Counts the words of a text. The text is in the JSON body."""
    return {{"count": len(text.split())}}


@api.get("/items/{{item_id}}")
def item(item_id: int):
    """Finds an item. Its number is in the path."""
    return {{"id": item_id}}


@Endpoint(name="{name}-summary", cpu="cpu3c-1-2")
async def summarize(text: str):
    """Takes a job, and returns the first sentence of its text."""
    return {{"summary": text.partition(".")[0]}}
'''

_PYPROJECT = """[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
# Packages that the modules import, besides runpod_flash and FastAPI. Each Endpoint can add its own with
# dependencies=[…].
dependencies = []

# Where `flash deploy --env production` goes.
[tool.flash.env.production]
target = "docker"
"""

_README = """# {name}

```console
$ flash run                  # serve it at http://localhost:8888, with reload and /docs
$ flash build                # package it: .flash/artifact.tar.gz
$ flash deploy --env production
```

```console
$ {hello}
{{"message":"Hello, Alice!"}}
$ {words}
{{"count":2}}
```
"""

_GITIGNORE = """.flash/
.venv/
__pycache__/
.env
"""

_FILES = {"main.py": _MAIN, "pyproject.toml": _PYPROJECT, "README.md": _README, ".gitignore": _GITIGNORE}


def write_project(directory: Path, name: str) -> str:
    """Write the project `name` into `directory/name`, or into `directory` itself if the name is `.`.

    Returns what to do next. Raises `ConfigFault` if the name cannot be used, and `OutputFault` if one of the
    files exists already or cannot be written. Existing files are never changed.
    """
    place = directory / name
    named = os.path.basename(os.path.realpath(directory)) if name == "." else name  # noqa: PTH119
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?", named):
        raise ConfigFault(
            f"{named!r} cannot be a project's name. The name is part of URLs and of container names.",
            where="NAME",
            remedy="use up to 50 lower-case letters, digits and hyphens, such as my-app.",
        )
    existing = [file for file in _FILES if os.path.lexists(place / file)]
    if existing:
        raise OutputFault(
            f"There is a {existing[0]} already. Nothing was written.",
            where=str(place / existing[0]),
            remedy="choose another name, or move the file away.",
        )
    url = f"http://localhost:8888/{named}"
    hello = curl(url, Call("GET", "/hello", {"name": "Alice"}))
    words = curl(url, Call("POST", "/words", body={"text": "one two"}))
    try:
        place.mkdir(parents=True, exist_ok=True)
        for file, text in _FILES.items():
            # "x" fails if the file was made in the meantime, or is a link.
            with (place / file).open("x", encoding="utf-8") as out:
                out.write(text.format(name=named, hello=hello, words=words))
    except OSError as error:
        raise OutputFault(
            f"The project cannot be written: {error.strerror}.",
            where=str(error.filename or place),
            remedy="choose a directory that you can write to.",
        ) from error
    step = "" if name == "." else f"  cd {place}\n"
    return f"Wrote {', '.join(_FILES)}. Next:\n{step}  flash run"
