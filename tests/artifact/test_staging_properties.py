"""The artifact, whatever it is: unpacked within the directory, or an `ArtifactFault` and nothing changed."""

from __future__ import annotations

import functools
import gzip
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash_runtime.artifact import staging as artifact
from flash_runtime.config.settings import Settings
from flash_runtime.errors import ArtifactFault

MANY = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
HERE = "@"
"""Stands in a name for the test's own directory, which must stay as it is outside `app`."""
MANIFEST = tarfile.TarInfo("flash_manifest.json")

parts = st.sampled_from(
    ["a", "b", "c", "d", "..", ".", "", "flash_manifest.json", "outside", "app", "é", "~"]
)
names = (
    st.lists(parts, min_size=1, max_size=4).map("/".join)
    | st.sampled_from([f"{HERE}/outside", f"{HERE}/app/x", f"{HERE}/new", "/", "", "a/" * 60, "n" * 300])
    | st.sampled_from([artifact.MARKER, "../outside", "../app/a", "a\\..\\b", "a\nb", "\udcff", "../../../x"])
    | st.text(max_size=6).filter(lambda name: "\0" not in name)
)
kinds = st.sampled_from(
    [tarfile.REGTYPE] * 6
    + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE] * 3
    + [tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"]
)
tame = st.builds(
    lambda name, kind, link, content: (name, kind, link, content, 0o644),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=3).map("/".join),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    st.lists(st.sampled_from(["a", "b", "..", "."]), min_size=1, max_size=4).map("/".join),
    st.binary(max_size=10),
)
wild = st.tuples(names, kinds, names, st.binary(max_size=600), st.integers(0, 0o7777))
sequences = st.lists(tame, max_size=8) | st.lists(tame | wild, max_size=8)
formats = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


def pack(members: list[tuple[str, bytes, str, bytes, int]], form: int, directory: str) -> bytes:
    """A tar archive of a manifest and these members: their names, types, link names, contents and modes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        MANIFEST.size = 2
        tar.addfile(MANIFEST, io.BytesIO(b"{}"))
        for name, kind, link, content, mode in members:
            info = tarfile.TarInfo(name.replace(HERE, directory))
            info.type, info.linkname, info.mode = kind, link.replace(HERE, directory), mode
            info.size = len(content) if info.isreg() or kind == b"?" else 0
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def snapshot(directory: Path) -> dict[str, tuple[int, str | bytes]]:
    """Every path below the directory, with its type and mode, and its content or what it links to."""
    found: dict[str, tuple[int, str | bytes]] = {}
    for at, directories, files in os.walk(directory):
        for name in directories + files:
            path = Path(at, name)
            mode = path.lstat().st_mode
            content: str | bytes = b""
            if stat.S_ISLNK(mode):
                content = os.readlink(path)  # noqa: PTH115  as it is
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
            found[str(path.relative_to(directory))] = (mode, content)
    return found


def assert_within(app: Path) -> None:
    """All that was unpacked is a file, a directory, or a link to something within."""
    inodes: dict[int, int] = {}
    for name, (mode, _) in snapshot(app).items():
        path = app / name
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode), name
        assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX), name
        if stat.S_ISLNK(mode):
            assert Path(os.path.realpath(path)).is_relative_to(app), name
        if stat.S_ISREG(mode):
            assert os.access(path, os.R_OK), name
            inodes[path.stat().st_ino] = inodes.get(path.stat().st_ino, 0) + 1
            assert inodes[path.stat().st_ino] <= path.stat().st_nlink
    # A link is not followed: it may name what no file can be called.
    found = [path.lstat() for path in app.rglob("*") if not path.is_symlink() and path.is_file()]
    links = {each.st_ino: each.st_nlink for each in found}
    assert all(inodes[each] == count for each, count in links.items()), "a hard link to a file elsewhere"


def judge(make: Callable[[str], bytes]) -> dict[str, tuple[int, str | bytes]]:
    """Prepare what `make` makes, in place of an application that is there; returns what was unpacked."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(os.path.realpath(name))
        app = directory / "app"
        app.mkdir()
        (app / artifact.MARKER).write_text("before")
        (app / "flash_manifest.json").write_text('{"before": 1}')
        (app / "a").write_text("before")
        (directory / "outside").write_text("secret")
        (directory / "artifact.tar.gz").write_bytes(make(str(directory)))
        before = snapshot(directory)
        environ = {
            "FLASH_BUILD_ARTIFACT_PATH": f"{directory}/artifact.tar.gz",
            "FLASH_APP_DIR": str(app),
            "FLASH_ARTIFACT_MAX_BYTES": "100000",
        }
        try:
            with artifact.stage(Settings.from_environ(environ)) as staged:
                staged.manifest.read_bytes()
                staged.commit()
        except ArtifactFault:
            assert snapshot(directory) == before
            return {}
        assert_within(app)
        unpacked = snapshot(app)
        del unpacked[artifact.MARKER]
        assert not (app / artifact.MARKER).is_symlink()
        after = snapshot(directory)
        for tree in (before, after):
            for path in [path for path in tree if path == "app" or path.startswith("app/")]:
                del tree[path]
        assert after == before
        return unpacked


@MANY
@given(sequences, formats, st.booleans())
def test_any_members_are_unpacked_within_the_directory_or_change_nothing(members, form, compressed):
    def make(directory: str) -> bytes:
        tar = pack(members, form, directory)
        return gzip.compress(tar, 1) if compressed else tar

    judge(make)


@settings(MANY, max_examples=100)
@given(st.lists(st.tuples(parts, parts), max_size=4), st.permutations(["a", "b", "c", "d"]), formats)
def test_chains_of_links_lead_within_the_directory_or_change_nothing(links, order, form):
    """Each link goes through those before it."""
    members = [("a/b/c/d", tarfile.DIRTYPE, "", b"", 0o755)]
    for number, (first, second) in enumerate(links):
        through = f"l{number - 1}" if number else order[0]
        kind = tarfile.SYMTYPE if number % 2 == 0 else tarfile.LNKTYPE
        members += [
            (f"l{number}", tarfile.SYMTYPE, f"{through}/{first}/{second}", b"", 0o777),
            (f"{through}/{order[1]}", kind, f"{first}/{second}/{order[2]}", b"", 0o777),
            (f"l{number}/{order[3]}", tarfile.REGTYPE, "", b"written", 0o644),
        ]
    judge(lambda directory: pack(members, form, directory))


def test_what_is_proper_is_taken():
    members = [
        ("pkg/main.py", tarfile.REGTYPE, "", b"x", 0o644),
        ("pkg/link.py", tarfile.SYMTYPE, "main.py", b"", 0o777),
        ("same.py", tarfile.LNKTYPE, "pkg/main.py", b"", 0o644),
    ]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert judge(lambda directory, form=form: pack(members, form, directory))


PROPER = pack(
    [
        ("pkg", tarfile.DIRTYPE, "", b"", 0o755),
        ("pkg/main.py", tarfile.REGTYPE, "", bytes(range(256)) * 3, 0o644),
        ("pkg/" + "n" * 120, tarfile.REGTYPE, "", b"long", 0o644),
        ("pkg/é.py", tarfile.REGTYPE, "", b"", 0o644),
        ("link", tarfile.SYMTYPE, "pkg/main.py", b"", 0o777),
        ("same", tarfile.LNKTYPE, "pkg/main.py", b"", 0o644),
    ],
    tarfile.PAX_FORMAT,
    "",
)
PROPER_GZ = gzip.compress(PROPER, mtime=0)


@functools.cache
def undamaged() -> dict[str, tuple[int, str | bytes]]:
    return judge(lambda directory: PROPER_GZ)


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Cut short, or with some bits flipped, bytes put in or left out."""
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        change = data.draw(st.sampled_from(["flip", "flip", "set", "insert", "remove"]))
        if change == "flip":
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "set":
            changed[at] = data.draw(st.integers(0, 255))
        elif change == "insert":
            changed[at:at] = data.draw(st.binary(max_size=20))
        else:
            del changed[at : at + data.draw(st.sampled_from([1, 512, 1024]))]
        if not changed:
            break
    return bytes(changed)


@MANY
@given(st.data())
def test_any_damage_to_a_compressed_artifact_changes_nothing_or_does_not_matter(data):
    content = damaged(data, PROPER_GZ)
    assert judge(lambda directory: content) in ({}, undamaged())


@MANY
@given(st.data())
def test_any_damage_to_a_tar_archive_is_unpacked_within_the_directory_or_changes_nothing(data):
    content = damaged(data, PROPER)
    if data.draw(st.booleans()):
        content = gzip.compress(content, 1)
    judge(lambda directory: content)


@MANY
@given(st.data())
def test_headers_that_lie_are_unpacked_within_the_directory_or_change_nothing(data):
    """Any bytes in a header, under a checksum that is right."""
    content = bytearray(PROPER)
    header = 512 * data.draw(st.sampled_from([0, 2, 3]))
    for _ in range(data.draw(st.integers(1, 3))):
        start, size = data.draw(
            st.sampled_from([(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)])
        )
        field = data.draw(st.binary(max_size=size) | st.sampled_from([b"../x", b"/x", b"7" * 11, b"x", b"L"]))
        field = field[:size]
        content[header + start : header + start + len(field)] = field
    block = content[header : header + 512]
    block[148:156] = b" " * 8
    content[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    judge(lambda directory: bytes(content))
