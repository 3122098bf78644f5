"""Installs the dependencies that the image lacks, as wheels for the image's Python and platform.

uv resolves and installs them. Its settings in the project and the environment, such as indexes, apply.
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
"""How many seconds uv may take for one step."""
_MOST_LINES = 14
_NOTES = ("direct_url.json", "uv_build.json", "uv_cache.json")
"""Files in a package's metadata that tell where the package came from."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement as it is written, and where it is written."""

    text: str
    origin: str

    @property
    def name(self) -> str:
        """The package's normalised name, or empty for an option or a path."""
        found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", self.text)
        return normalised(found[1]) if found else ""


@dataclass(frozen=True, slots=True)
class Installed:
    """The installed packages, each as `name==version`, and the requirements that were left out."""

    packages: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def normalised(name: str) -> str:
    """A package's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(project: Project, application: Application) -> tuple[Requirement, ...]:
    """The requirements of `[project] dependencies`, of the endpoints and of requirements.txt."""
    found = [Requirement(each, CONFIG) for each in project.python_dependencies]
    for endpoint in application.endpoints:
        given = endpoint.options.get("dependencies") or ()
        found += [Requirement(each, str(endpoint.place)) for each in given]
    return (*found, *_listed(project.root))


def _listed(root: Path) -> Iterator[Requirement]:
    """The lines of requirements.txt, without the project itself, whose files are packed anyway."""
    try:
        lines = (root / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise DependencyFault(
            f"{REQUIREMENTS} cannot be read: {error}.",
            where=REQUIREMENTS,
            remedy="make it a readable file of UTF-8 text.",
        ) from error
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        editable = re.match(r"(?:-e|--editable)[\s=]+(.+)", text)
        place = root / (editable[1] if editable else text)
        if text and (editable or place.is_dir()):
            if place.resolve() != root:
                raise DependencyFault(
                    f"The directory {text} cannot be installed for another machine.",
                    where=f"{REQUIREMENTS}:{number}",
                    remedy="name a wheel (`uv build --wheel` makes one), or copy its modules here.",
                )
        elif text:
            yield Requirement(text, f"{REQUIREMENTS}:{number}")


def install(
    project: Project,
    requirements: Sequence[Requirement],
    target: Path,
    *,
    python: str,
    platform: str,
    exclude: Iterable[str] = (),
    no_deps: bool = False,
    say: Callable[[str], None],
) -> Installed:
    """Install the requirements into `target`, without the packages of the image. Raises `DependencyFault`.

    `python` and `platform` are among those in `images.py`. `exclude` names packages to leave out, together
    with the packages that only they need. `say` is called with each step.
    """
    omitted = {*LARGE, *_OURS, *map(normalised, exclude)}
    left_out = tuple(each.text for each in requirements if each.name in {*omitted, *SHARED} - {*_OURS})
    if all(each.name in omitted for each in requirements):
        return Installed((), left_out)
    uv = _Uv(project, requirements, python, platform)
    count = _count(len(requirements), "dependency", "dependencies")
    say(f"resolving {count} for Python {python} on {platform}")
    resolved = uv.resolve(omitted, no_deps)
    packages = tuple(line for line in resolved if not line.startswith("-"))
    if packages:
        say(f"installing {_count(len(packages), 'package', 'packages')}")
        uv.install(resolved, target)
        _tidy(target)
    return Installed(packages, left_out)


class _Uv:
    """Runs uv for one set of requirements."""

    def __init__(
        self, project: Project, requirements: Sequence[Requirement], python: str, platform: str
    ) -> None:
        self._root = project.root
        self._requirements = requirements
        self._goal = f"Python {python} on {platform}"
        self._options = ["--python", sys.executable, "--python-version", python]
        self._options += ["--python-platform", PLATFORMS[platform], "--only-binary", ":all:"]

    def resolve(self, omitted: Iterable[str], no_deps: bool) -> tuple[str, ...]:
        """The pinned packages to install, after uv's options for where they come from."""
        command = ["compile", "-", *self._options, "--quiet", "--no-header", "--no-annotate"]
        command += ["--emit-index-url", "--emit-find-links", *(["--no-deps"] if no_deps else [])]
        command += [part for name in SHARED for part in ("--no-emit-package", name)]
        text = "".join(f"{each.text}\n" for each in self._requirements)
        with tempfile.NamedTemporaryFile("w", prefix="flash-", suffix=".txt") as file:
            file.write("".join(f"{name}\n" for name in sorted(omitted)))
            file.flush()
            done = self._run([*command, "--excludes", file.name], text, show=False)
        if done.returncode:
            raise self._fault("The dependencies cannot be resolved", done.stderr)
        return tuple(line for line in done.stdout.splitlines() if line.strip())

    def install(self, packages: Sequence[str], target: Path) -> None:
        """Install exactly these packages. On a terminal, uv shows its own progress."""
        command = ["install", "--target", str(target), "--no-deps", *self._options, "--requirements", "-"]
        show = sys.stderr.isatty()
        done = self._run(command, "".join(f"{each}\n" for each in packages), show=show)
        if done.returncode:
            raise self._fault("The dependencies cannot be installed", done.stderr or "see uv's error above.")

    def _run(self, command: list[str], text: str, *, show: bool) -> subprocess.CompletedProcess[str]:
        whole = [find_uv_bin(), "pip", *command, *([] if show else ["--color", "never", "--no-progress"])]
        try:
            return subprocess.run(  # noqa: S603  uv's own executable
                whole,
                cwd=self._root,
                # The system's certificates, as pip does: they may include a company's own.
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
        guilty = [each for each in self._requirements if each.name and each.name in words]
        places = sorted({each.origin for each in guilty or self._requirements})
        remedy = "fix the requirement. uv's reason:"
        if "wheel" in reason:
            remedy = (
                "choose a version that has a wheel, or install the package in an image of your own "
                "(docs/images.md) and build with --exclude. uv's reason:"
            )
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        return DependencyFault(
            f"{what} for {self._goal}.", where=", ".join(places[:5]) + more, remedy=remedy, reason=reason
        )


def _reason(stderr: str) -> str:
    """uv's error without the warnings before it, cut to fit one screen."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line.startswith("error")), 0)
    shown = [line if len(line) <= 500 else f"{line[:500]}…" for line in lines[start:]]
    return "\n".join(shown[:_MOST_LINES] + (["…"] if len(shown) > _MOST_LINES else []))


def _tidy(target: Path) -> None:
    """Remove what belongs to this machine: scripts, which begin with its Python's path, and uv's notes."""
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
