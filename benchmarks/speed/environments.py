"""Installs each side into an environment of its own under `.cache/bench/`, from PyPI, with uv.

Everything is compiled at installation, as images are made: no side pays for that at its first start.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.speed import revisions
from tests.vendor import UV, VENDOR

ROOT = Path(__file__).parent.parent.parent
TAG = f"{sys.version_info.major}.{sys.version_info.minor}"
CACHE = ROOT / ".cache" / "bench"

OURS = "flash-runtime"
REQUIREMENTS = {
    # What the vendor's worker image installs: its pyproject.toml asks for uvicorn[standard] and no versions.
    "vendor": [VENDOR, "fastapi", "uvicorn[standard]", "python-multipart"],
    "fastapi": ["fastapi", "uvicorn[standard]"],
    "litserve": ["litserve==0.2.19"],
    "bentoml": ["bentoml==1.4.40"],
    "mosec": ["mosec==0.9.8"],
}
"""By environment; this project's own comes from uv.lock."""
_NOTABLE = (
    VENDOR.partition("==")[0],
    OURS,
    "litserve",
    "bentoml",
    "mosec",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "gunicorn",
    "uvloop",
    "httptools",
    "orjson",
    "msgspec",
)
"""The packages whose versions matter here; each environment's own comes first."""
_INSTALL_SECONDS = 900


def install(name: str) -> Path:
    """The environment's `bin`; installed where it is missing, or asks for something else than before."""
    place = _place(name)
    if name == OURS:
        _sync(ROOT, place)  # whatever the tree has now
        return place / "bin"
    wanted = _digest(sys.version, REQUIREMENTS[name])
    if not _installed(place, wanted):
        _uv("venv", "--clear", "--python", sys.executable, str(place))
        python = str(place / "bin" / "python")
        _uv("pip", "install", "--compile-bytecode", "--python", python, *REQUIREMENTS[name])
        (place / "installed").write_text(wanted)
    return place / "bin"


def install_commit(commit: str) -> str:
    """The name of this project's environment as of that commit, with the dependencies it locks.

    A commit does not change, so its environment is kept: the next run with it installs nothing.
    """
    name = f"{OURS}-{commit[:12]}"
    place, wanted = _place(name), _digest(sys.version, commit)
    if not _installed(place, wanted):
        with tempfile.TemporaryDirectory() as source:
            revisions.export(commit, Path(source))
            _sync(Path(source), place)
        (place / "installed").write_text(wanted)
    return name


def versions(name: str) -> dict[str, str]:
    """What is installed there, of the packages that matter here; its own first."""
    python = str(_place(name) / "bin" / "python")
    found = {
        package["name"]: package["version"]
        for package in json.loads(_uv("pip", "list", "--format", "json", "--python", python))
    }
    return {package: found[package] for package in _NOTABLE if package in found}


def _place(name: str) -> Path:
    return CACHE / f"{name}-{TAG}"


def _digest(*wanted: object) -> str:
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def _installed(place: Path, wanted: str) -> bool:
    done = place / "installed"
    return done.exists() and done.read_text() == wanted


def _sync(source: Path, place: Path) -> None:
    """Install this project from there as users install it: no editable path hooks at start-up."""
    command = ["sync", "--frozen", "--no-default-groups", "--no-editable", "--compile-bytecode"]
    command += ["--reinstall-package", OURS, "--python", sys.executable]
    _uv(*command, environment=place, directory=source)


def _uv(*arguments: str, environment: Path | None = None, directory: Path = ROOT) -> str:
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    if environment is not None:
        environ["UV_PROJECT_ENVIRONMENT"] = str(environment)
    done = subprocess.run(
        [UV, *arguments],
        cwd=directory,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    if done.returncode != 0:
        raise SystemExit(f"uv {arguments[0]} failed; is PyPI within reach?\n{done.stderr.strip()}")
    return done.stdout
