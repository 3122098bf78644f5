"""`flash build`: makes `.flash/artifact.tar.gz` of a project, and `.flash/.build` with the same files."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flash_cli.application import Application
from flash_cli.building.images import DEFAULT_PLATFORM, DEFAULT_PYTHON, PLATFORMS, PYTHONS
from flash_cli.building.manifest import encode, manifest_of
from flash_cli.building.package import Packed, pack
from flash_cli.discovery.discover import discover
from flash_cli.faults import ConfigFault, DependencyFault, OutputFault
from flash_cli.project import OUTPUT, Project
from flash_runtime.artifact.contract import MANIFEST, variable
from flash_runtime.config.settings import Settings

ARTIFACT = "artifact.tar.gz"
DIRECTORY = ".build"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build. The defaults fit the image."""

    python: str = DEFAULT_PYTHON
    platform: str = DEFAULT_PLATFORM
    exclude: tuple[str, ...] = ()
    """Names of packages to leave out."""
    no_deps: bool = False
    """Whether to leave out the dependencies of dependencies."""
    output: str = ARTIFACT
    """The artifact's name in `.flash`, or a path."""
    epoch: int = 0
    """The modification time of every file in the artifact, in seconds."""


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build. `notes` are remarks for its user."""

    artifact: Path
    directory: Path
    """The artifact's files, unpacked."""
    application: Application
    manifest: dict[str, Any]
    packed: Packed
    files: int
    """The number of the project's own files."""
    packages: tuple[str, ...]
    """The installed packages, each as `name==version`."""
    notes: tuple[str, ...]


_DEFAULTS = BuildOptions()


def build(
    project: Project, options: BuildOptions = _DEFAULTS, say: Callable[[str], None] = lambda _: None
) -> Built:
    """Build the project. `say` is called with each step that takes long.

    Raises `SourceFault`, `NothingFoundFault`, `ConfigFault`, `DependencyFault` or `OutputFault`. An earlier
    build stays as it is then.
    """
    _check(options)
    application = discover(project)
    manifest = manifest_of(application, options.python)
    output = project.root / OUTPUT
    artifact = _artifact(project, options.output)
    try:
        _make_output(output)
        artifact.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output, prefix=".build-") as scratch:
            staged = Path(scratch) / "app"
            staged.mkdir()
            packages, left_out = _install(project, application, staged, options, say)
            _copy(project, staged)
            (staged / MANIFEST).write_bytes(encode(manifest))
            if packages:
                say("packing")
            packed = pack(staged, artifact, options.epoch)
            directory = _put(staged, output / DIRECTORY, Path(scratch) / "old")
    except OSError as error:
        raise OutputFault(
            f"The build cannot be written: {error.strerror or error}.",
            where=str(error.filename or output),
            remedy="make the directory writable, and make sure that the disk has room for the packages.",
        ) from error
    notes = tuple(_notes(project, application, packed, left_out))
    files = len(project.files())
    return Built(artifact, directory, application, manifest, packed, files, packages, notes)


def _check(options: BuildOptions) -> None:
    for name, given, known in (
        ("--python-version", options.python, PYTHONS),
        ("--platform", options.platform, tuple(PLATFORMS)),
    ):
        if given not in known:
            raise ConfigFault(
                f"There is no image for {given}.", where=name, remedy=f"use one of {', '.join(known)}."
            )


def _artifact(project: Project, output: str) -> Path:
    path = Path(output)
    if path.name in ("", ".."):
        raise ConfigFault(
            "The artifact has no file name.", where="--output", remedy=f"name a file, such as {ARTIFACT}."
        )
    return project.root / OUTPUT / path if path.name == output else path.absolute()


def _make_output(output: Path) -> None:
    output.mkdir(exist_ok=True)
    ignore = output / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _install(
    project: Project,
    application: Application,
    staged: Path,
    options: BuildOptions,
    say: Callable[[str], None],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from flash_cli.building.dependencies import install, wanted  # without dependencies, uv is not needed

    requirements = wanted(project, application)
    if not requirements:
        return (), ()
    installed = install(
        project,
        requirements,
        staged,
        python=options.python,
        platform=options.platform,
        exclude=options.exclude,
        no_deps=options.no_deps,
        say=say,
    )
    own = {file.partition("/")[0].removesuffix(".py") for file in project.files() if file.endswith(".py")}
    taken = sorted(path.name for path in staged.iterdir() if path.is_dir() and path.name in own)
    if taken:
        raise DependencyFault(
            f"A dependency and a module of the project have the same name: {', '.join(taken)}.",
            where=str(project.root / taken[0]),
            remedy="rename the project's module.",
        )
    return installed.packages, installed.left_out


def _copy(project: Project, staged: Path) -> None:
    """Copy the project's files beside the packages. They replace a package's file of the same name."""
    made: set[Path] = set()
    for file in project.files():
        place = staged / file
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        place.unlink(missing_ok=True)  # it may be a hard link into uv's cache
        source = project.root / file
        shutil.copyfile(source, place)
        place.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)


def _put(staged: Path, place: Path, aside: Path) -> Path:
    """Move the staged directory to its place, and an earlier one aside."""
    if place.exists():
        place.rename(aside)
    return staged.rename(place)


def _notes(
    project: Project, application: Application, packed: Packed, left_out: tuple[str, ...]
) -> Iterator[str]:
    if left_out:
        yield f"left out, since the image provides them: {', '.join(left_out)}"
    for endpoint in application.endpoints:
        system = endpoint.options.get("system_dependencies")
        if system:
            names = ", ".join(system)
            yield f"{endpoint.name} needs system packages, which only an image can provide: {names}"
    if project.strays():
        yield f"left out, since these links lead out of the project: {', '.join(project.strays())}"
    limits = Settings.from_environ({})
    if packed.unpacked > limits.artifact_max_bytes:
        name = variable("artifact_max_bytes")
        yield f"the artifact unpacks to more than a worker takes by default. Set {name}={packed.unpacked}"
    if packed.members > limits.artifact_max_members:
        name = variable("artifact_max_members")
        yield f"the artifact has more files than a worker takes by default. Set {name}={packed.members}"
