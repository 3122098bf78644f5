"""Unpacks a tar archive that is not trusted.

tarfile reads the headers; what is written is written by `tree.Tree`, which nothing leaves. Sizes are bounded,
and links are made after all files, so that nothing is ever written through a link.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from flash_runtime.artifact.tree import NotInTree, Tree, tree
from flash_runtime.errors import ArtifactFault, Fault

_LARGEST_HEADER = 64 * 1024
_ALL_HEADERS = 256 * 1024 * 1024
_CHUNK = 1024 * 1024
_END_OF_TAR = bytes(tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many members an archive may have, and how many bytes they may have in total, unpacked."""

    members: int
    size: int


class Extracted(NamedTuple):
    """What was unpacked."""

    members: int
    digest: str
    """The SHA-256 of the very bytes that were unpacked."""


def extract(file: BinaryIO, app: Path, limits: Limits, where: str) -> Extracted:
    """Unpack a tar archive, plain or gzip, into the empty directory `app`.

    Raises:
        ArtifactFault: The archive, which the fault names as `where`, is damaged, exceeds the limits, or has a
            member that is not a file, a directory or a link within `app`.
        OSError: Something else failed: the disk is full, or the directory cannot be written.
    """
    try:
        stream = _Stream(file)
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:") as tar, tree(app) as place:
            count, links = _extract_files(tar, stream, place, limits, where)
            stream.finish(limits.size)
            _extract_links(place, links, where)
            return Extracted(count, stream.digest())
    except Fault:
        raise
    except NotInTree as refused:
        what = f"has {refused}"
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


class _Hashed:
    """A file that is read once, from its start to its end, and hashed meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def digest(self) -> str:
        """The SHA-256 of the whole file, whose rest is read."""
        while self.read(_CHUNK):
            pass
        return self._hash.hexdigest()


class _Stream:
    """The file that tarfile reads: decompresses, and refuses headers that would fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._hashed = _Hashed(file)
        source = cast(BinaryIO, self._hashed)
        self._source = gzip.GzipFile(fileobj=source, mode="rb") if compressed else source
        self._position = 0
        self._last_read = b""
        self._headers = 0
        self._in_data = False
        """Whether a member's data is read, and not a header."""

    def tell(self) -> int:
        """How much was read."""
        return self._position

    def seek(self, position: int) -> None:
        """Read on to that position."""
        left = position - self._position
        if left < 0:
            raise tarfile.ReadError("a member whose place is before the one before it")
        while left > 0 and (skipped := self._source.read(min(left, _CHUNK))):
            self._position += len(skipped)
            left -= len(skipped)

    @contextmanager
    def passing_data(self) -> Iterator[None]:
        """Take what is read in the block for a member's data, not for a header."""
        self._in_data = True
        yield
        self._in_data = False

    def read(self, size: int) -> bytes:
        """What tarfile asks for. Raises `ReadError` for headers that would fill the memory."""
        if not self._in_data:
            self._headers += size
            if size > _LARGEST_HEADER or self._headers > _ALL_HEADERS:
                raise tarfile.ReadError(
                    f"a header of {size} bytes, headers of {self._headers} bytes in total"
                )
        self._last_read = data = self._source.read(size)
        self._position += len(data)
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

    def digest(self) -> str:
        """The SHA-256 of the file."""
        return self._hashed.digest()


def _extract_files(
    tar: tarfile.TarFile, stream: _Stream, place: Tree, limits: Limits, where: str
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
        parts = _parts(member.name, where)
        if member.issym() or member.islnk():
            links.append(member)
        elif member.isdir():
            place.make_directory(parts)
        elif member.isreg():
            with stream.passing_data():
                _extract_file(tar, member, place, parts)
        else:
            raise _refusal(where, f"has a device or another special file, {_shown(member.name)}")
    return count, links


def _extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Tree, parts: list[str]) -> None:
    data = tar.extractfile(member)
    assert data is not None, "it is a file"
    if not parts:
        raise NotInTree("a file in the place of the directory itself")
    # As tarfile's `data` filter has it: others cannot write, nothing is set-user-ID, and the owner can read.
    mode = member.mode & 0o755 | 0o600
    place.write(parts, cast(BinaryIO, data), mode if mode & 0o100 else mode & ~0o111, member.mtime)


def _extract_links(place: Tree, links: list[tarfile.TarInfo], where: str) -> None:
    # Hard links first: while there is no symbolic link, none of them can name a file elsewhere.
    for link in sorted(links, key=tarfile.TarInfo.issym):
        parts = _parts(link.name, where)
        if not parts:
            raise NotInTree("a link in the place of the directory itself")
        if link.issym():
            place.symlink(parts, link.linkname)
        else:
            place.link(parts, _parts(link.linkname, where) or ["."])
    for link in links:
        if link.issym() and place.leads_out(_parts(link.name, where)):
            raise _refusal(where, f"has a link that leaves the directory, {_shown(link.name)}")


def _parts(name: str, where: str) -> list[str]:
    """The names in a member's path. Raises `ArtifactFault` if it leaves the directory."""
    if name.startswith("/"):
        raise _refusal(where, f"has a member with an absolute name, {_shown(name)}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refusal(where, f"has a member that leaves the directory, {_shown(name)}")
    return parts


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
