"""A directory tree that nothing is written outside of, whatever the names and links of an archive say.

No path is resolved as text: a name that is longer than PATH_MAX, or a chain of links, makes that lie (the
class of CVE-2025-4517). Each step is opened relative to the directory before it, and a link is never
followed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1024 * 1024
_MOST_LINKS = 40
"""Links that Linux follows in one path (path_resolution(7)); past them, nothing is reached."""
_PATH_MAX = 4096
_DEEPEST = 256
"""Directories below each other: what walks the tree later may do so by recursion."""


class NotInTree(Exception):
    """A member cannot be in the tree. The text says what it is, for a fault."""


class Tree:
    """The tree below the empty directory `root`. Names are sequences of parts, none of which is `.` or `..`.

    Make all files and directories before the first link. Methods raise `NotInTree` for members that cannot be
    there, and `OSError` for whatever else the file system refuses.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._room = _PATH_MAX - len(os.fsencode(root)) - 2
        self._last: tuple[tuple[str, ...], int] = ((), os.dup(self._root))
        """The directory that was opened last: most members are beside the one before them."""

    def close(self) -> None:
        """Close what is open."""
        os.close(self._last[1])
        os.close(self._root)

    def make_directory(self, parts: Sequence[str]) -> None:
        """Make the directory and those above it, unless they are there."""
        self._directory(tuple(parts))

    def write(self, parts: Sequence[str], source: BinaryIO, mode: int, mtime: float) -> None:
        """Write what `source` has into a file; one of that name is replaced."""
        directory = self._directory(tuple(parts[:-1]))
        with open(os.open(parts[-1], _FILE, 0o600, dir_fd=directory), "wb") as file:  # noqa: PTH123
            shutil.copyfileobj(source, file, _CHUNK)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.utime(file.fileno(), (mtime, mtime))

    def link(self, parts: Sequence[str], target: Sequence[str]) -> None:
        """Make a hard link to a file of the tree."""
        source = os.dup(self._directory(tuple(target[:-1]), make=False))
        try:
            if not stat.S_ISREG(os.stat(target[-1], dir_fd=source, follow_symlinks=False).st_mode):
                raise NotInTree("a hard link to something that is not a file")
            directory = self._directory(tuple(parts[:-1]))
            os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)

    def symlink(self, parts: Sequence[str], target: str) -> None:
        """Make a symbolic link. It replaces a file or a link of that name. `leads_out` says where it
        leads."""
        directory = self._directory(tuple(parts[:-1]))
        try:
            os.symlink(target, parts[-1], dir_fd=directory)
        except FileExistsError:
            os.unlink(parts[-1], dir_fd=directory)
            os.symlink(target, parts[-1], dir_fd=directory)

    def leads_out(self, parts: Sequence[str]) -> bool:
        """Whether the path leads out of the tree, through whatever links. Call it once all links are made."""
        return _Walk(self._root).leads_out(parts)

    def _directory(self, parts: tuple[str, ...], *, make: bool = True) -> int:
        """A descriptor of the directory, which stays open until the next call."""
        known, descriptor = self._last
        if parts == known:
            return descriptor
        if len(parts) > _DEEPEST:
            raise NotInTree(f"a member below more than {_DEEPEST} directories")
        if sum(len(os.fsencode(part)) + 1 for part in parts) > self._room:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        # What the last one is below was opened already, so none of it is a link.
        start = len(known) if parts[: len(known)] == known else 0
        current = os.dup(descriptor if start else self._root)
        for part in parts[start:]:
            current = _step(current, part, make=make)
        os.close(descriptor)
        self._last = parts, current
        return current


def _step(directory: int, part: str, *, make: bool) -> int:
    """The directory `part` of this one, which is closed."""
    try:
        try:
            return os.open(part, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            if not make:
                raise
        os.mkdir(part, dir_fd=directory)
        return os.open(part, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotInTree("a member below something that is not a directory") from None
        raise
    finally:
        os.close(directory)


class _Walk:
    """Follows one path from the tree's root, part by part, as the kernel would."""

    def __init__(self, root: int) -> None:
        self._stack = [root]
        self._missing = 0
        """How many directories deep the path is below what is there."""

    def leads_out(self, parts: Sequence[str]) -> bool:
        waiting = list(reversed(parts))
        links = 0
        try:
            while waiting:
                part = waiting.pop()
                if part == "..":
                    if not self._go_up():
                        return True
                elif part not in ("", "."):
                    target = self._go_down(part)
                    if target is not None:
                        links += 1
                        if target.startswith("/"):
                            return True
                        if links > _MOST_LINKS:
                            return False
                        waiting += reversed(target.split("/"))
            return False
        finally:
            for descriptor in self._stack[1:]:
                os.close(descriptor)

    def _go_up(self) -> bool:
        """False if that leaves the tree."""
        if self._missing:
            self._missing -= 1
        elif len(self._stack) > 1:
            os.close(self._stack.pop())
        else:
            return False
        return True

    def _go_down(self, part: str) -> str | None:
        """The target, if it is a link; else the walk is in it, or where it would be."""
        if not self._missing:
            try:
                mode = os.stat(part, dir_fd=self._stack[-1], follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    return os.readlink(part, dir_fd=self._stack[-1])
                if stat.S_ISDIR(mode):
                    self._stack.append(os.open(part, _DIRECTORY, dir_fd=self._stack[-1]))
                    return None
            except FileNotFoundError:
                pass
        self._missing += 1
        return None


@contextmanager
def tree(root: Path) -> Iterator[Tree]:
    """The tree below the empty directory `root`, until the block ends."""
    made = Tree(root)
    try:
        yield made
    finally:
        made.close()
