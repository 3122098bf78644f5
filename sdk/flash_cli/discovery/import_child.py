"""The child process of `imported_modules.py`: imports one module and records the endpoints that it makes.

python -m flash_cli.discovery.import_child ROOT MODULE ANSWER
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

from runpod_flash import Endpoint, NetworkVolume, PodTemplate

_METHODS = ("get", "post", "put", "delete", "patch")


class Opaque(Exception):
    """A value that cannot be written as an expression."""


class _Recorder:
    """Records each `Endpoint` that code under the root makes, and each function that one decorates."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.made: list[dict[str, Any]] = []
        self._by_id: dict[int, dict[str, Any]] = {}
        self.endpoints: list[Endpoint] = []

    def watch(self) -> None:
        """Wrap the SDK's methods, permanently in this process."""
        initialise, call = Endpoint.__init__, Endpoint.__call__

        @functools.wraps(initialise)
        def init(endpoint: Endpoint, *args: Any, **options: Any) -> None:
            initialise(endpoint, *args, **options)
            place = self._place(sys._getframe(1))
            if place is not None:
                given = dict(zip(("name",), args, strict=False)) | options
                self._add(endpoint, place, given)

        @functools.wraps(call)
        def decorate(endpoint: Endpoint, target: Any) -> Any:
            result = call(endpoint, target)
            self._decorated(endpoint, target, None, None, sys._getframe(1))
            return result

        Endpoint.__init__ = init  # type: ignore[method-assign, assignment]
        Endpoint.__call__ = decorate  # type: ignore[method-assign, assignment]
        for name in _METHODS:
            setattr(Endpoint, name, self._route(name, getattr(Endpoint, name)))

    def name_variables(self, module: Any) -> None:
        """Record which names of the module hold endpoints."""
        for name, value in vars(module).items():
            if isinstance(value, Endpoint) and id(value) in self._by_id:
                entry = self._by_id[id(value)]
                entry["variable"] = entry["variable"] or name

    def _route(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def route(endpoint: Endpoint, path: str, *args: Any, **options: Any) -> Any:
            decorator = original(endpoint, path, *args, **options)
            if endpoint.is_client:
                return decorator

            def decorate(target: Any) -> Any:
                result = decorator(target)
                self._decorated(endpoint, target, name.upper(), path, sys._getframe(1))
                return result

            return decorate

        return route

    def _place(self, frame: FrameType | None) -> tuple[str, int] | None:
        """The line of a module's top level that led here: a factory's caller, not the factory."""
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if frame.f_code.co_name == "<module>" and file.is_relative_to(self._root):
                return file.relative_to(self._root).as_posix(), frame.f_lineno
            frame = frame.f_back
        return None

    def _add(self, endpoint: Endpoint, place: tuple[str, int], given: Mapping[str, Any]) -> None:
        arguments, opaque = {}, {}
        for name, value in given.items():
            try:
                arguments[name] = expression(value)
            except Opaque as error:
                opaque[name] = str(error)
        entry = {"path": place[0], "line": place[1], "variable": None}
        entry |= {"arguments": arguments, "opaque": opaque, "functions": []}
        self.made.append(entry)
        self._by_id[id(endpoint)] = entry
        self.endpoints.append(endpoint)  # keeps its id from being reused

    def _decorated(
        self, endpoint: Endpoint, target: Any, method: str | None, path: str | None, frame: FrameType
    ) -> None:
        if id(endpoint) in self._by_id:
            original = inspect.unwrap(target) if callable(target) else target
            place = self._place(frame)
            module = getattr(original, "__module__", None) or ""
            name = getattr(original, "__qualname__", None) or repr(target)[:100]
            entry = [*(place or ("", 0)), module, name, method, path]
            self._by_id[id(endpoint)]["functions"].append(entry)


def expression(value: Any, depth: int = 20) -> str:
    """The value as an expression of Python and `runpod_flash`'s names. Raises `Opaque` if it has none."""
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if not depth:
        raise Opaque("nested too deep")
    if isinstance(value, Enum) and type(value).__module__.startswith("runpod_flash."):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, tuple | list | set | frozenset):
        inner = ", ".join(expression(each, depth - 1) for each in value)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if value else "()"
    if isinstance(value, Mapping):
        pairs = (f"{expression(k, depth - 1)}: {expression(v, depth - 1)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, NetworkVolume):
        fields = {"id": value.id, "name": value.name, "size": value.size, "datacenter": value.datacenter}
    elif isinstance(value, PodTemplate):
        fields = vars(value)
    else:
        raise Opaque(f"a value of type {type(value).__name__}")
    options = ", ".join(f"{name}={expression(each, depth - 1)}" for name, each in fields.items())
    return f"{type(value).__name__}({options})"


def main(root: str, module: str, answer: str) -> None:
    """Import the module and write the answer: the endpoints, or the error as one line."""
    sys.path[:] = [root, *(entry for entry in sys.path if entry not in ("", root))]
    recorder = _Recorder(Path(root))
    recorder.watch()
    document: dict[str, Any]
    try:
        recorder.name_variables(importlib.import_module(module))
        document = {"endpoints": recorder.made}
    except BaseException as error:  # noqa: BLE001  user code may raise anything, SystemExit too
        text = " ".join(str(error).split())[:500]
        document = {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
    Path(answer).write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # threads of user code would keep the process alive
