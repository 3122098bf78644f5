"""The manifest: reads JSON as a frozen `Manifest`, or raises a fault that names every place that is wrong.

The format is version 1.0 as `flash build` of runpod-flash 1.21.0 writes it. The models below are its only
description: `python -m flash_runtime.artifact.manifest` prints `manifest_schema.json` from them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flash_runtime.artifact.paths import path_problems
from flash_runtime.errors import ManifestFault

log = logging.getLogger("flash_runtime.manifest")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SUPPORTED_VERSION = "1.0"
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"

_MOST_PROBLEMS = 50
_LARGEST_BYTES = 16 * 1024 * 1024
_EXTENSION_TAG = re.compile(r"\.cpython-(\d)(\d+)[a-z]*-[^/]*\.so$")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Function(_Part):
    """A function of the user. With a method and a path, it is a handler."""

    name: str = Field(
        min_length=1,
        max_length=200,
        title="Name",
        description="The function's name in its module.",
        examples=["create_user"],
    )
    module: str = Field(
        min_length=1,
        max_length=200,
        title="Module",
        description="The module that defines it, as imported from the application's directory.",
        examples=["api", "services.users"],
    )
    is_async: bool = Field(
        default=False,
        title="Is async",
        description="Whether it was written with `async def`. Workers look at the function itself.",
    )
    is_class: bool = Field(
        default=False, title="Is class", description="Whether it is a class (of a queue-based resource)."
    )
    http_method: str | None = Field(
        default=None,
        title="HTTP method",
        description="GET, POST, PUT, PATCH or DELETE. Absent if the function is not a handler.",
        examples=["POST"],
        json_schema_extra={"enum": [*METHODS, None]},
    )
    http_path: str | None = Field(
        default=None,
        title="HTTP path",
        description="Starts with `/`. Names in braces are parameters of the function.",
        examples=["/users/{user_id}"],
        json_schema_extra={"pattern": "^/"},
    )


class Resource(_Part):
    """One `Endpoint` of the application. Keys about its place on a platform are kept, but not read."""

    resource_type: str = Field(
        default="", title="Type", description="The vendor's class.", examples=["CpuLiveLoadBalancer"]
    )
    is_load_balanced: bool = Field(
        default=False,
        title="Is load-balanced",
        description="Whether it serves HTTP routes. Other resources run jobs.",
    )
    functions: tuple[Function, ...] = Field(
        default=(), title="Functions", description="Its functions and classes."
    )
    file_path: str | None = Field(
        default=None,
        title="File",
        description="The file that declares it, relative to the project's root.",
        examples=["api.py"],
    )
    module_path: str | None = Field(
        default=None, title="Module", description="That file as a module.", examples=["api"]
    )
    target_python_version: str | None = Field(
        default=None,
        title="Python version",
        description="The Python version that it was built for.",
        examples=["3.12"],
    )


class Manifest(_Part):
    """The content of a packaged application: `flash_manifest.json` at the top of the artifact."""

    model_config = ConfigDict(title="Flash manifest")

    version: str = Field(
        default=SUPPORTED_VERSION,
        title="Format version",
        description="The version of this format.",
        examples=[SUPPORTED_VERSION],
    )
    project_name: str = Field(
        default="application",
        title="Project",
        description="The application's name, and the title of its API document.",
        examples=["shop"],
    )
    python_version: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+$",
        title="Python version",
        description="The Python version that the artifact's packages were built for.",
        examples=["3.12"],
    )
    generated_at: str | None = Field(
        default=None,
        title="Time of the build",
        description="ISO 8601, UTC.",
        examples=["2026-01-31T12:00:00Z"],
    )
    resources: dict[str, Resource] = Field(
        title="Resources", description="Each resource by its name.", examples=[{"shop-api": {}}]
    )
    function_registry: dict[str, str] = Field(
        default={},
        title="Function registry",
        description="The resource of each function.",
        examples=[{"create_user": "shop-api"}],
    )
    routes: dict[str, dict[str, str]] = Field(
        default={},
        title="Routes",
        description="By resource: `METHOD /path` and the function's name. Repeats what the functions say.",
        examples=[{"shop-api": {"POST /users": "create_user"}}],
    )


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the manifest."""
    return {"$schema": SCHEMA_ID, **Manifest.model_json_schema()}


def load(path: Path, reserved: Sequence[str], where: str | None = None) -> Manifest:
    """Read the manifest. Handlers cannot have the paths `reserved`. `where` names the manifest in a fault.

    Raises `ManifestFault` with every problem, each after its JSON path.
    """
    where = where or str(path)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ManifestFault(
            f"The manifest cannot be read: {error.strerror}.",
            where=where,
            remedy="serve an artifact that `flash build` wrote, or set FLASH_MANIFEST_PATH.",
        ) from error
    if len(text) > _LARGEST_BYTES:
        raise ManifestFault(f"The manifest is larger than {_LARGEST_BYTES} bytes.", where=where)
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        _refuse([f"{_json_path(each['loc'])}: {each['msg']}" for each in error.errors()], where)
    problems = list(_problems(manifest, frozenset(reserved)))
    if problems:
        _refuse(problems, where)
    if manifest.version != SUPPORTED_VERSION:
        log.warning(
            "the manifest's format has version %s, and this runtime supports %s",
            manifest.version,
            SUPPORTED_VERSION,
        )
    return manifest


def check_python(manifest: Manifest, app_dir: Path) -> None:
    """Compare the Python that the artifact was built for with this one.

    Logs a warning if they differ. Raises `ManifestFault` if the application has compiled extensions that this
    interpreter cannot load.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    built = manifest.python_version
    if built is None or built == here:
        return
    unusable = list(_unusable_extensions(app_dir))
    if unusable:
        shown = ", ".join(unusable[:3]) + (", …" if len(unusable) > 3 else "")
        raise ManifestFault(
            f"The artifact was built for Python {built}, and this is Python {here}, which cannot import its "
            f"compiled extensions ({shown}).",
            where="$.python_version",
            remedy=f"use the image for Python {built}, or build with `flash build --python-version {here}`.",
        )
    log.warning("the artifact was built for Python %s, and this is Python %s", built, here)


def _refuse(problems: Sequence[str], where: str) -> NoReturn:
    more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    raise ManifestFault(
        "The manifest cannot be served.",
        where=where,
        remedy="build again with `flash build`, or correct these places if you wrote the manifest by hand:",
        problems=(*problems[:_MOST_PROBLEMS], *more),
    )


def _json_path(location: Iterable[str | int]) -> str:
    path = "$"
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if part.isidentifier() else f"[{json.dumps(part, ensure_ascii=False)}]"
    return path


def _problems(manifest: Manifest, reserved: frozenset[str]) -> Iterator[str]:
    """Problems that the schema cannot express."""
    for name, resource in manifest.resources.items():
        if not resource.is_load_balanced:
            continue
        seen: dict[tuple[str, str], str] = {}
        for index, function in enumerate(resource.functions):
            at = _json_path(("resources", name, "functions", index))
            if function.http_method is None and function.http_path is None:
                continue
            yield from _handler_problems(function, at, reserved)
            route = (str(function.http_method).upper(), str(function.http_path))
            if route in seen:
                yield f"{at}: {' '.join(route)} is already the route of {seen[route]}"
            seen.setdefault(route, f"`{function.name}`")


def _handler_problems(function: Function, at: str, reserved: frozenset[str]) -> Iterator[str]:
    method, path = function.http_method, function.http_path
    if method is None:
        yield f"{at}.http_method: is missing, although there is an http_path"
    elif method.upper() not in METHODS:
        yield f"{at}.http_method: {method!r} is not one of {', '.join(METHODS)}"
    if path is None:
        yield f"{at}.http_path: is missing, although there is an http_method"
    elif not path.startswith("/"):
        yield f"{at}.http_path: {path!r} does not start with `/`"
    elif path in reserved:
        yield f"{at}.http_path: {path!r} is reserved for the runtime"
    else:
        for problem in path_problems(path):
            yield f"{at}.http_path: {problem}"
    if function.module.endswith(".py"):
        yield f"{at}.module: {function.module!r} is a file name. Its module is {function.module[:-3]!r}"
    elif not all(function.module.split(".")):
        yield f"{at}.module: {function.module!r} is not a module name"


def _unusable_extensions(app_dir: Path) -> Iterator[str]:
    """Modules that are compiled for other versions of Python, and not for this one."""
    here = (str(sys.version_info.major), str(sys.version_info.minor))
    for directory, _, names in os.walk(app_dir):
        tags: dict[str, set[tuple[str, str]]] = {}
        for name in names:
            found = _EXTENSION_TAG.search(name)
            if found:
                tags.setdefault(name[: found.start()], set()).add((found[1], found[2]))
        for stem, versions in sorted(tags.items()):
            if here not in versions:
                yield str(Path(directory, stem).relative_to(app_dir))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
