"""Boots that fail: each with one clear message, the design's exit code, and nothing half done."""

import io
import json
import socket
import tarfile
import time
from pathlib import Path

import pytest

from tests.serving import run, serve, user_code

HELLO = "def hello():\n    return 'hello'\n"
ROUTES = [("GET", "/hello", "hello")]


def pack(directory: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(directory, arcname=".")
    return archive


def serve_artifact(tmp_path: Path, archive: Path, **settings: object) -> tuple[int, str]:
    done = run("serve", FLASH_BUILD_ARTIFACT_PATH=archive, FLASH_APP_DIR=tmp_path / "target", **settings)
    assert not (tmp_path / "target").exists() or "FLASH_APP_DIR" in done.stderr
    return done.returncode, done.stderr


def test_an_artifact_is_unpacked_and_served(tmp_path):
    archive = pack(user_code(tmp_path, HELLO, ROUTES), tmp_path / "artifact.tar.gz")
    target = tmp_path / "target"
    with serve(tmp_path, FLASH_BUILD_ARTIFACT_PATH=archive, FLASH_APP_DIR=target) as server:
        assert server.client.get("/hello").json() == "hello"
        assert server.stop() == 0
    assert (target / "flash_manifest.json").exists()
    with serve(tmp_path, FLASH_BUILD_ARTIFACT_PATH=archive, FLASH_APP_DIR=target) as server:
        assert server.client.get("/hello").json() == "hello"


def test_a_missing_artifact_exits_66_after_the_wait(tmp_path):
    code, log = serve_artifact(tmp_path, tmp_path / "nowhere.tar.gz", FLASH_ARTIFACT_WAIT="0.3")
    assert code == 66
    assert "nowhere.tar.gz" in log


def test_a_truncated_artifact_exits_65(tmp_path):
    archive = pack(user_code(tmp_path, HELLO, ROUTES), tmp_path / "artifact.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-40])
    assert serve_artifact(tmp_path, archive)[0] == 65


def test_a_member_outside_the_target_exits_65_and_is_named(tmp_path):
    archive = tmp_path / "artifact.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../escaped.py")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"#"))
    code, log = serve_artifact(tmp_path, archive)
    assert code == 65
    assert "../escaped.py" in log
    assert not (tmp_path / "escaped.py").exists()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "info",
    [
        special("/etc/x-flash", tarfile.REGTYPE),
        special("out", tarfile.SYMTYPE, "../../etc/passwd"),
        special("device", tarfile.CHRTYPE),
    ],
    ids=lambda info: info.name,
)
def test_a_hostile_artifact_exits_65_and_names_the_member(tmp_path, info):
    archive = pack(user_code(tmp_path, HELLO, ROUTES), tmp_path / "artifact.tar")
    with tarfile.open(archive, "w") as tar:
        tar.addfile(info)
    code, log = serve_artifact(tmp_path, archive)
    assert code == 65
    assert info.name in log


def test_an_artifact_of_ten_times_its_allowed_size_exits_65(tmp_path):
    archive = pack(user_code(tmp_path, HELLO + "#" * 100_000, ROUTES), tmp_path / "artifact.tar.gz")
    code, log = serve_artifact(tmp_path, archive, FLASH_ARTIFACT_MAX_BYTES=10_000)
    assert code == 65
    assert "FLASH_ARTIFACT_MAX_BYTES" in log


def test_an_artifact_without_a_manifest_exits_65(tmp_path):
    directory = user_code(tmp_path, HELLO, ROUTES)
    (directory / "flash_manifest.json").unlink()
    code, log = serve_artifact(tmp_path, pack(directory, tmp_path / "artifact.tar.gz"))
    assert code == 65
    assert "flash_manifest.json" in log


def test_a_directory_that_cannot_be_written_exits_78(tmp_path):
    archive = pack(user_code(tmp_path, HELLO, ROUTES), tmp_path / "artifact.tar.gz")
    done = run("serve", FLASH_BUILD_ARTIFACT_PATH=archive, FLASH_APP_DIR="/proc/app")
    assert done.returncode == 78
    assert "FLASH_APP_DIR=/proc/app" in done.stderr


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"case": {"is_load_balanced": "yes"}}, "$.resources.case.is_load_balanced"),
        ({"case": {"is_load_balanced": False}}, "no load-balanced resource"),
        ({"case": {"is_load_balanced": True}}, "no routes"),
        (3, "$.resources"),
    ],
)
def test_a_manifest_that_cannot_be_served_exits_65_with_the_place(tmp_path, resources, expected):
    directory = user_code(tmp_path, HELLO, ROUTES)
    (directory / "flash_manifest.json").write_text(json.dumps({"resources": resources}))
    done = run("serve", FLASH_APP_DIR=directory)
    assert done.returncode == 65
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_manifest_that_is_not_json_exits_65(tmp_path):
    directory = user_code(tmp_path, HELLO, ROUTES)
    (directory / "flash_manifest.json").write_text("{")
    done = run("serve", FLASH_APP_DIR=directory, FLASH_ARTIFACT_WAIT="0.3")
    assert done.returncode == 65
    assert "flash_manifest.json" in done.stderr


def test_an_unknown_resource_exits_65_and_the_known_ones_are_listed(tmp_path):
    directory = user_code(tmp_path, HELLO, ROUTES)
    done = run("serve", FLASH_APP_DIR=directory, FLASH_RESOURCE_NAME="other")
    assert done.returncode == 65
    assert "case" in done.stderr


def test_a_bad_setting_exits_78_and_is_named(tmp_path):
    done = run("serve", FLASH_APP_DIR=tmp_path, FLASH_WORKERS="many", LOG_LEVEL="loud")
    assert done.returncode == 78
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["level"] == "CRITICAL"
    assert "FLASH_WORKERS='many'" in line["message"]
    assert "LOG_LEVEL='loud'" in line["message"]


def test_a_taken_port_exits_78_and_is_named(tmp_path):
    directory = user_code(tmp_path, HELLO, ROUTES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", FLASH_APP_DIR=directory, PORT=port)
    assert done.returncode == 78
    assert f"PORT={port}" in done.stderr


def test_wrong_usage_exits_64():
    assert run("fly").returncode == 64
    assert run().returncode == 64


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def hello(:\n", "SyntaxError"),
        ("raise RuntimeError('no weights here')\n", "RuntimeError: no weights here"),
        ("import sys\nsys.exit(3)\n", "sys.exit(3)"),
        ("import os\nos._exit(5)\n", "exit code 5"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "SIGSEGV"),
        ("other = 1\n", "hello"),
        ("hello = 1\n", "hello"),
    ],
    ids=[
        "missing-dependency",
        "syntax",
        "raises",
        "sys.exit",
        "os._exit",
        "segfault",
        "no-handler",
        "not-callable",
    ],
)
def test_user_code_that_cannot_start_exits_70_with_the_reason_last_in_the_log(tmp_path, source, expected):
    directory = user_code(tmp_path, source, ROUTES)
    done = run("serve", FLASH_APP_DIR=directory, FLASH_WORKERS=2, timeout=30)
    assert done.returncode == 70, done.stderr
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "CRITICAL"
    assert expected in last["message"]


def test_why_the_last_try_failed_is_told_once(tmp_path):
    directory = user_code(tmp_path, "raise RuntimeError('no weights here')\n", ROUTES)
    done = run("serve", FLASH_APP_DIR=directory, FLASH_WORKERS=1, FLASH_BOOT_TRIES=1, timeout=30)
    assert done.stderr.count("RuntimeError: no weights here") == 1
    assert "no weights here" in done.stderr.splitlines()[-1]


def test_a_missing_module_exits_70_and_is_named(tmp_path):
    directory = user_code(tmp_path, HELLO, ROUTES)
    (directory / "main.py").rename(directory / "other.py")
    done = run("serve", FLASH_APP_DIR=directory)
    assert done.returncode == 70
    assert "main" in json.loads(done.stderr.splitlines()[-1])["message"]


def test_an_import_that_never_ends_exits_70_at_the_boot_deadline(tmp_path):
    directory = user_code(tmp_path, "import time\ntime.sleep(600)\n" + HELLO, ROUTES)
    started = time.monotonic()
    done = run("serve", FLASH_APP_DIR=directory, FLASH_BOOT_TIMEOUT="2", timeout=30)
    assert done.returncode == 70
    assert "FLASH_BOOT_TIMEOUT=2" in json.loads(done.stderr.splitlines()[-1])["message"]
    assert time.monotonic() - started < 20


def test_a_path_parameter_that_the_handler_does_not_take_exits_65(tmp_path):
    directory = user_code(tmp_path, HELLO, [("GET", "/hello/{name}", "hello")])
    done = run("serve", FLASH_APP_DIR=directory)
    assert done.returncode == 65
    assert "name" in json.loads(done.stderr.splitlines()[-1])["message"]


def test_check_accepts_what_serve_serves_and_lists_the_routes(tmp_path):
    done = run("check", FLASH_APP_DIR=user_code(tmp_path, HELLO, ROUTES))
    assert done.returncode == 0, done.stderr
    assert "/hello" in done.stdout


def test_check_shows_the_users_traceback_and_exits_70(tmp_path):
    done = run("check", FLASH_APP_DIR=user_code(tmp_path, "1 / 0\n", ROUTES))
    assert done.returncode == 70
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
