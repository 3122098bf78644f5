"""Installs what an application needs and the image lacks, as wheels for the image's Python and platform.

uv resolves and installs, with its own settings (indexes, certificates) of the project and the environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from flash_cli.application import Application
from flash_cli.building.images import LARGE, PLATFORMS
from flash_cli.faults import DependencyFault
from flash_cli.project import CONFIG, Project
from flash_runtime.artifact.contract import SHARED

REQUIREMENTS = "requirements.txt"

_OURS = ("flash-runtime", "runpod-flash")
_TIME_LIMIT = 1800
"""Seconds that uv may take for one step."""
_MOST_LINES = 14
_NOTES = ("direct_url.json", "uv_build.json", "uv_cache.json")
"""Where a package came from, in the directory of its metadata."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requirement as it is written, and where."""

    requirement: str
    origin: str

    @property
    def name(self) -> str:
        """The distribution's, as it is compared; empty where it is an option or a path."""
        found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", self.requirement)
        return normal(found[1]) if found else ""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an artifact carries, each `name==version`, and what was asked for and left out."""

    packages: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def normal(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(project: Project, application: Application) -> tuple[Wanted, ...]:
    """What is asked for: by requirements.txt, by `[project] dependencies` and by the endpoints."""
    found = [Wanted(each, CONFIG) for each in project.python_dependencies]
    for endpoint in application.endpoints:
        given = endpoint.options.get("dependencies") or ()
        found += [Wanted(each, str(endpoint.place)) for each in given]
    return (*found, *_listed(project.root))


def _listed(root: Path) -> Iterator[Wanted]:
    """The lines of requirements.txt, without what names the project itself: its files are packaged anyway."""
    try:
        lines = (root / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise DependencyFault(
            f"The requirements cannot be read: {error}.", where=REQUIREMENTS, remedy="make it readable UTF-8."
        ) from error
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        editable = re.match(r"(?:-e|--editable)[\s=]+(.+)", text)
        place = root / (editable[1] if editable else text)
        if text and (editable or place.is_dir()):
            if place.resolve() != root:
                raise DependencyFault(
                    f"A directory cannot be installed for another machine: {text}.",
                    where=f"{REQUIREMENTS}:{number}",
                    remedy="name a wheel of it (`uv build --wheel` makes one), or copy its modules here.",
                )
        elif text:
            yield Wanted(text, f"{REQUIREMENTS}:{number}")


def install(
    project: Project,
    asked: Sequence[Wanted],
    target: Path,
    *,
    python: str,
    platform: str,
    exclude: Iterable[str] = (),
    no_deps: bool = False,
    say: Callable[[str], None],
) -> Installed:
    """Install what is asked for into `target`, without what the image has. Raises `DependencyFault`.

    `python` and `platform` are of those in `images.py`. `exclude` are names that are left out, and so
    is what only they need. `say` is told each step.
    """
    omitted = {*LARGE, *_OURS, *map(normal, exclude)}
    left_out = tuple(each.requirement for each in asked if each.name in {*omitted, *SHARED} - {*_OURS})
    if all(each.name in omitted for each in asked):
        return Installed((), left_out)
    uv = _Uv(project, asked, python, platform)
    say(f"resolving {_count(len(asked), 'dependency', 'dependencies')} for Python {python} on {platform}")
    resolved = uv.resolve(omitted, no_deps)
    packages = tuple(line for line in resolved if not line.startswith("-"))
    if packages:
        say(f"installing {_count(len(packages), 'package', 'packages')}")
        uv.install(resolved, target)
        _tidy(target)
    return Installed(packages, left_out)


class _Uv:
    """uv, for one set of requirements."""

    def __init__(self, project: Project, asked: Sequence[Wanted], python: str, platform: str) -> None:
        self._root = project.root
        self._asked = asked
        self._goal = f"Python {python} on {platform}"
        self._options = ["--python", sys.executable, "--python-version", python]
        self._options += ["--python-platform", PLATFORMS[platform], "--only-binary", ":all:"]

    def resolve(self, omitted: Iterable[str], no_deps: bool) -> tuple[str, ...]:
        """The packages to install, each pinned, and before them uv's options for where they come from."""
        command = ["compile", "-", *self._options, "--quiet", "--no-header", "--no-annotate"]
        command += ["--emit-index-url", "--emit-find-links", *(["--no-deps"] if no_deps else [])]
        command += [part for name in SHARED for part in ("--no-emit-package", name)]
        requirements = "".join(f"{each.requirement}\n" for each in self._asked)
        with tempfile.NamedTemporaryFile("w", prefix="flash-", suffix=".txt") as file:
            file.write("".join(f"{name}\n" for name in sorted(omitted)))
            file.flush()
            done = self._run([*command, "--excludes", file.name], requirements, show=False)
        if done.returncode:
            raise self._fault("The dependencies cannot be resolved", done.stderr)
        return tuple(line for line in done.stdout.splitlines() if line.strip())

    def install(self, packages: Sequence[str], target: Path) -> None:
        """Install these and no others; on a terminal uv shows its own progress."""
        command = ["install", "--target", str(target), "--no-deps", *self._options, "--requirements", "-"]
        show = sys.stderr.isatty()
        done = self._run(command, "".join(f"{each}\n" for each in packages), show=show)
        if done.returncode:
            raise self._fault("The dependencies cannot be installed", done.stderr or "uv said above why.")

    def _run(self, command: list[str], text: str, *, show: bool) -> subprocess.CompletedProcess[str]:
        whole = [find_uv_bin(), "pip", *command, *([] if show else ["--color", "never", "--no-progress"])]
        try:
            return subprocess.run(  # noqa: S603  uv's own executable
                whole,
                cwd=self._root,
                # The system's certificates, as pip has it: a company's own are among them.
                env={"UV_SYSTEM_CERTS": "true", **os.environ},
                input=text,
                stdout=subprocess.PIPE,
                stderr=None if show else subprocess.PIPE,
                text=True,
                check=False,
                timeout=_TIME_LIMIT,
            )
        except subprocess.TimeoutExpired:
            raise self._fault(f"The dependencies took longer than {_TIME_LIMIT} seconds", "") from None

    def _fault(self, what: str, stderr: str) -> DependencyFault:
        reason = _reason(stderr)
        words = set(re.findall(r"[a-z0-9-]+", re.sub(r"[_.]", "-", reason.lower())))
        guilty = [each for each in self._asked if each.name and each.name in words]
        places = sorted({each.origin for each in guilty or self._asked})
        remedy = "mend the requirement; uv's reason:"
        if "wheel" in reason:
            remedy = (
                "ask for a version with a wheel, or install it in an image of your own (docs/images.md) and "
                "build with --exclude; uv's reason:"
            )
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        return DependencyFault(
            f"{what} for {self._goal}.", where=", ".join(places[:5]) + more, remedy=remedy, reason=reason
        )


def _reason(stderr: str) -> str:
    """uv's error without the warnings before it, as much as fits one screen."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line.startswith("error")), 0)
    shown = [line if len(line) <= 500 else f"{line[:500]}…" for line in lines[start:]]
    return "\n".join(shown[:_MOST_LINES] + (["…"] if len(shown) > _MOST_LINES else []))


def _tidy(target: Path) -> None:
    """Take out what is of this machine: scripts, which start with the path of its Python, and uv's notes."""
    (target / ".lock").unlink(missing_ok=True)
    scripts = [path for path in (target / "bin").glob("*") if path.is_file() and _is_script(path)]
    notes = [path for path in target.glob("*.dist-info/*") if path.name in _NOTES]
    gone = {path.relative_to(target).as_posix() for path in (*scripts, *notes)}
    for path in (*scripts, *notes):
        path.unlink()
    if scripts and not any((target / "bin").iterdir()):
        (target / "bin").rmdir()
    for record in target.glob("*.dist-info/RECORD") if gone else ():
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.partition(",")[0] not in gone]
        if kept != lines:
            record.unlink()  # it may be a hard link into uv's cache
            record.write_text("".join(kept), encoding="utf-8")


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
