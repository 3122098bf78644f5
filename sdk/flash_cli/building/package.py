"""Packs a directory as a `.tar.gz` whose bytes do not depend on who made it, where and when."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LEVEL = 6
"""The level of compression. Higher levels take much longer to save a few percent."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Sizes in bytes of the artifact and its unpacked files, and their number."""

    size: int
    unpacked: int
    members: int


def pack(directory: Path, artifact: Path, epoch: int = 0) -> Packed:
    """Write the files of `directory` to `artifact`, completely or not at all. Raises `OSError`.

    The same files give the same bytes. `epoch` is the time of every file, in seconds. Links are left out:
    `flash build` does not make any.
    """
    handle, name = tempfile.mkstemp(dir=artifact.parent, prefix=f".{artifact.name}-")
    temporary = Path(name)
    try:
        unpacked = members = 0
        with (
            os.fdopen(handle, "wb") as raw,
            gzip.GzipFile("", "wb", _LEVEL, raw, mtime=epoch) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path, member in _members(directory, ""):
                member.mtime = epoch
                members, unpacked = members + 1, unpacked + member.size
                if member.isdir():
                    tar.addfile(member)
                else:
                    with path.open("rb") as file:
                        tar.addfile(member, file)
        size = temporary.stat().st_size
        temporary.chmod(0o644)  # with mkstemp's 0600, the container's user could not read it
        temporary.replace(artifact)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Packed(size, unpacked, members)


def _members(directory: Path, prefix: str) -> Iterator[tuple[Path, tarfile.TarInfo]]:
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        member = tarfile.TarInfo(prefix + entry.name)
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            yield path, member
            yield from _members(path, f"{member.name}/")
        elif entry.is_file(follow_symlinks=False):
            status = entry.stat()
            member.size = status.st_size
            member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            yield path, member
