"""Imports user modules: owns `sys.path`, and keeps the user's traceback.

User modules and the packages of the artifact come first. Packages that the runtime itself uses come from the
image, even if the artifact has another version: a process cannot have two versions of a package.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal

from flash_runtime.errors import UserCodeFault
from flash_runtime.usercode.shared_packages import SHARED
from flash_runtime.usercode.tracebacks import kind_of

log = logging.getLogger("flash_runtime.importer")

_SDK = "runpod_flash"
_NEARBY = 8
"""How many names a fault lists."""


def enter(app_dir: Path, sdk: Literal["image", "artifact"]) -> None:
    """Make the application in `app_dir` importable, in this process and for good.

    `sdk` says whose `runpod_flash` user code gets. Raises `UserCodeFault` if that is the artifact's and the
    artifact has none. Logs one warning if the artifact has other versions of packages that the runtime uses.
    """
    app = str(app_dir)
    # Relative entries would follow the working directory.
    image_path = [entry for entry in sys.path if Path(entry).is_absolute() and entry != app]
    # The directory may have been absent or empty when something last looked into it.
    sys.path_importer_cache.pop(app, None)
    names = frozenset(SHARED.values()) | ({_SDK} if sdk == "image" else frozenset())
    if sdk == "artifact" and PathFinder.find_spec(_SDK, [app]) is None:
        raise UserCodeFault(
            f"FLASH_SDK=artifact selects the artifact's {_SDK}, and the artifact has none.",
            where=app,
            remedy="build the artifact with `flash build`, or unset FLASH_SDK to use the image's.",
        )
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _ImageFirst)]
    sys.meta_path.insert(0, _ImageFirst(app_dir, image_path, names))
    sys.path[:] = [app, *image_path]
    _warn_of_other_versions(app, image_path)


def leave() -> None:
    """Undo `enter` for later imports."""
    for finder in [finder for finder in sys.meta_path if isinstance(finder, _ImageFirst)]:
        sys.meta_path.remove(finder)
        sys.path[:] = [entry for entry in sys.path if entry != str(finder.app_dir)]


def import_module(module: str) -> ModuleType:
    """A module of the user, or one that user code may import. Call `enter` before.

    Raises `UserCodeFault` if it is missing, or if it raised (with the user's own traceback).
    `KeyboardInterrupt` passes through.
    """
    try:
        return importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code may raise anything, SystemExit too
        raise _import_fault(module, error, _app_dir()) from error


def load(module: str, function: str) -> Callable[..., Any]:
    """The handler `function` of the user's `module`, imported on first use. Call `enter` before.

    Raises `UserCodeFault` if the module is missing, if it raised (with the user's own traceback), or if it
    has no such function. `KeyboardInterrupt` passes through.
    """
    loaded = import_module(module)
    try:
        handler = getattr(loaded, function, None)
    except Exception as error:  # a module may have a `__getattr__` of its own
        raise _import_fault(module, error, _app_dir()) from error
    _refuse_taken_name(module, loaded, _app_dir())
    if not callable(handler) or _is_endpoint(handler):
        raise _handler_fault(loaded, function)
    return handler  # type: ignore[no-any-return]


def _app_dir() -> Path:
    return next(finder.app_dir for finder in sys.meta_path if isinstance(finder, _ImageFirst))


class _ImageFirst:
    """The first finder: the runtime's own packages come from the image, whatever the artifact has."""

    def __init__(self, app_dir: Path, image_path: list[str], names: frozenset[str]) -> None:
        self.app_dir = app_dir
        self._image_path = image_path
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The image's module of that name, or `None` to leave it to the other finders."""
        package, *parents = name.split(".")[:-1] or [name]
        if package not in self._names:
            return None
        where = self._image_path
        if path is not None:
            where = [os.path.join(entry, package, *parents) for entry in where]  # noqa: PTH118  every import runs this
        spec = PathFinder.find_spec(name, where, target)
        # A namespace package (opentelemetry) stays open: the artifact may add parts that the image lacks.
        return spec if spec is not None and spec.loader is not None else None


def _warn_of_other_versions(app: str, image_path: list[str]) -> None:
    carried = _versions([app])
    if not carried:
        return
    image = _versions(image_path)
    differing = [
        f"{name} {image[name]} (the artifact has {version})"
        for name, version in sorted(carried.items())
        if image.get(name, version) != version
    ]
    if differing:
        log.warning("the runtime uses the image's version of these packages: %s", ", ".join(differing))


def _versions(path: Iterable[str]) -> dict[str, str]:
    """The versions of the shared distributions on `path`, read from the names of their directories."""
    found: dict[str, str] = {}
    for entry in path:
        try:
            names = os.listdir(entry)  # noqa: PTH208  Path.iterdir makes an object for each name
        except OSError:
            continue  # zip files and directories that do not exist may be on the path
        for name in names:
            stem, dot, _ = name.rpartition(".dist-info")
            if dot:
                distribution, _, version = stem.partition("-")
                distribution = distribution.lower().replace("_", "-").replace(".", "-")
                if distribution in SHARED:
                    found.setdefault(distribution, version)
    return found


def _import_fault(module: str, error: BaseException, app_dir: Path) -> UserCodeFault:
    frames = _user_frames(error.__traceback__)
    if frames is None and isinstance(error, ModuleNotFoundError) and _is_or_holds(error.name, module):
        expected = _user_file(module, app_dir)
        if expected is None:
            return _missing_fault(module, app_dir)
        return _taken_fault(module.partition(".")[0], expected)
    what, remedy = _describe(module, error, frames)
    shown = traceback.TracebackException(type(error), error, frames)
    return UserCodeFault(
        what, where=_place(error, frames, app_dir), remedy=remedy, traceback="".join(shown.format())
    )


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the user's first frame on: without this file's and importlib's above it."""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name != __name__ and name.partition(".")[0] != "importlib":
            return trace
        trace = trace.tb_next
    return None


def _is_or_holds(name: str | None, module: str) -> bool:
    return name is not None and f"{module}.".startswith(f"{name}.")


def _describe(module: str, error: BaseException, frames: TracebackType | None) -> tuple[str, str | None]:
    """What happened and what to do about it, for an exception that left the user's module."""
    if isinstance(error, SystemExit):
        return (
            f"Module `{module}` called sys.exit({error.code!r}) while it was being imported.",
            "keep code that ends the process under `if __name__ == '__main__':`.",
        )
    if isinstance(error, SyntaxError) and _in_file(error):
        return f"Module `{module}` cannot be read: {error.msg}.", "correct the line that the traceback shows."
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"Module `{module}` needs `{error.name}`, which cannot be found.", _missing_remedy(
            error.name, frames
        )
    return f"Module `{module}` raised {kind_of(error)} while it was being imported.", None


def _missing_remedy(name: str, frames: TracebackType | None) -> str | None:
    package, _, submodule = name.partition(".")
    if package == _SDK:
        return None  # its own text says what to do
    asking = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(frames)]
    if asking and _is_or_holds(_SDK, asking[-1]):
        return "the artifact's runpod_flash needs it. Unset FLASH_SDK to use the image's, which does not."
    if submodule and package in sys.modules:
        return f"the installed `{package}` has no `{submodule}`: require a version that has it, and rebuild."
    return (
        f"add the package that provides it to Endpoint(dependencies=[{package!r}, …]) and rebuild. If it is "
        "your own module, check that no .gitignore excludes it."
    )


def _place(error: BaseException, frames: TracebackType | None, app_dir: Path) -> str | None:
    """`file:line` of the fault: of a syntax error, else of the innermost frame in the application."""
    if isinstance(error, SyntaxError) and _in_file(error):
        return f"{error.filename}:{error.lineno}"
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(frames)]
    inside = [place for place in places if Path(place[0]).is_relative_to(app_dir)]
    if not places:
        return None
    file, line = (inside or places)[-1]
    return f"{file}:{line}"


def _in_file(error: SyntaxError) -> bool:
    # Text that was compiled or parsed at run time has no file, or one with a name such as `<string>`.
    return error.filename is not None and Path(error.filename).is_file()


def _expected_files(module: str, app_dir: Path) -> tuple[Path, Path]:
    base = app_dir.joinpath(*module.split("."))
    return base.with_name(f"{base.name}.py"), base / "__init__.py"


def _missing_fault(module: str, app_dir: Path) -> UserCodeFault:
    directory = app_dir
    for part in module.split(".")[:-1]:
        if not (directory / part).is_dir():
            break
        directory /= part
    names = {path.stem for path in directory.glob("*.py")} | {
        path.parent.name for path in directory.glob("*/*.py")
    }
    names -= {"__init__", "__pycache__"}
    there = _closest(module.rpartition(".")[2], names) or "no modules"
    return UserCodeFault(
        f"There is no module `{module}`. {directory} has {there}.",
        where=f"looked for {' and '.join(str(path) for path in _expected_files(module, app_dir))}",
        remedy="build again. If the file is in the project, check that no .gitignore excludes it.",
    )


def _user_file(module: str, app_dir: Path) -> Path | None:
    return next((path for path in _expected_files(module, app_dir) if path.is_file()), None)


def _refuse_taken_name(module: str, loaded: ModuleType, app_dir: Path) -> None:
    """Raise `UserCodeFault` if a module of Python or of the runtime shadows the user's file."""
    expected = _user_file(module, app_dir)
    file = getattr(loaded, "__file__", None)
    if expected is not None and not (file and Path(file).is_relative_to(app_dir)):
        raise _taken_fault(module, expected)


def _taken_fault(name: str, expected: Path) -> UserCodeFault:
    owner = getattr(sys.modules.get(name), "__file__", None) or "built into Python"
    return UserCodeFault(
        f"The name `{name}` is taken by a module of Python or of the runtime ({owner}).",
        where=str(expected),
        remedy=f"rename `{name}`, and build again.",
    )


def _is_endpoint(handler: object) -> bool:
    """Whether it is the SDK's object that marks handlers, which is callable too."""
    return type(handler).__module__.partition(".")[0] == _SDK


def _handler_fault(loaded: ModuleType, function: str) -> UserCodeFault:
    module = loaded.__name__
    if function in vars(loaded):
        kind = type(vars(loaded)[function]).__name__
        what = f"`{function}` of module `{module}` is not a function, but of type {kind}."
    else:
        what = f"Module `{module}` has no function `{function}`."
    names = {
        name
        for name, value in vars(loaded).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module
    }
    return UserCodeFault(
        f"{what} It has {_closest(function, names) or 'no functions'}.",
        where=getattr(loaded, "__file__", None),
        remedy="define it at the top level of the module, and build again to update the manifest.",
    )


def _closest(name: str, names: Iterable[str]) -> str:
    """The `names` most similar to `name`, the most similar first."""
    from difflib import SequenceMatcher  # only a fault needs it

    ranked = sorted(sorted(names), key=lambda each: -SequenceMatcher(None, name, each).ratio())
    shown = ", ".join(f"`{each}`" for each in ranked[:_NEARBY])
    return f"{shown}, …" if len(ranked) > _NEARBY else shown
