"""The development mode: source text that a caller sends is run. Only with FLASH_LIVE=1."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from flash_runtime.exceptions import text_of
from flash_runtime.forms import CallFault, Invocation

_lock = threading.Lock()
_places: dict[tuple[tuple[str, str], ...], Path] = {}


def define(invocation: Invocation) -> Callable[..., Any]:
    """The function or class that the call's source text defines. Raises `CallFault`."""
    if invocation.source is None:
        raise CallFault(400, "There are `modules` and no source text that could use them.")
    if invocation.modules:
        _make_importable(invocation.modules)
    namespace: dict[str, Any] = {"__name__": f"flash_live_{invocation.name}"}
    try:
        exec(compile(invocation.source, f"<{invocation.name}>", "exec"), namespace)  # noqa: S102  the mode's purpose
    except BaseException as error:  # user code may raise anything
        raise CallFault(400, f"The source text fails: {text_of(error)}.") from error
    found = namespace.get(invocation.name)
    if not callable(found) or invocation.is_class is not isinstance(found, type):
        kind = "class" if invocation.is_class else "function"
        raise CallFault(400, f"The source text defines no {kind} `{invocation.name}`.")
    return found  # type: ignore[no-any-return]


def _make_importable(modules: dict[str, str]) -> None:
    """Write the modules, by their POSIX paths, where they can be imported; the same ones once only."""
    key = tuple(sorted(modules.items()))
    with _lock:
        if key in _places:
            return
        place = Path(tempfile.mkdtemp(prefix="flash-live-"))
        for name, text in modules.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.suffix != ".py":
                raise CallFault(400, f"The module path {name!r} is none.")
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
            sys.modules.pop(".".join(path.with_suffix("").parts).removesuffix(".__init__"), None)
        sys.path.insert(0, str(place))
        _places[key] = place
