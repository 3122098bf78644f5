"""The package: read and selected before it is committed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from flash_runtime.artifact.package import open_package
from flash_runtime.config.settings import Settings
from flash_runtime.errors import ManifestFault, SettingFault

MANIFEST = {
    "resources": {
        "api": {
            "is_load_balanced": True,
            "functions": [
                {"name": "fast", "module": "main", "http_method": "GET", "http_path": "/fast"},
                {"name": "slow", "module": "main", "http_method": "POST", "http_path": "/slow"},
            ],
        }
    }
}


@pytest.fixture
def environ(tmp_path):
    """An unpacked application in `tmp_path`."""
    (tmp_path / "flash_manifest.json").write_text(json.dumps(MANIFEST))
    return {"FLASH_APP_DIR": str(tmp_path), "FLASH_DISABLE_UNPACK": "1"}


def test_a_route_has_its_own_timeout_or_else_that_of_all(environ):
    environ |= {"FLASH_ROUTE_TIMEOUTS": '{"POST /slow": 900}', "FLASH_REQUEST_TIMEOUT": "20"}
    routes = open_package(Settings.from_environ(environ)).routes
    assert {str(route): route.timeout for route in routes} == {"GET /fast": 20.0, "POST /slow": 900.0}


def test_a_timeout_for_a_route_that_does_not_exist_names_those_that_do(environ):
    environ |= {"FLASH_ROUTE_TIMEOUTS": '{"GET /slow": 900}'}
    with pytest.raises(SettingFault, match=r"(?s)names GET /slow.*GET /fast, POST /slow"):
        open_package(Settings.from_environ(environ))


def test_an_artifact_of_which_nothing_can_be_selected_replaces_nothing(tmp_path):
    environ = {"FLASH_BUILD_ARTIFACT_PATH": f"{tmp_path}/artifact.tar", "FLASH_APP_DIR": f"{tmp_path}/app"}
    pack(tmp_path / "artifact.tar", MANIFEST)
    before = open_package(Settings.from_environ(environ))
    pack(tmp_path / "artifact.tar", {"resources": {}})
    with pytest.raises(ManifestFault, match="no load-balanced resource"):
        open_package(Settings.from_environ(environ))
    assert json.loads((before.app_dir / "flash_manifest.json").read_text()) == MANIFEST


def pack(path: Path, manifest: dict) -> None:
    content = json.dumps(manifest).encode()
    info = tarfile.TarInfo("flash_manifest.json")
    info.size = len(content)
    with tarfile.open(path, "w") as tar:
        tar.addfile(info, io.BytesIO(content))
