"""Finds and verifies the build artifact, and puts the application that is in it into its place.

Everything is unpacked into a fresh directory first; only a whole application is moved from there, so that a
half-unpacked one is never seen and a failure leaves the directory as it was.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from flash_runtime.artifact.tarball import Limits, extract
from flash_runtime.config.settings import Settings
from flash_runtime.errors import ArtifactFault, ArtifactMissingFault, SettingFault

log = logging.getLogger("flash_runtime.artifact")

T = TypeVar("T")

MARKER = ".flash-artifact"
"""A file in every directory that was unpacked here; its text is the artifact's SHA-256. Only a directory that
has it is ever replaced."""

_POLL_SECONDS = 0.2
_REMINDER_SECONDS = 5.0
_STAGING = ".flash-unpacking-"
_READABLE = "let that user read it (`chmod -R a+rX` on the host), or run the container as its owner."
_NOT_OURS = {"lost+found"}
"""What a file system puts into its own root."""


def prepare(settings: Settings, accept: Callable[[Path, Path, str], T]) -> tuple[Path, T]:
    """The directory of the application to serve, unpacked where there is an artifact, and what `accept` says.

    `accept` is given the manifest, the directory that it describes, and what to call the manifest in a fault.
    It is called before an artifact replaces anything, and refuses with a fault of its own.

    Waits up to `settings.artifact_wait` for an artifact that is mounted late. Raises `ArtifactMissingFault`
    where there is neither artifact nor application, `ArtifactFault` for an artifact that is damaged, hostile
    or none, and `SettingFault` for a directory that cannot be written. After any of these, the directory is
    as it was.
    """
    target = Path(os.path.realpath(settings.app_dir))
    if settings.disable_unpack:
        if not _is_unpacked(settings):
            raise ArtifactMissingFault(
                "FLASH_DISABLE_UNPACK is set, and there is no unpacked application.",
                where=f"FLASH_MANIFEST_PATH={settings.manifest_path}",
                remedy="put the application into FLASH_APP_DIR, mend FLASH_MANIFEST_PATH, or unset "
                "FLASH_DISABLE_UNPACK.",
            )
        return target, accept(settings.manifest_path, target, str(settings.manifest_path))
    if not _is_there(settings.artifact_path):
        if _is_unpacked(settings):
            log.info("there is no artifact; serving what is in %s", target)
            return target, accept(settings.manifest_path, target, str(settings.manifest_path))
        _wait_for(settings)
    started = time.monotonic()
    with _open(settings.artifact_path) as file:
        digest = _verify(file, settings)
        members, accepted = _Unpacking(settings, target, digest, accept).run(file)
    log.info(
        "unpacked %s into %s",
        settings.artifact_path,
        target,
        extra={"members": members, "seconds": round(time.monotonic() - started, 3)},
    )
    return target, accepted


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _is_unpacked(settings: Settings) -> bool:
    """Whether there is an application already; raises `SettingFault` where that cannot be told."""
    try:
        return stat.S_ISREG(settings.manifest_path.stat().st_mode)
    except PermissionError as error:
        raise SettingFault(
            f"The application's directory cannot be read by the user {os.geteuid()}: {error.strerror}.",
            where=f"FLASH_APP_DIR={settings.app_dir}, for {settings.manifest_path}",
            remedy=_READABLE,
        ) from error
    except OSError:
        return False


def _wait_for(settings: Settings) -> None:
    """Return once the artifact is there; the platform may mount it after the container has started."""
    path, begun = settings.artifact_path, time.monotonic()
    reminder = 0.0
    while not _is_there(path):
        waited = time.monotonic() - begun
        if waited >= settings.artifact_wait:
            _give_up(settings)
        if waited >= reminder:
            log.info("waiting for the artifact at %s (FLASH_ARTIFACT_WAIT=%g)", path, settings.artifact_wait)
            reminder += _REMINDER_SECONDS
        time.sleep(min(_POLL_SECONDS, settings.artifact_wait - waited))


def _give_up(settings: Settings) -> NoReturn:
    why = "There is no build artifact"
    try:
        settings.artifact_path.stat()
    except PermissionError:
        why = "The build artifact cannot be reached (permission denied)"
    except OSError:
        pass
    raise ArtifactMissingFault(
        f"{why}, and no unpacked application either.",
        where=f"FLASH_BUILD_ARTIFACT_PATH={settings.artifact_path} and {settings.manifest_path}",
        remedy="mount the artifact that `flash build` wrote at the first path, or an unpacked application at "
        f"FLASH_APP_DIR={settings.app_dir}.",
    )


@contextmanager
def _open(path: Path) -> Iterator[BufferedReader]:
    try:
        file = path.open("rb")
    except IsADirectoryError:
        raise ArtifactFault(
            "The build artifact is a directory.",
            where=str(path),
            remedy="check the path on the host: Docker makes a directory where a file to mount is missing. "
            "To serve an unpacked application, put it into FLASH_APP_DIR.",
        ) from None
    except OSError as error:
        raise ArtifactMissingFault(
            f"The build artifact cannot be read by the user {os.geteuid()}: {error.strerror}.",
            where=str(path),
            remedy=_READABLE,
        ) from error
    with file:
        yield file


def _verify(file: BufferedReader, settings: Settings) -> str:
    """The artifact's SHA-256; raises `ArtifactFault` where FLASH_ARTIFACT_SHA256 is another."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if settings.artifact_sha256 not in (None, digest):
        raise ArtifactFault(
            f"The build artifact is not the expected one: its SHA-256 is {digest}.",
            where=str(settings.artifact_path),
            remedy=f"FLASH_ARTIFACT_SHA256 expects {settings.artifact_sha256}: bring that artifact, or mend "
            "the setting.",
        )
    return digest


class _Unpacking(Generic[T]):
    """One artifact on its way into `target`."""

    def __init__(
        self, settings: Settings, target: Path, digest: str, accept: Callable[[Path, Path, str], T]
    ) -> None:
        self._settings = settings
        self._artifact = settings.artifact_path
        self._limits = Limits(settings.artifact_max_members, settings.artifact_max_bytes)
        self._target = target
        self._digest = digest
        self._accept = accept

    def run(self, file: BufferedReader) -> tuple[int, T]:
        """Unpack and move into place; returns the count of members, and what `accept` said."""
        self._refuse_strangers_files()
        beside = self._target.parent
        try:
            beside.mkdir(parents=True, exist_ok=True)
            if not os.path.ismount(self._target) and os.access(beside, os.W_OK | os.X_OK):
                try:
                    return self._unpack(file, beside, self._replace)
                except OSError as error:
                    # Only told by what cannot be done to it: a mount of the same file system, and a directory
                    # of a lower layer of overlayfs, as the image's own is.
                    if error.errno not in (errno.EBUSY, errno.EXDEV):
                        raise
                    file.seek(0)
            self._target.mkdir(exist_ok=True)
            return self._unpack(file, self._target, self._refill)
        except OSError as error:
            raise SettingFault(
                f"The artifact cannot be unpacked: {error.strerror or error}.",
                where=f"FLASH_APP_DIR={self._settings.app_dir}",
                remedy="let the user that the container runs as write there, with space enough (where the "
                f"root is read-only, `--tmpfs {self._settings.app_dir}`), or set FLASH_APP_DIR to another.",
            ) from error

    def _refuse_strangers_files(self) -> None:
        try:
            names = {entry.name for entry in self._target.iterdir()}
        except FileNotFoundError:
            return
        except NotADirectoryError:
            names = {"a file in its place"}
        except OSError:
            names = set()  # what is wrong with it shows when it is written to
        strangers = {name for name in names - _NOT_OURS if not name.startswith(_STAGING)}
        if strangers and MARKER not in names:
            raise SettingFault(
                f"Unpacking would replace files that no artifact left there: {_some(strangers)}.",
                where=f"FLASH_APP_DIR={self._settings.app_dir}",
                remedy="set FLASH_APP_DIR to an empty directory, or FLASH_DISABLE_UNPACK=1 to serve what is "
                "there.",
            )

    def _unpack(self, file: BufferedReader, where: Path, move: Callable[[Path, Path], None]) -> tuple[int, T]:
        _remove_leftovers(where)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=where))
        try:
            with _locked(staging):
                app = staging / "app"
                app.mkdir()
                members = extract(file, app, self._limits, str(self._artifact))
                self._refuse_marker(app)
                accepted = self._accept(self._manifest(app), app, f"{self._artifact}: flash_manifest.json")
                (app / MARKER).write_text(self._digest)
                move(app, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return members, accepted

    def _refuse_marker(self, app: Path) -> None:
        if os.path.lexists(app / MARKER):
            raise ArtifactFault(
                f"The build artifact has a {MARKER}, a name that the runtime keeps for itself.",
                where=str(self._artifact),
                remedy="build it from the project, not from a directory that an artifact was unpacked into.",
            )

    def _manifest(self, app: Path) -> Path:
        """The manifest of what is unpacked at `app`; raises `ArtifactFault` where it has none."""
        manifest = Path(os.path.realpath(self._settings.manifest_path.parent))
        if not manifest.is_relative_to(self._target):
            return self._settings.manifest_path  # it comes from elsewhere
        place = manifest.relative_to(self._target) / self._settings.manifest_path.name
        if not (app / place).is_file():
            there = _some({entry.name for entry in app.iterdir()})
            raise ArtifactFault(
                f"The build artifact has no {place}; it has {there}.",
                where=str(self._artifact),
                remedy="make it with `flash build`; by hand, pack the directory's content and not the "
                "directory itself: tar czf artifact.tar.gz -C DIRECTORY .",
            )
        return app / place

    def _replace(self, app: Path, staging: Path) -> None:
        """Put the whole directory in the target's place."""
        if not self._target.exists():
            app.rename(self._target)
            return
        app.chmod(self._target.stat().st_mode & 0o7777)
        self._target.rename(staging / "old")
        try:
            app.rename(self._target)
        except OSError:
            (staging / "old").rename(self._target)
            raise

    def _refill(self, app: Path, staging: Path) -> None:
        """Put the content into a target that itself must stay, the manifest last: it makes an application."""
        manifest = self._settings.manifest_path.name
        old = staging / "old"
        old.mkdir()
        for entry in _ordered(self._target, first=manifest, last=MARKER):
            if entry.name not in _NOT_OURS and not entry.name.startswith(_STAGING):
                shutil.move(entry, old / entry.name)  # copies what is in a lower layer
        for entry in _ordered(app, first=MARKER, last=manifest):
            entry.rename(self._target / entry.name)


def _ordered(directory: Path, *, first: str, last: str) -> list[Path]:
    return sorted(directory.iterdir(), key=lambda entry: (entry.name != first, entry.name == last))


def _some(names: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:5])
    return (f"{shown}, …" if len(names) > 5 else shown) or "nothing"


def _remove_leftovers(where: Path) -> None:
    """Remove what an unpacking that was killed has left; another container's, at work, is locked."""
    for path in where.glob(f"{_STAGING}*"):
        with _locked(path) as alone:
            if alone:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Hold the directory's lock; false where another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
