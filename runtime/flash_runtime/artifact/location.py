"""The build artifact: where it is, whether it has come yet, and whether it is the expected one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from flash_runtime.config.settings import Settings
from flash_runtime.errors import ArtifactFault, ArtifactMissingFault

log = logging.getLogger("flash_runtime.artifact")

_POLL_SECONDS = 0.2
_REMINDER_SECONDS = 5.0
READABLE = "let that user read it (`chmod -R a+rX` on the host), or run the container as its owner."
"""What to do about files that the container's user cannot read."""


def is_there(path: Path) -> bool:
    """Whether there is something at the path that this user can reach."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def wait_for(settings: Settings) -> None:
    """Return once the artifact is there: the platform may mount it after the container has started.

    Raises `ArtifactMissingFault` after `settings.artifact_wait` seconds.
    """
    path, begun = settings.artifact_path, time.monotonic()
    reminder = 0.0
    while not is_there(path):
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
        f"{why}, and there is no unpacked application.",
        where=f"FLASH_BUILD_ARTIFACT_PATH={settings.artifact_path} and {settings.manifest_path}",
        remedy="mount the artifact that `flash build` wrote at the first path, or an unpacked application at "
        f"FLASH_APP_DIR={settings.app_dir}.",
    )


@contextmanager
def open_artifact(path: Path) -> Iterator[BufferedReader]:
    """The artifact's bytes. Raises `ArtifactFault` for a directory, `ArtifactMissingFault` if it cannot be
    read."""
    try:
        file = path.open("rb")
    except IsADirectoryError:
        raise ArtifactFault(
            "The build artifact is a directory.",
            where=str(path),
            remedy="check the path on the host: Docker creates a directory if the file to mount is missing. "
            "To serve an unpacked application, put it into FLASH_APP_DIR.",
        ) from None
    except OSError as error:
        raise ArtifactMissingFault(
            f"The user {os.geteuid()} cannot read the build artifact: {error.strerror}.",
            where=str(path),
            remedy=READABLE,
        ) from error
    with file:
        yield file


def refuse_other(digest: str, settings: Settings) -> None:
    """Raise `ArtifactFault` if FLASH_ARTIFACT_SHA256 is a different SHA-256."""
    if settings.artifact_sha256 not in (None, digest):
        raise ArtifactFault(
            f"The build artifact is not the expected one: its SHA-256 is {digest}.",
            where=str(settings.artifact_path),
            remedy=f"provide the artifact whose SHA-256 is {settings.artifact_sha256}, or correct "
            "FLASH_ARTIFACT_SHA256.",
        )
