"""Puts the application that is in the build artifact into its place.

It is staged first: unpacked into a fresh directory, from which it can be read. `Staged.commit` then moves the
whole application. So half of one is never served, and an artifact that is refused changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from flash_runtime.artifact.location import READABLE, is_there, open_artifact, refuse_other, wait_for
from flash_runtime.artifact.tarball import Limits, extract
from flash_runtime.config.settings import Settings
from flash_runtime.errors import ArtifactFault, ArtifactMissingFault, SettingFault

log = logging.getLogger("flash_runtime.artifact")

MARKER = ".flash-artifact"
"""A file in every directory that was unpacked here. Its text is the artifact's SHA-256. Only a directory that
has this file is ever replaced."""

_STAGING = ".flash-unpacking-"
_NOT_OURS = {"lost+found"}
"""What a file system puts into its own root."""


class Staged:
    """An application that can be read, and served after `commit`. This one is already in its place."""

    def __init__(self, app_dir: Path, files: Path, manifest: Path, where: str) -> None:
        self.app_dir = app_dir
        """The directory that it will be served from."""
        self.files = files
        """The directory to read it from until then."""
        self.manifest = manifest
        self.where = where
        """What to call the manifest in a fault."""

    def commit(self) -> None:
        """Put the application into its place. It replaces one that came from an artifact.

        Raises `SettingFault` if the directory cannot be written.
        """


@contextmanager
def stage(settings: Settings) -> Iterator[Staged]:
    """The application to serve, from the artifact if there is one. Only `commit` replaces anything.

    Waits up to `settings.artifact_wait` for an artifact that is mounted late. Leaving the context without
    `commit` removes what was unpacked.

    Raises:
        ArtifactMissingFault: There is neither an artifact nor an application.
        ArtifactFault: The artifact is damaged or hostile, or not a tar archive.
        SettingFault: The directory cannot be written, or has files that did not come from an artifact.
    """
    app_dir = Path(os.path.realpath(settings.app_dir))
    if _is_in_place(settings):
        yield Staged(app_dir, app_dir, settings.manifest_path, str(settings.manifest_path))
        return
    with open_artifact(settings.artifact_path) as file, ExitStack() as staging:
        artifact = _Artifact(settings, file, app_dir)
        with _write_faults(settings):
            artifact.refuse_foreign_files()
            directory = staging.enter_context(_staging(_staging_place(app_dir)))
            staged = _StagedArtifact(artifact, directory)
        yield staged


def _is_in_place(settings: Settings) -> bool:
    """Whether an unpacked application is served. If not, returns once there is an artifact."""
    if settings.disable_unpack:
        if not _is_unpacked(settings):
            raise ArtifactMissingFault(
                "FLASH_DISABLE_UNPACK is set, and there is no unpacked application.",
                where=str(settings.manifest_path),
                remedy=f"put the application into FLASH_APP_DIR={settings.app_dir}, correct "
                "FLASH_APP_DIR (or FLASH_MANIFEST_PATH, if it is set), or unset FLASH_DISABLE_UNPACK.",
            )
        return True
    if not is_there(settings.artifact_path):
        if _is_unpacked(settings):
            log.info("there is no artifact: serving the application in %s", settings.app_dir)
            return True
        wait_for(settings)
    return False


def _is_unpacked(settings: Settings) -> bool:
    """Whether there is an application already. Raises `SettingFault` if that cannot be determined."""
    try:
        return stat.S_ISREG(settings.manifest_path.stat().st_mode)
    except PermissionError as error:
        raise SettingFault(
            f"The user {os.geteuid()} cannot read the application's directory: {error.strerror}.",
            where=f"FLASH_APP_DIR={settings.app_dir}, for {settings.manifest_path}",
            remedy=READABLE,
        ) from error
    except OSError:
        return False


class _Artifact:
    """An open artifact, and the directory that its application will be served from."""

    def __init__(self, settings: Settings, file: BufferedReader, target: Path) -> None:
        self.started = time.monotonic()
        self.settings = settings
        self.path = settings.artifact_path
        self.target = target
        if settings.artifact_sha256 is not None:
            # Before anything is unpacked; `extract` compares what it has unpacked.
            refuse_other(hashlib.file_digest(file, "sha256").hexdigest(), settings)
        self._file = file
        self._limits = Limits(settings.artifact_max_members, settings.artifact_max_bytes)

    def refuse_foreign_files(self) -> None:
        """Raise `SettingFault` if the target has files that did not come from an artifact."""
        try:
            names = {entry.name for entry in self.target.iterdir()}
        except FileNotFoundError:
            return
        except NotADirectoryError:
            names = {"a file in its place"}
        except OSError:
            names = set()  # writing to it will show what is wrong
        foreign = {name for name in names - _NOT_OURS if not name.startswith(_STAGING)}
        if foreign and MARKER not in names:
            raise SettingFault(
                f"Unpacking would replace files that did not come from an artifact: {_some(foreign)}.",
                where=f"FLASH_APP_DIR={self.settings.app_dir}",
                remedy="set FLASH_APP_DIR to an empty directory, or FLASH_DISABLE_UNPACK=1 to serve what is "
                "there.",
            )

    def extract(self, directory: Path) -> tuple[Path, Path, int]:
        """Unpack the application into `directory`: its files, its manifest, and the count of members."""
        files = directory / "app"
        files.mkdir()
        self._file.seek(0)
        members, digest = extract(self._file, files, self._limits, str(self.path))
        refuse_other(digest, self.settings)
        if os.path.lexists(files / MARKER):
            raise ArtifactFault(
                f"The build artifact contains {MARKER}, a name that is reserved for the runtime.",
                where=str(self.path),
                remedy="build it from the project, not from a directory that an artifact was unpacked into.",
            )
        manifest = self._manifest(files)
        (files / MARKER).write_text(digest)
        return files, manifest, members

    def _manifest(self, files: Path) -> Path:
        """The manifest of the unpacked `files`. Raises `ArtifactFault` if they have none."""
        wanted = self.settings.manifest_path
        directory = Path(os.path.realpath(wanted.parent))
        if not directory.is_relative_to(self.target):
            return wanted  # it is not in the artifact
        place = directory.relative_to(self.target) / wanted.name
        if not (files / place).is_file():
            there = _some({entry.name for entry in files.iterdir()})
            raise ArtifactFault(
                f"The build artifact has no {place}. It has {there}.",
                where=str(self.path),
                remedy="make it with `flash build`. By hand, pack the directory's content and not the "
                "directory itself: tar czf artifact.tar.gz -C DIRECTORY .",
            )
        return files / place


class _StagedArtifact(Staged):
    """An artifact's application, unpacked into the staging directory `directory`."""

    def __init__(self, artifact: _Artifact, directory: Path) -> None:
        files, manifest, self._members = artifact.extract(directory)
        super().__init__(artifact.target, files, manifest, f"{artifact.path}: flash_manifest.json")
        self._artifact = artifact
        self._directory = directory

    def commit(self) -> None:
        with _write_faults(self._artifact.settings):
            self._move()
        log.info(
            "unpacked %s into %s",
            self._artifact.path,
            self.app_dir,
            extra={
                "members": self._members,
                "seconds": round(time.monotonic() - self._artifact.started, 3),
            },
        )

    def _move(self) -> None:
        if self._directory.parent == self.app_dir:
            _refill(self.app_dir, self.files, self._directory, self.manifest.name)
            return
        try:
            _replace(self.app_dir, self.files, self._directory)
        except OSError as error:
            # Only the attempt shows these: a mount of the same file system, and a directory of a lower layer
            # of overlayfs, such as the image's own.
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            self._unpack_within()

    def _unpack_within(self) -> None:
        """Unpack again, within the target: what was staged beside it may be on another file system."""
        with _staging(self.app_dir) as directory:
            files, manifest, _ = self._artifact.extract(directory)
            if manifest.read_bytes() != self.manifest.read_bytes():
                raise ArtifactFault(
                    "The build artifact changed while it was being unpacked.",
                    where=str(self._artifact.path),
                    remedy="restart once it is complete. Replace it by a rename, not by writing into it.",
                )
            _refill(self.app_dir, files, directory, manifest.name)


@contextmanager
def _write_faults(settings: Settings) -> Iterator[None]:
    """Turn errors of the file system into a `SettingFault`."""
    try:
        yield
    except OSError as error:
        raise SettingFault(
            f"The artifact cannot be unpacked: {error.strerror or error}.",
            where=f"FLASH_APP_DIR={settings.app_dir}",
            remedy="give the container's user write access and enough space there (with a read-only root: "
            f"`--tmpfs {settings.app_dir}`), or set FLASH_APP_DIR to another directory.",
        ) from error


def _staging_place(target: Path) -> Path:
    """The directory to stage in: the target's parent, so that the target can be replaced, or the target."""
    beside = target.parent
    beside.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(target) and os.access(beside, os.W_OK | os.X_OK):
        return beside
    target.mkdir(exist_ok=True)
    return target


@contextmanager
def _staging(where: Path) -> Iterator[Path]:
    """A fresh directory in `where`. It is locked, and removed at the end."""
    _remove_leftovers(where)
    directory = Path(tempfile.mkdtemp(prefix=_STAGING, dir=where))
    try:
        with _locked(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _replace(target: Path, files: Path, staging: Path) -> None:
    """Put the directory `files` in the target's place."""
    if not target.exists():
        files.rename(target)
        return
    files.chmod(target.stat().st_mode & 0o7777)
    target.rename(staging / "old")
    try:
        files.rename(target)
    except OSError:
        (staging / "old").rename(target)
        raise


def _refill(target: Path, files: Path, staging: Path, manifest: str) -> None:
    """Put the content of `files` into a target that cannot be moved itself.

    The manifest comes last: it makes the target an application.
    """
    old = staging / "old"
    old.mkdir()
    for entry in _ordered(target, first=manifest, last=MARKER):
        if entry.name not in _NOT_OURS and not entry.name.startswith(_STAGING):
            shutil.move(entry, old / entry.name)  # copies what is in a lower layer
    for entry in _ordered(files, first=MARKER, last=manifest):
        entry.rename(target / entry.name)


def _ordered(directory: Path, *, first: str, last: str) -> list[Path]:
    return sorted(directory.iterdir(), key=lambda entry: (entry.name != first, entry.name == last))


def _some(names: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:5])
    return (f"{shown}, …" if len(names) > 5 else shown) or "nothing"


def _remove_leftovers(where: Path) -> None:
    """Remove what killed processes left behind. A directory that another container uses is locked."""
    for path in where.glob(f"{_STAGING}*"):
        with _locked(path) as is_ours:
            if is_ours:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Hold the directory's lock; false if another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        except BlockingIOError:
            is_ours = False
        yield is_ours
    finally:
        os.close(descriptor)
