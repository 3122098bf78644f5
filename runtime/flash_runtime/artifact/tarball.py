"""Unpacks a tar archive that is not trusted.

The standard library's `data` filter checks each member. Beyond that, sizes are bounded, and links are made
after all files, so that nothing is ever written through a link.
"""

from __future__ import annotations

import errno
import gzip
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from flash_runtime.errors import ArtifactFault, Fault, SettingFault

_LARGEST_HEADER = 64 * 1024
_ALL_HEADERS = 256 * 1024 * 1024
_CHUNK = 1024 * 1024
_END_OF_TAR = bytes(tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many members an archive may have, and how many bytes they may have in total, unpacked."""

    members: int
    size: int


def extract(file: BinaryIO, app: Path, limits: Limits, where: str) -> int:
    """Unpack a tar archive, plain or gzip, into the empty directory `app`; returns the count of members.

    Raises:
        ArtifactFault: The archive, which the fault names as `where`, is damaged, exceeds the limits, or has a
            member that is not a file, a directory or a link within `app`.
        OSError: Something else failed: the disk is full, or the directory cannot be written.
    """
    if not hasattr(tarfile, "data_filter"):
        raise SettingFault(
            "This Python cannot unpack archives safely.",
            where=f"Python {sys.version.split()[0]}",
            remedy="use Python 3.11.4 or newer.",
        )
    try:
        stream = _Stream(file)
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:") as tar:
            count, links = _extract_files(tar, stream, app, limits, where)
            stream.finish(limits.size)
            _extract_links(tar, links, app, where)
            return count
    except Fault:
        raise
    except EOFError:
        what = "ends too early"
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        what = f"is damaged, or not a tar archive ({_brief(error)})"
    except (ValueError, KeyError, OverflowError, UnicodeError, RecursionError) as error:
        what = f"has a member that cannot be unpacked ({_brief(error)})"
    except OSError as error:
        if error.errno not in _MEMBERS_FAULT:
            raise
        what = f"has a member that cannot be unpacked ({_brief(error)})"
    raise _refusal(where, what) from None


_MEMBERS_FAULT = (
    None,  # tarfile's own
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
)
"""Errors that hostile names and links cause. Other errors come from the directory or the disk."""


class _Stream:
    """The file that tarfile reads: decompresses, and refuses headers that would fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._source = gzip.GzipFile(fileobj=file) if compressed else file
        self._last_read = b""
        self._headers = 0
        self._in_data = False
        """Whether a member's data is read, and not a header."""
        self.seek, self.tell = self._source.seek, self._source.tell

    @contextmanager
    def passing_data(self) -> Iterator[None]:
        """Take what is read in the block for a member's data, not for a header."""
        self._in_data = True
        yield
        self._in_data = False

    def read(self, size: int) -> bytes:
        if not self._in_data:
            self._headers += size
            if size > _LARGEST_HEADER or self._headers > _ALL_HEADERS:
                raise tarfile.ReadError(
                    f"a header of {size} bytes, headers of {self._headers} bytes in total"
                )
        self._last_read = data = self._source.read(size)
        if not self._in_data and (data[156:157] == tarfile.GNUTYPE_SPARSE or b"GNU.sparse." in data):
            # tarfile reads their maps into memory, and their stated sizes are not those on the disk.
            raise tarfile.ReadError("sparse files are not supported")
        return data

    def finish(self, limit: int) -> None:
        """Call after the last member. Raises `EOFError` unless the archive has its proper end."""
        # tarfile treats any damage after the first member as the end.
        if self._last_read != _END_OF_TAR:
            raise EOFError
        # gzip's checksum comes last, and is only checked when everything is read.
        read = 0
        while read <= limit and (chunk := self._source.read(_CHUNK)):
            read += len(chunk)


def _extract_files(
    tar: tarfile.TarFile, stream: _Stream, app: Path, limits: Limits, where: str
) -> tuple[int, list[tarfile.TarInfo]]:
    """Unpack files and directories. Returns the count of members, and the members that are links."""
    links: list[tarfile.TarInfo] = []
    count = size = 0
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
        if member.size < 0:
            raise tarfile.ReadError("a member with a negative size")
        count, size = count + 1, size + member.size
        if count > limits.members:
            raise _refusal(
                where,
                f"has more than {limits.members} members",
                "if that is intended, raise FLASH_ARTIFACT_MAX_MEMBERS.",
            )
        if size > limits.size:
            raise _refusal(
                where,
                f"unpacks to more than {limits.size} bytes",
                "if that is intended, raise FLASH_ARTIFACT_MAX_BYTES.",
            )
        _refuse_name(member, where)
        if member.issym() or member.islnk():
            links.append(member)
        elif member.isreg() or member.isdir():
            with stream.passing_data():
                _extract_one(tar, member, app, where)
        else:
            raise _refusal(where, f"has a device or another special file, {_shown(member.name)}")
    return count, links


def _extract_links(tar: tarfile.TarFile, links: list[tarfile.TarInfo], app: Path, where: str) -> None:
    # Hard links first: while there is no symbolic link, none of them can name a file elsewhere.
    for link in sorted(links, key=tarfile.TarInfo.issym):
        _refuse_parent_outside(link, app, where)
        _extract_one(tar, link, app, where)
    for link in links:
        _refuse_link_outside(link, app, where)


def _extract_one(tar: tarfile.TarFile, member: tarfile.TarInfo, app: Path, where: str) -> None:
    try:
        tar.extract(member, app, filter="data")
    except tarfile.FilterError as error:
        raise _refusal(where, f"has a member that is not allowed: {_brief(error)}") from error


def _refuse_name(member: tarfile.TarInfo, where: str) -> None:
    if member.name.startswith("/"):
        raise _refusal(where, f"has a member with an absolute name, {_shown(member.name)}")
    if ".." in member.name.split("/"):
        raise _refusal(where, f"has a member that leaves the directory, {_shown(member.name)}")


def _refuse_parent_outside(link: tarfile.TarInfo, app: Path, where: str) -> None:
    # A directory in this link's name may be an earlier link.
    parent = os.path.dirname(os.path.join(app, link.name))  # noqa: PTH118, PTH120  names stay as they are
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)  # noqa: PTH120
    if not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(app)):
        raise _refusal(where, f"has a link that leaves the directory, {_shown(link.name)}")


def _refuse_link_outside(link: tarfile.TarInfo, app: Path, where: str) -> None:
    # The `data` filter checks the text of each link. Only the file system shows where several links lead.
    path = app / link.name
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(app)):
        raise _refusal(where, f"has a link that leaves the directory, {_shown(link.name)}")


def _refusal(where: str, what: str, remedy: str | None = None) -> ArtifactFault:
    return ArtifactFault(
        f"The build artifact {what}.",
        where=where,
        remedy=remedy or "make it again with `flash build`, and copy it completely.",
    )


def _brief(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if len(text) <= 200 else f"{text[:200]}…"


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}…"
