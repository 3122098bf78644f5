"""The artifact: found, verified, unpacked and put into place, or refused without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.artifact import staging as artifact
from flash_runtime.config.settings import Settings
from flash_runtime.errors import ArtifactFault, ArtifactMissingFault, ManifestFault, SettingFault

pytestmark = pytest.mark.smoke

MANIFEST = ("flash_manifest.json", b"{}")


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def pack(path: Path, *members: tuple, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in [member(*MANIFEST), *members]:
            tar.addfile(info, io.BytesIO(content))
    return path


def prepare(settings: Settings) -> Path:
    """Stage, read and commit, as the package is opened; returns the application's directory."""
    with artifact.stage(settings) as staged:
        if "refuse" in staged.manifest.read_text():
            raise ManifestFault("no", where=staged.where)
        staged.commit()
    return staged.app_dir


@pytest.fixture
def place(tmp_path):
    """Prepares `tmp_path/app` from `tmp_path/artifact.tar.gz` with these settings."""

    def place(**settings: object) -> Path:
        environ = {
            "FLASH_BUILD_ARTIFACT_PATH": tmp_path / "artifact.tar.gz",
            "FLASH_APP_DIR": tmp_path / "app",
            "FLASH_ARTIFACT_WAIT": 0,
        }
        text = {name: str(value) for name, value in {**environ, **settings}.items()}
        return prepare(Settings.from_environ(text))

    return place


def files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file() and path.name != artifact.MARKER
    }


def assert_nothing_is_left(tmp_path: Path) -> None:
    assert not any((tmp_path / "app").iterdir()) if (tmp_path / "app").exists() else True
    assert not list(tmp_path.rglob(".flash-unpacking-*"))


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_an_artifact_is_unpacked_with_its_links_and_modes(tmp_path, place, mode):
    script, _ = member("bin/run", b"#!")
    script.mode = 0o4777
    pack(
        tmp_path / "artifact.tar.gz",
        member("pkg", kind=tarfile.DIRTYPE),
        member("pkg/main.py", b"x = 1"),
        member("pkg/latest.py", kind=tarfile.SYMTYPE, link="main.py"),
        member("pkg/same.py", kind=tarfile.LNKTYPE, link="pkg/main.py"),
        (script, b"#!"),
        mode=mode,
    )
    app = place()
    assert app == tmp_path / "app"
    assert files(app) == {
        "flash_manifest.json": "{}",
        "pkg/main.py": "x = 1",
        "pkg/latest.py": "x = 1",
        "pkg/same.py": "x = 1",
        "bin/run": "#!",
    }
    assert (app / "bin/run").stat().st_mode & 0o7777 == 0o755
    assert (app / "pkg/latest.py").is_symlink()
    assert not list(tmp_path.glob(".flash*"))


def test_an_artifact_packed_by_gnu_tar_is_unpacked(tmp_path, place):
    source = tmp_path / "source"
    source.mkdir()
    (source / "flash_manifest.json").write_text("{}")
    deep = source / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "ümlaut.txt").write_text("deep")
    subprocess.run(["tar", "czf", tmp_path / "artifact.tar.gz", "-C", source, "."], check=True)
    assert "deep" in files(place()).values()


def test_a_restart_on_the_same_volume_brings_the_new_artifact_and_removes_the_old_files(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz", member("old.py", b"old"))
    place()
    pack(tmp_path / "artifact.tar.gz", member("new.py", b"new"))
    assert files(place()) == {"flash_manifest.json": "{}", "new.py": "new"}
    assert not list(tmp_path.glob(".flash*"))


def test_a_refused_artifact_leaves_the_application_that_was_there(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz", member("old.py", b"old"))
    before = files(place())
    pack(tmp_path / "artifact.tar.gz", member("../x", b"evil"))
    with pytest.raises(ArtifactFault):
        place()
    assert files(tmp_path / "app") == before


def test_a_refused_manifest_leaves_the_application_that_was_there(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz", member("old.py", b"old"))
    before = files(place())
    pack(tmp_path / "artifact.tar.gz", member("flash_manifest.json", b'{"refuse": 1}'))
    with pytest.raises(ManifestFault, match=r"artifact\.tar\.gz: flash_manifest\.json"):
        place()
    assert files(tmp_path / "app") == before


def test_what_is_staged_can_be_read_and_replaces_nothing_until_it_is_committed(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz", member("old.py", b"old"))
    before = files(place())
    path = pack(tmp_path / "artifact.tar.gz", member("new.py", b"new"))
    environ = {"FLASH_BUILD_ARTIFACT_PATH": str(path), "FLASH_APP_DIR": str(tmp_path / "app")}
    with artifact.stage(Settings.from_environ(environ)) as staged:
        assert staged.app_dir == tmp_path / "app"
        assert staged.manifest == staged.files / "flash_manifest.json"
        assert files(staged.files) == {"flash_manifest.json": "{}", "new.py": "new"}
        assert files(tmp_path / "app") == before
    assert files(tmp_path / "app") == before
    assert not list(tmp_path.glob(".flash*"))


@pytest.fixture
def mounted(tmp_path):
    """`tmp_path/app` as a file system of its own."""
    app = tmp_path / "app"
    app.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", app], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting takes privileges")
    yield app
    subprocess.run(["umount", "-l", app], check=True)


def test_a_mounted_directory_is_filled_and_refilled(tmp_path, place, mounted):
    (mounted / "lost+found").mkdir()
    for name in ("old.py", "new.py"):
        pack(tmp_path / "artifact.tar.gz", member(name, b"x"), member("pkg/a.py", b"a"))
        assert set(files(place())) == {"flash_manifest.json", name, "pkg/a.py"}
    assert {entry.name for entry in mounted.iterdir()} == {
        "lost+found", "flash_manifest.json", "new.py", "pkg", artifact.MARKER,
    }  # fmt: skip


@pytest.fixture
def bound(tmp_path):
    """`tmp_path/app` as another name of `tmp_path/volume`: a mount that only a refused rename reveals."""
    app, volume = tmp_path / "app", tmp_path / "volume"
    app.mkdir()
    volume.mkdir()
    if subprocess.run(["mount", "--bind", volume, app], check=False, capture_output=True).returncode:
        pytest.skip("mounting takes privileges")
    yield volume
    subprocess.run(["umount", "-l", app], check=True)


def test_a_bind_mount_of_the_same_file_system_is_filled_and_refilled(tmp_path, place, bound):
    for name in ("old.py", "new.py"):
        pack(tmp_path / "artifact.tar.gz", member(name, b"x"))
        place()
        assert files(bound) == {"flash_manifest.json": "{}", name: "x"}
    assert not list(tmp_path.rglob(".flash-unpacking-*"))


def test_an_artifact_that_changes_after_its_manifest_was_read_replaces_nothing(tmp_path, place, bound):
    path = pack(tmp_path / "artifact.tar.gz", member("old.py", b"old"))
    place()
    before = files(bound)
    environ = {"FLASH_BUILD_ARTIFACT_PATH": str(path), "FLASH_APP_DIR": str(tmp_path / "app")}
    with artifact.stage(Settings.from_environ(environ)) as staged:
        pack(path, member("flash_manifest.json", b'{"refuse": 1}'))  # into the same file, which is open
        with pytest.raises(ArtifactFault, match="changed while it was being unpacked"):
            staged.commit()
    assert files(bound) == before
    assert not list(tmp_path.rglob(".flash-unpacking-*"))


def test_an_unpacking_that_was_killed_while_it_refilled_is_mended(tmp_path, place, mounted):
    pack(tmp_path / "artifact.tar.gz", member("a.py", b"a"))
    place()
    (mounted / "flash_manifest.json").unlink()  # the first to go
    left = mounted / ".flash-unpacking-dead" / "old"
    left.mkdir(parents=True)
    (mounted / "a.py").rename(left / "a.py")
    assert files(place()) == {"flash_manifest.json": "{}", "a.py": "a"}


def test_what_a_killed_unpacking_left_is_removed_and_what_another_is_at_stays(tmp_path, place):
    (tmp_path / ".flash-unpacking-dead").mkdir()
    (tmp_path / ".flash-unpacking-busy").mkdir()
    pack(tmp_path / "artifact.tar.gz")
    descriptor = os.open(tmp_path / ".flash-unpacking-busy", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        place()
    finally:
        os.close(descriptor)
    assert [path.name for path in tmp_path.glob(".flash-*")] == [".flash-unpacking-busy"]


def test_files_that_no_artifact_left_are_never_replaced(tmp_path, place):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "thesis.txt").write_text("years of work")
    pack(tmp_path / "artifact.tar.gz")
    with pytest.raises(SettingFault, match=r"thesis\.txt"):
        place()
    assert files(tmp_path / "app") == {"thesis.txt": "years of work"}


def test_a_directory_that_cannot_be_written_is_named(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz")
    with pytest.raises(SettingFault, match="FLASH_APP_DIR=/proc/app"):
        place(FLASH_APP_DIR="/proc/app")


def test_a_full_disk_is_the_directorys_fault(tmp_path, place, mounted):
    subprocess.run(["mount", "-o", "remount,size=64k", mounted], check=True)
    pack(tmp_path / "artifact.tar.gz", member("big", os.urandom(500_000)))
    with pytest.raises(SettingFault, match="No space left"):
        place()
    assert_nothing_is_left(tmp_path)


HOSTILE: dict[str, tuple[tuple, ...]] = {
    "traversal": (member("../x", b"x"),),
    "traversal-inside": (member("a/../../x", b"x"),),
    "absolute": (member("/etc/x-flash", b"x"),),
    "symlink-out": (member("l", kind=tarfile.SYMTYPE, link="../../x"),),
    "symlink-absolute": (member("l", kind=tarfile.SYMTYPE, link="/etc/passwd"),),
    "symlink-chain": (
        member("p/q/d", kind=tarfile.SYMTYPE, link="../.."),
        member("e", kind=tarfile.SYMTYPE, link="p/q/d/../x"),
    ),
    "write-through-symlink": (
        member("p/q/d", kind=tarfile.SYMTYPE, link="../.."),
        member("e", kind=tarfile.SYMTYPE, link="p/q/d/.."),
        member("e/x", kind=tarfile.SYMTYPE, link="y"),
    ),
    "hard-link-out": (member("l", kind=tarfile.LNKTYPE, link="../x"),),
    "hard-link-to-symlink-out": (
        member("s", kind=tarfile.SYMTYPE, link="../x"),
        member("l", kind=tarfile.LNKTYPE, link="s"),
    ),
    "hard-link-to-nothing": (member("l", kind=tarfile.LNKTYPE, link="nothing"),),
    "character-device": (member("d", kind=tarfile.CHRTYPE),),
    "block-device": (member("d", kind=tarfile.BLKTYPE),),
    "pipe": (member("d", kind=tarfile.FIFOTYPE),),
    "file-as-directory": (member("a", b"x"), member("a/b", b"x")),
    "long-name": (member("n" * 400, b"x"),),
    "deep-name": (member("/".join(["a"] * 2000), b"x"),),
    "marker": (member(artifact.MARKER, kind=tarfile.SYMTYPE, link="a.py"),),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_refused_and_nothing_is_left(tmp_path, place, case):
    pack(tmp_path / "artifact.tar.gz", *HOSTILE[case])
    with pytest.raises(ArtifactFault) as caught:
        place()
    assert str(tmp_path / "artifact.tar.gz") in str(caught.value)
    assert_nothing_is_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"artifact.tar.gz", "app"}
    assert not Path("/etc/x-flash").exists()


def test_a_symlink_loop_inside_is_harmless(tmp_path, place):
    pack(
        tmp_path / "artifact.tar.gz",
        member("a", kind=tarfile.SYMTYPE, link="b"),
        member("b", kind=tarfile.SYMTYPE, link="a"),
    )
    with contextlib.suppress(ArtifactFault):
        place()
    assert {path.name for path in tmp_path.iterdir()} == {"artifact.tar.gz", "app"}


def test_too_many_members_are_refused(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz", *(member(f"f{number}") for number in range(30)))
    with pytest.raises(ArtifactFault, match="FLASH_ARTIFACT_MAX_MEMBERS"):
        place(FLASH_ARTIFACT_MAX_MEMBERS=30)
    assert_nothing_is_left(tmp_path)
    place(FLASH_ARTIFACT_MAX_MEMBERS=31)


def test_ten_times_the_allowed_size_is_refused_before_it_is_written(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz", member("zeros", bytes(10_000_000)))
    assert (tmp_path / "artifact.tar.gz").stat().st_size < 50_000
    with pytest.raises(ArtifactFault, match="FLASH_ARTIFACT_MAX_BYTES"):
        place(FLASH_ARTIFACT_MAX_BYTES=1_000_000)
    assert_nothing_is_left(tmp_path)


def pax(**records: str) -> bytes:
    """A PAX header block with these records, as an archive has it before a member."""
    info = tarfile.TarInfo("member")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")[: -tarfile.BLOCKSIZE]


def plain(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header block, with `size` zero bytes after it."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(-(-size // 512) * 512)


BOMBS = {
    "long-name-of-megabytes": plain("././@LongLink", 3_000_000, tarfile.GNUTYPE_LONGNAME),
    "pax-header-of-megabytes": pax(comment="x" * 1_000_000) + plain("a"),
    "endless-headers": plain("x", 0, tarfile.XHDTYPE) * 60_000,
    "negative-size": pax(size="-99999999") + plain("a"),
    "sparse-of-pax": pax(**{"GNU.sparse.major": "0", "GNU.sparse.map": "0,4000000", "size": "2"})
    + plain("a"),
    "sparse-of-gnu": plain("a", 512, tarfile.GNUTYPE_SPARSE),
}


@pytest.mark.parametrize("case", BOMBS)
def test_headers_that_would_fill_the_memory_or_lie_are_refused(tmp_path, place, case):
    with gzip.open(tmp_path / "artifact.tar.gz", "wb") as out:
        out.write(plain("flash_manifest.json", 2) + BOMBS[case] + bytes(1024))
    with pytest.raises(ArtifactFault):
        place()
    assert_nothing_is_left(tmp_path)


def _truncate(count: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:count]


@pytest.mark.parametrize(
    ("mode", "damage"),
    [
        ("w:gz", lambda data: data[: len(data) // 2]),
        ("w:gz", lambda data: data[:-4]),
        ("w:gz", lambda data: data[:-8] + b"\0\0\0\0" + data[-4:]),
        ("w:gz", lambda data: b"not a tar archive, but a page that says so\n" * 50),
        ("w:gz", lambda data: b""),
        ("w:gz", lambda data: data[:2]),
        ("w", _truncate(512)),
        ("w", _truncate(1024)),
        ("w", _truncate(2048)),
        ("w", lambda data: data[:1024] + b"\xff" * 512 + data[1536:]),
        ("w", lambda data: gzip.compress(data[:1024])),
    ],
    ids=[
        "gz-half", "gz-no-trailer", "gz-bad-checksum", "text", "empty", "two-bytes", "tar-in-file",
        "tar-after-first", "tar-after-second", "tar-bad-header", "gz-of-truncated-tar",
    ],
)  # fmt: skip
def test_a_damaged_artifact_is_refused_and_nothing_is_left(tmp_path, place, mode, damage):
    path = pack(tmp_path / "artifact.tar.gz", member("a.py", b"x" * 512), mode=mode)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactFault):
        place()
    assert_nothing_is_left(tmp_path)


@given(st.binary(max_size=2000) | st.binary(max_size=2000).map(gzip.compress))
def test_no_bytes_raise_anything_but_a_fault(data):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.tar.gz")
        path.write_bytes(data)
        environ = {"FLASH_BUILD_ARTIFACT_PATH": str(path), "FLASH_APP_DIR": f"{directory}/app"}
        with pytest.raises(ArtifactFault):
            prepare(Settings.from_environ(environ))


def test_an_artifact_without_a_manifest_is_refused_with_what_it_has(tmp_path, place):
    with tarfile.open(tmp_path / "artifact.tar.gz", "w:gz") as tar:
        info, content = member("shop/flash_manifest.json", b"{}")
        tar.addfile(info, io.BytesIO(content))
    with pytest.raises(ArtifactFault, match="It has 'shop'"):
        place()
    assert_nothing_is_left(tmp_path)


def test_the_checksum_decides(tmp_path, place):
    path = pack(tmp_path / "artifact.tar.gz")
    with pytest.raises(ArtifactFault, match="FLASH_ARTIFACT_SHA256"):
        place(FLASH_ARTIFACT_SHA256="0" * 64)
    assert_nothing_is_left(tmp_path)
    place(FLASH_ARTIFACT_SHA256=hashlib.sha256(path.read_bytes()).hexdigest().upper())


def test_a_late_artifact_is_waited_for(tmp_path, place):
    ready = pack(tmp_path / "elsewhere.tar.gz", member("late.py", b"late"))
    timer = threading.Timer(0.5, lambda: ready.rename(tmp_path / "artifact.tar.gz"))
    timer.start()
    try:
        assert "late.py" in files(place(FLASH_ARTIFACT_WAIT=20))
    finally:
        timer.join()


def test_a_missing_artifact_is_given_up_after_the_wait(tmp_path, place):
    begun = time.monotonic()
    with pytest.raises(ArtifactMissingFault, match=r"artifact\.tar\.gz"):
        place(FLASH_ARTIFACT_WAIT=0.4)
    assert time.monotonic() - begun >= 0.4


def test_a_directory_in_the_artifacts_place_is_explained(tmp_path, place):
    (tmp_path / "artifact.tar.gz").mkdir()
    with pytest.raises(ArtifactFault, match="Docker creates a directory"):
        place()


def test_an_unpacked_application_is_served_from_where_it_is(tmp_path, place):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "flash_manifest.json").write_text("{}")
    assert place(FLASH_ARTIFACT_WAIT=600) == tmp_path / "app"
    pack(tmp_path / "artifact.tar.gz", member("x.py", b"x"))
    assert place(FLASH_DISABLE_UNPACK=1) == tmp_path / "app"
    assert files(tmp_path / "app") == {"flash_manifest.json": "{}"}


def test_disable_unpack_without_an_application_says_so(tmp_path, place):
    pack(tmp_path / "artifact.tar.gz")
    with pytest.raises(ArtifactMissingFault, match="FLASH_DISABLE_UNPACK") as caught:
        place(FLASH_DISABLE_UNPACK=1)
    assert caught.value.where == str(tmp_path / "app" / "flash_manifest.json")


def test_a_link_to_the_directory_is_followed(tmp_path, place):
    (tmp_path / "real").mkdir()
    (tmp_path / "app").symlink_to("real")
    pack(tmp_path / "artifact.tar.gz")
    assert place() == tmp_path / "real"
    assert (tmp_path / "app").is_symlink()


def behind_short_links(*after: tuple) -> list[tuple]:
    """Members whose links, resolved as text, are longer than PATH_MAX: there `realpath` gives up."""
    found, path, steps = [], "", "abcdefghijklmnop"
    for letter in steps:
        found += [
            member(f"{path}{'d' * 247}", kind=tarfile.DIRTYPE),
            member(f"{path}{letter}", kind=tarfile.SYMTYPE, link="d" * 247),
        ]
        path += f"{'d' * 247}/"
    far = f"{'/'.join(steps)}/{'l' * 254}"
    return [
        *found,
        member(far, kind=tarfile.SYMTYPE, link="../" * len(steps)),
        member("escape", kind=tarfile.SYMTYPE, link=f"{far}/../../victim"),
        *after,
    ]


def test_links_that_are_longer_than_a_path_may_be_lead_nowhere(tmp_path, place):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "keep").write_text("precious")
    pack(
        tmp_path / "artifact.tar.gz",
        *behind_short_links(
            member("escape/planted", kind=tarfile.SYMTYPE, link="keep"),
            member("escape/keep", kind=tarfile.SYMTYPE, link="nowhere"),
        ),
    )
    with pytest.raises(ArtifactFault):
        place()
    assert {path.name for path in (tmp_path / "victim").iterdir()} == {"keep"}
    assert (tmp_path / "victim" / "keep").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} <= {"artifact.tar.gz", "app", "victim"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_the_place_of_a_directory_is_refused_and_not_left_out(tmp_path, place, kind):
    files = [member("d/x", b"x"), member("a", b"a"), member("d", kind=kind, link="a")]
    pack(tmp_path / "artifact.tar.gz", *files)
    with pytest.raises(ArtifactFault):
        place()
    assert_nothing_is_left(tmp_path)


def test_a_link_below_a_link_is_refused_also_within_the_directory(tmp_path, place):
    pack(
        tmp_path / "artifact.tar.gz",
        member("real/x", b"x"),
        member("other", kind=tarfile.SYMTYPE, link="real"),
        member("other/y", kind=tarfile.SYMTYPE, link="x"),
    )
    with pytest.raises(ArtifactFault, match="below something that is not a directory"):
        place()
    assert_nothing_is_left(tmp_path)


def test_an_artifact_that_is_overwritten_after_its_checksum_is_refused(tmp_path, place, monkeypatch):
    archive = tmp_path / "artifact.tar"
    pack(archive, member("data", b"expected" * 1000), mode="w")
    original = archive.read_bytes()
    expected = hashlib.sha256(original).hexdigest()
    at_first = hashlib.file_digest

    def overwritten_after(file, name):
        found = at_first(file, name)
        archive.write_bytes(original.replace(b"expected", b"replaced"))
        return found

    monkeypatch.setattr(hashlib, "file_digest", overwritten_after)
    with pytest.raises(ArtifactFault, match="is not the expected one"):
        place(FLASH_BUILD_ARTIFACT_PATH=archive, FLASH_ARTIFACT_SHA256=expected)
    assert_nothing_is_left(tmp_path)


def test_modes_of_files_are_those_that_are_safe(tmp_path, place):
    modes = {"run": 0o4777, "read": 0o666, "secret": 0o000, "others": 0o677}
    members = {name: member(name, b"x") for name in modes}
    for name, mode in modes.items():
        members[name][0].mode = mode
    pack(tmp_path / "artifact.tar.gz", *members.values())
    place()
    found = {name: (tmp_path / "app" / name).stat().st_mode & 0o7777 for name in modes}
    assert found == {"run": 0o755, "read": 0o644, "secret": 0o600, "others": 0o644}
