"""Values that the source alone does not say: a module is imported in a process of its own, and read there.

What comes back is text: each argument as an expression of Python's, which `values.py` reads as it reads the
source. Nothing that user code made is unpickled here, and what it prints goes nowhere.
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
"""Seconds that a module may take, as at the vendor's."""


@dataclass(frozen=True, slots=True)
class LiveFunction:
    """A function or a class that was decorated; with a method and a route it is a handler."""

    path: str
    line: int
    """Where a module's top level decorated it."""
    module: str
    name: str
    """What it says of itself; a wrapper may say something else."""
    method: str | None
    route: str | None


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """An `Endpoint` that was made while a module was imported, at a line of the file `path`."""

    path: str
    line: int
    variable: str | None
    arguments: dict[str, str]
    """By name, each an expression."""
    opaque: dict[str, str]
    """Arguments that no expression stands for: what they are."""
    functions: tuple[LiveFunction, ...]


class ImportFailed(Exception):
    """The module could not be imported; the text is one line."""


def endpoints_of(root: Path, module: str) -> tuple[LiveEndpoint, ...]:
    """Import `module` of the project in `root` in a child process. Raises `ImportFailed`."""
    with tempfile.TemporaryDirectory(prefix="flash-") as scratch:
        answer = Path(scratch) / "answer.json"
        command = [
            sys.executable,
            "-P",
            "-m",
            "flash_cli.discovery.live_child",
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
            # What user code starts ends with it.
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
                pass  # macOS says EPERM of a group that has ended
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
