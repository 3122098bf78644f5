"""The vendor's SDK, to build real artifacts with and to compare with; in an environment of its own.

It installs the same import name as this project's `runpod_flash`, so it cannot share an environment with it.
Environments and builds are kept in `.cache/vendor/` between runs; the first to need one makes it, while the
others wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import filelock
import httpx

from tests.serving import USER_CODE, free_port, until

VENDOR = "runpod-flash==1.21.0"
ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "vendor"
UV = Path(sys.executable).parent / "uv"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def build(name: str | Path, python: str = PYTHON) -> Path:
    """The artifact that `flash build` makes of a directory, or of `tests/user_code/<name>`, for a Python."""
    source = USER_CODE / name
    place = CACHE / "builds" / f"{python}-{_digest(source)}" / source.name
    artifact = place / ".flash" / "artifact.tar.gz"
    with _alone(place.parent.name):
        if artifact.exists():
            return artifact
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(
            source, place, ignore=shutil.ignore_patterns("__pycache__", ".flash", "flash_manifest.json")
        )
        command = [_environment() / "bin" / "flash", "build", "--python-version", python]
        _run(command, _environ(), place)
        assert artifact.exists()
    return artifact


def unpack(artifact: Path, directory: Path) -> None:
    """Unpack an artifact that was built here, by tar: not every Python 3.11 can do so without a warning."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "xzf", artifact, "-C", directory], check=True)


@contextlib.contextmanager
def serve_vendor(artifact: Path, resource: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """The vendor's generated handler under plain uvicorn, as its own worker image starts it."""
    directory = tmp_path / f"vendor-{resource}"
    unpack(artifact, directory)
    port = free_port()
    with (tmp_path / f"vendor-{port}.txt").open("wb") as log:
        process = start(directory, resource, port, log)
        try:
            # Its connections break after a 500.
            limits = httpx.Limits(max_keepalive_connections=0)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, limits=limits) as client:
                until(lambda: process.poll() is not None or _answers(client), "the vendor's worker", 60)
                assert process.poll() is None, Path(log.name).read_text()
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start(
    directory: Path, resource: str, port: int, log: IO[bytes], **variables: str
) -> subprocess.Popen[bytes]:
    """The same in a process that the caller ends, of an artifact that is unpacked already."""
    command = [_environment() / "bin" / "python", "-m", "uvicorn", f"handler_{resource}:app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return subprocess.Popen(command, cwd=directory, env=_environ() | variables, stdout=log, stderr=log)


@functools.cache
def runtime_python() -> Path:
    """Python with this project and what the vendor's SDK needs beside it, for FLASH_SDK=artifact."""
    place = CACHE / f"artifact-sdk-{PYTHON}"
    command = [
        UV,
        "sync",
        "--frozen",
        "--no-default-groups",
        "--extra",
        "artifact-sdk",
        "--python",
        sys.executable,
    ]
    environ = {**_environ(), "UV_PROJECT_ENVIRONMENT": str(place)}
    with _alone(place.name):
        _run(command, environ)
    return place / "bin" / "python"


def run_python(code: str) -> str:
    """What this code prints where the vendor's SDK is installed."""
    command = [_environment() / "bin" / "python", "-c", code]
    done = subprocess.run(command, env=_environ(), check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def run_file(path: Path, **variables: str) -> str:
    """What this program prints where the vendor's SDK is installed."""
    command: list[str | Path] = [_environment() / "bin" / "python", path]
    environ = {**_environ(), **variables}
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ping").status_code == 200
    except httpx.TransportError:
        return False


def _environment() -> Path:
    place = CACHE / f"python-{PYTHON}"
    with _alone(place.name):
        if (place / "done").exists():
            return place
        make = [UV, "venv", "--clear", "--seed", "--python", sys.executable, place]
        # The vendor's worker image has uvicorn of its own; the SDK does not ask for it.
        fill = [UV, "pip", "install", "--python", place / "bin" / "python"]
        fill += [VENDOR, "uvicorn", "python-multipart"]
        for command in (make, fill):
            _run(command, _environ())
        (place / "done").touch()
    return place


def _alone(name: str) -> filelock.FileLock:
    """While it is held, no other process of the tests makes what has this name."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(CACHE / f"{name}.lock")


def _run(command: list[str | Path], environ: dict[str, str], directory: Path = ROOT) -> None:
    done = subprocess.run(
        command, cwd=directory, env=environ, check=False, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environ() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "RUNPOD_FLASH_SILENCE_DEPRECATION": "1", "RUNPOD_FLASH_DISABLE_TELEMETRY": "1"}


def _digest(directory: Path) -> str:
    digest = hashlib.sha256(VENDOR.encode())
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(directory)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]
