"""Installs each side into an environment of its own under `.cache/bench/`, from PyPI, with uv.

Everything is compiled at installation, as images are made: no side pays for that at its first start.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

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
_INSTALL_SECONDS = 900


def install(name: str) -> Path:
    """The environment's `bin`; installed where it is missing, or asks for something else than before."""
    place = CACHE / f"{name}-{TAG}"
    if name == OURS:
        # Whatever the tree has now, installed as users install it: no editable path hooks at start-up.
        command = ["sync", "--frozen", "--no-default-groups", "--no-editable", "--compile-bytecode"]
        _uv(*command, "--reinstall-package", OURS, "--python", sys.executable, environment=place)
        return place / "bin"
    wanted = hashlib.sha256(json.dumps([sys.version, REQUIREMENTS[name]]).encode()).hexdigest()
    done = place / "installed"
    if not done.exists() or done.read_text() != wanted:
        _uv("venv", "--clear", "--python", sys.executable, str(place))
        python = str(place / "bin" / "python")
        _uv("pip", "install", "--compile-bytecode", "--python", python, *REQUIREMENTS[name])
        done.write_text(wanted)
    return place / "bin"


def versions(name: str) -> dict[str, str]:
    """What is installed there, of the packages that matter here; its own first."""
    python = str(CACHE / f"{name}-{TAG}" / "bin" / "python")
    found = {
        package["name"]: package["version"]
        for package in json.loads(_uv("pip", "list", "--format", "json", "--python", python))
    }
    own = VENDOR.partition("==")[0] if name == "vendor" else name
    return {package: found[package] for package in dict.fromkeys((own, *_NOTABLE)) if package in found}


def _uv(*arguments: str, environment: Path | None = None) -> str:
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    if environment is not None:
        environ["UV_PROJECT_ENVIRONMENT"] = str(environment)
    done = subprocess.run(
        [UV, *arguments],
        cwd=ROOT,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    if done.returncode != 0:
        raise SystemExit(f"uv {arguments[0]} failed; is PyPI within reach?\n{done.stderr.strip()}")
    return done.stdout
