"""The development mode: runs source code that a caller sends. Only with FLASH_LIVE=1."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from flash_runtime.errors import CallFault
from flash_runtime.rpc.invocation import Invocation
from flash_runtime.usercode.tracebacks import text_of

_lock = threading.Lock()
_places: dict[tuple[tuple[str, str], ...], Path] = {}


def define(invocation: Invocation) -> Callable[..., Any]:
    """The function or class that the call's source code defines. Raises `CallFault`."""
    if invocation.source is None:
        raise CallFault(400, "The request has `modules`, but no source code that uses them.")
    if invocation.modules:
        _make_importable(invocation.modules)
    namespace: dict[str, Any] = {"__name__": f"flash_live_{invocation.name}"}
    try:
        exec(compile(invocation.source, f"<{invocation.name}>", "exec"), namespace)  # noqa: S102  the mode's purpose
    except BaseException as error:  # user code may raise anything
        raise CallFault(400, f"The source code cannot be run: {text_of(error)}.") from error
    found = namespace.get(invocation.name)
    if not callable(found) or invocation.is_class is not isinstance(found, type):
        kind = "class" if invocation.is_class else "function"
        raise CallFault(400, f"The source code does not define a {kind} `{invocation.name}`.")
    return found  # type: ignore[no-any-return]


def _make_importable(modules: dict[str, str]) -> None:
    """Put these modules, named by their POSIX paths, before all others on `sys.path`. Raises `CallFault`."""
    key = tuple(sorted(modules.items()))
    with _lock:
        place = _places.get(key)
        if place is None:
            place = _places[key] = _written(modules)
        if sys.path[0] == str(place):
            return
        if str(place) in sys.path:
            sys.path.remove(str(place))
        sys.path.insert(0, str(place))
        # Forget other versions of these modules.
        packages = {PurePosixPath(name).parts[0].removesuffix(".py") for name in modules}
        for name in [each for each in sys.modules if each.partition(".")[0] in packages]:
            del sys.modules[name]
        importlib.invalidate_caches()


def _written(modules: dict[str, str]) -> Path:
    for name in modules:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".py":
            raise CallFault(400, f"Invalid module path {name!r}. Send relative paths of `.py` files.")
    place = Path(tempfile.mkdtemp(prefix="flash-live-"))
    try:
        for name, text in modules.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise CallFault(400, f"The modules cannot be written: {type(error).__name__}.") from None
    return place
