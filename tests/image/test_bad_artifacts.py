"""Each bad artifact ends the container with its exit code, and its message is the last of `docker logs`."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.containers import Containers, pack

HELLO = """
def hello():
    return "hello"
"""
ROUTES = [("GET", "/hello", "hello")]


def with_member(containers: Containers, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    path = containers.directory(HELLO, ROUTES).with_suffix(".tar.gz")
    member.size = len(content)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def with_manifest(containers: Containers, text: str | None) -> Path:
    directory = containers.directory(HELLO, ROUTES)
    (directory / "flash_manifest.json").unlink()
    if text is not None:
        (directory / "flash_manifest.json").write_text(text)
    return pack(directory)


def cut_short(containers: Containers) -> Path:
    path = containers.artifact(HELLO, ROUTES)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def of_size_nothing(containers: Containers) -> Path:
    path = containers.directory(HELLO, ROUTES).with_suffix(".tar.gz")
    path.touch()
    return path


def of_another_python(containers: Containers) -> Path:
    directory = containers.directory(HELLO, ROUTES, "3.11")
    (directory / "fast.cpython-311-x86_64-linux-gnu.so").touch()
    return pack(directory)


Make = Callable[[Containers], Path]
BAD: dict[str, tuple[Make, int, str]] = {
    "nothing": (lambda containers: containers.directory(HELLO, ROUTES) / "nowhere", 65, "is a directory"),
    "empty": (of_size_nothing, 65, "artifact"),
    "truncated": (cut_short, 65, "artifact"),
    "escaping name": (lambda containers: with_member(containers, member("../x.py")), 65, "../x.py"),
    "absolute name": (lambda containers: with_member(containers, member("/etc/x-flash")), 65, "/etc/x-flash"),
    "escaping link": (
        lambda containers: with_member(containers, member("out", tarfile.SYMTYPE, "../../etc/passwd")),
        65,
        "out",
    ),
    "device": (lambda containers: with_member(containers, member("dev", tarfile.CHRTYPE)), 65, "dev"),
    "without a manifest": (lambda containers: with_manifest(containers, None), 65, "flash_manifest.json"),
    "manifest of no JSON": (lambda containers: with_manifest(containers, "{"), 65, "flash_manifest.json"),
    "manifest of no routes": (
        lambda containers: with_manifest(
            containers, json.dumps({"resources": {"a": {"is_load_balanced": True}}})
        ),
        65,
        "no routes",
    ),
    "another Python's": (of_another_python, 65, "use the image for Python 3.11"),
    "raising module": (
        lambda containers: containers.artifact("raise RuntimeError('no weights here')", ROUTES),
        70,
        "RuntimeError: no weights here",
    ),
    "missing module": (
        lambda containers: containers.artifact("import nowhere_to_be_found", ROUTES),
        70,
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    ),
    "module that ends the process": (
        lambda containers: containers.artifact("import os; os._exit(3)", ROUTES),
        70,
        "exit code 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_artifact_exits_with_its_code_and_its_message_last(containers, case):
    make, code, words = BAD[case]
    container = containers.start(artifact=make(containers))
    assert container.wait() == code
    last = container.lines()[-1]
    assert last["level"] == "CRITICAL"
    assert words in last["message"]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"FLASH_RESOURCE_NAME": "nobody"}, 65, "nobody"),
        ({"FLASH_ARTIFACT_MAX_BYTES": "100"}, 65, "FLASH_ARTIFACT_MAX_BYTES"),
        ({"FLASH_ARTIFACT_SHA256": "0" * 64}, 65, "FLASH_ARTIFACT_SHA256"),
        ({"FLASH_WORKERS": "many"}, 78, "FLASH_WORKERS='many'"),
        ({"FLASH_APP_DIR": "/proc/app"}, 78, "FLASH_APP_DIR=/proc/app"),
        ({"FLASH_BUILD_ARTIFACT_PATH": "/nowhere.tgz", "FLASH_ARTIFACT_WAIT": "0.1"}, 66, "/nowhere.tgz"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_exits_with_its_code_and_its_message_last(containers, settings, code, words):
    container = containers.start(artifact=containers.artifact(HELLO, ROUTES), environment=settings)
    assert container.wait() == code
    last = container.lines()[-1]
    assert last["level"] == "CRITICAL"
    assert words in last["message"]
    assert "Traceback" not in last["message"]


def test_an_import_that_never_ends_exits_70_at_the_boot_deadline(containers):
    artifact = containers.artifact("while True: pass", ROUTES)
    container = containers.start(artifact=artifact, environment={"FLASH_BOOT_TIMEOUT": "1"})
    assert container.wait() == 70
    assert "FLASH_BOOT_TIMEOUT=1" in container.lines()[-1]["message"]
