"""The project: its root, its name, its `[tool.flash]` table, and the files of the application."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from flash_cli.faults import ConfigFault
from flash_runtime.artifact.contract import MANIFEST

CONFIG = "pyproject.toml"
OUTPUT = ".flash"

_NEVER = (".git", f"/{OUTPUT}/", f"/{MANIFEST}", "__pycache__/", "*.py[cod]", ".env", ".env.*", ".venv/")
"""Files that are never packed, whatever a .gitignore says: secrets, history and generated files."""
_RARELY_NEEDED = (
    *(".runpod/", "*.tar.gz", ".gitignore", ".gitattributes", ".DS_Store", "node_modules/"),
    *("*.egg-info/", "dist/", "build/", "venv/", "env/", ".vscode/", ".idea/", ".ipynb_checkpoints/"),
    *(".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".tox/", ".nox/", ".cache/"),
    *("tests/", "test_*.py", "*_test.py", "docs/", "*.md", "!README.md"),
)
"""Files that a worker rarely needs, as in the vendor's build. A `!pattern` in a .gitignore keeps them."""


@dataclass(frozen=True)
class Project:
    """A directory with an application. `config` is its `[tool.flash]` table, or empty."""

    root: Path
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    python_dependencies: tuple[str, ...] = ()
    """`[project] dependencies`, as they are written."""

    @classmethod
    def find(cls, directory: Path) -> Project:
        """The project in this directory. A pyproject.toml is not required, as at the vendor's.

        Raises `ConfigFault` if there is no such directory, or its pyproject.toml cannot be read.
        """
        root = Path(os.path.realpath(directory))
        if not root.is_dir():
            raise ConfigFault(
                "There is no such directory.", where=str(directory), remedy="name the project's directory."
            )
        document = _read(root / CONFIG)
        project, flash = _table(root, document, "project"), _table(root, document, "tool", "flash")
        name = project.get("name", root.name)
        dependencies = project.get("dependencies", [])
        if not isinstance(name, str) or not name.strip():
            raise _config_fault(root, "[project] name is not a name.", 'write name = "my-app".')
        if not isinstance(dependencies, list) or not all(isinstance(each, str) for each in dependencies):
            raise _config_fault(
                root, "[project] dependencies is not a list of strings.", 'write dependencies = ["numpy>=2"].'
            )
        return cls(root, name, flash, tuple(dependencies))

    def files(self) -> tuple[str, ...]:
        """The application's files: sorted POSIX paths from the root. Raises `ConfigFault`.

        Every .gitignore from the root down counts. A symbolic link stands for its target; see `strays`.
        """
        return self._listing[0]

    def strays(self) -> tuple[str, ...]:
        """Symbolic links that lead out of the root, or nowhere. They are left out."""
        return self._listing[1]

    @functools.cached_property
    def _listing(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        strays: list[str] = []
        rarely = ("", GitIgnoreSpec.from_lines(_RARELY_NEEDED))
        never = GitIgnoreSpec.from_lines(_NEVER)
        files = sorted(_walk(self.root, "", never, (rarely,), (str(self.root),), strays))
        return tuple(files), tuple(sorted(strays))


def _walk(
    root: Path,
    prefix: str,
    never: GitIgnoreSpec,
    ignores: tuple[tuple[str, GitIgnoreSpec], ...],
    above: tuple[str, ...],
    strays: list[str],
) -> Iterator[str]:
    """The files below `root/prefix`.

    `ignores` are the rules that apply there, the nearest last. `above` are the real paths of the directories
    above. Like git, this does not look into ignored directories.
    """
    own = _gitignore(root, prefix)
    ignores = (*ignores, (prefix, own)) if own is not None else ignores
    try:
        with os.scandir(root / prefix) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigFault(
            f"A directory of the project cannot be read: {error.strerror}.",
            where=str(root / prefix),
            remedy="make it readable, or list it in .gitignore.",
        ) from error
    for entry in found:
        path = prefix + entry.name
        is_directory = entry.is_dir()
        matched = f"{path}/" if is_directory else path
        if never.match_file(matched) or _is_ignored(matched, ignores):
            continue
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            if not Path(real).is_relative_to(root) or not os.path.exists(real):  # noqa: PTH110
                strays.append(path)
                continue
            if is_directory and real in above:
                continue  # a loop
        if not is_directory:
            if entry.is_file():  # no sockets, pipes or devices
                yield path
        elif not (Path(entry.path) / "pyvenv.cfg").exists():
            real = os.path.realpath(entry.path)
            yield from _walk(root, f"{path}/", never, ignores, (*above, real), strays)


def _is_ignored(path: str, ignores: tuple[tuple[str, GitIgnoreSpec], ...]) -> bool:
    for base, spec in reversed(ignores):
        include = spec.check_file(path[len(base) :]).include
        if include is not None:
            return include
    return False


def _gitignore(root: Path, prefix: str) -> GitIgnoreSpec | None:
    path = root / prefix / ".gitignore"
    if not path.is_file():
        return None
    try:
        return GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as error:
        raise ConfigFault(
            f"The .gitignore cannot be read: {error}.", where=str(path), remedy="fix the file or remove it."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigFault(
            f"The {CONFIG} is not valid TOML: {error}.",
            where=f"{path}:{line[1]}" if line else str(path),
            remedy="fix that line.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault(
            f"The {CONFIG} cannot be read: {error}.",
            where=str(path),
            remedy="make it a readable file of UTF-8 text.",
        ) from error


def _table(root: Path, document: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    found: Any = document
    for key in keys:
        found = found.get(key, {}) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping):
        name = ".".join(keys)
        raise _config_fault(root, f"[{name}] is not a table.", f"write [{name}] on a line of its own.")
    return found


def _config_fault(root: Path, what: str, remedy: str) -> ConfigFault:
    return ConfigFault(what, where=str(root / CONFIG), remedy=remedy)
