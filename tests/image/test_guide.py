"""The guide `Load-Balanced Endpoints` where it deploys: a Docker engine stands in for the vendor's cloud."""

from __future__ import annotations

import uuid

import httpx
import pytest

from runpod_flash import EndpointError
from tests.authoring import guide

PROJECT = """
[project]
name = "{name}"

[tool.flash.env.production]
target = "docker"
image = "{image}"
gpu_image = "{image}"
gpus = false
secrets = ["FLASH_API_KEY"]
"""
KEY = {"FLASH_API_KEY": "key", "RUNPOD_API_KEY": "key"}
FAILING = """
from runpod_flash import Endpoint
await Endpoint(id="user-service").post("/users", {"name": "Alice", "email": "alice@example.com"})
"""


@pytest.fixture
def project(tmp_path, image, engine):
    """Two endpoints of the guide; the second has the name by which the guide calls one."""
    called = guide.GPU.replace("inference-api", "your-endpoint-id").replace("data: dict", "data: list")
    place = guide.write(tmp_path / "project", users=guide.ROUTING, gpu=called, torch=guide.TORCH)
    text = PROJECT.format(name=f"guide-{uuid.uuid4().hex[:8]}", image=image)
    (place / "pyproject.toml").write_text(text)
    yield place
    guide.run("flash undeploy --all --yes", place, **KEY)


def test_the_guide_ends_in_running_containers(project, monkeypatch):
    for command in ("flash build", "flash deploy --env production"):
        done = guide.run(command, project, **KEY)
        assert done.returncode == 0, done.stdout + done.stderr
    urls = dict(line.split() for line in done.stdout.splitlines() if not line.startswith(" "))
    assert set(urls) == {"user-service", "your-endpoint-id"}

    # Verifying Deployment: the health check, and a route with the key.
    assert httpx.get(f"{urls['user-service']}/ping").status_code == 200
    commands = guide.VERIFYING.replace(guide.CLOUD, urls["user-service"])
    answer = guide.run(commands, project, **KEY).stdout
    assert answer.endswith('{"id":1,"name":"Alice","email":"alice@example.com"}')

    # Calling LB Endpoints Programmatically, by the record of the deployment.
    monkeypatch.chdir(project)
    monkeypatch.setenv("FLASH_API_KEY", "key")
    names = guide.awaited(guide.CALLING)
    assert names["result"] == {"prediction": [1, 2, 3]}
    assert names["health"] == {"status": "ok", "gpu": "available"}

    # Troubleshooting: an error of the function, whose cause is in the log; and no container.
    broken = guide.ROUTING.replace(
        'return {"id": 1, ', 'raise RuntimeError("the cause")\n    return {"id": 1, '
    )
    guide.write(project, users=broken)
    done = guide.run("flash deploy --env production", project, **KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(EndpointError, match="HTTP error from endpoint: 500"):
        guide.awaited(FAILING)
    assert "RuntimeError: the cause" in guide.run("flash logs user-service", project, **KEY).stdout
    assert guide.run("flash undeploy user-service --yes", project, **KEY).returncode == 0
    with pytest.raises(EndpointError, match="Connection refused"):
        guide.awaited(FAILING.replace('"user-service"', repr(urls["user-service"])))
