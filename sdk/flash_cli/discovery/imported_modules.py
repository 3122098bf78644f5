"""Imported modules: imports a module in a child process, for values that its source does not state.

The child returns text: each argument as a Python expression, which `values.py` reads like source. So no data
from user code is unpickled here. The output of user code is discarded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIME_LIMIT = 30.0
"""How many seconds the import of a module may take, as at the vendor's."""


@dataclass(frozen=True, slots=True)
class LiveFunction:
    """A decorated function or class. With a method and a route it is a handler."""

    path: str
    line: int
    """The line of a module's top level that decorated it."""
    module: str
    name: str
    """Its own name. A wrapper may have another one."""
    method: str | None
    route: str | None


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """An `Endpoint` that was made during the import of a module, at a line of the file `path`."""

    path: str
    line: int
    variable: str | None
    arguments: dict[str, str]
    """The arguments by name, each as an expression."""
    opaque: dict[str, str]
    """The arguments that cannot be written as an expression, each with what it is."""
    functions: tuple[LiveFunction, ...]


class ImportFailed(Exception):
    """The module could not be imported. The text is one line."""


def endpoints_of(root: Path, module: str) -> tuple[LiveEndpoint, ...]:
    """Import `module` of the project in `root` in a child process. Raises `ImportFailed`."""
    with tempfile.TemporaryDirectory(prefix="flash-") as scratch:
        answer = Path(scratch) / "answer.json"
        command = [
            sys.executable,
            "-P",
            "-m",
            "flash_cli.discovery.import_child",
            str(root),
            module,
            str(answer),
        ]
        process = subprocess.Popen(  # noqa: S603  this interpreter and a module of ours
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own, so that processes of user code end with it.
            start_new_session=True,
        )
        try:
            code = process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            raise ImportFailed(f"it was not done within {TIME_LIMIT:g} seconds") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # macOS reports EPERM for a group that has ended
            process.wait()
        try:
            document = json.loads(answer.read_bytes())
        except (OSError, ValueError):
            end = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ImportFailed(f"the process ended with {end}") from None
    return _read(document)


def _read(document: dict[str, Any]) -> tuple[LiveEndpoint, ...]:
    if "error" in document:
        raise ImportFailed(str(document["error"]))
    return tuple(
        LiveEndpoint(
            str(each["path"]),
            int(each["line"]),
            each["variable"],
            dict(each["arguments"]),
            dict(each["opaque"]),
            tuple(LiveFunction(*function) for function in each["functions"]),
        )
        for each in document["endpoints"]
    )
