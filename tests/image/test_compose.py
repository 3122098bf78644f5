"""compose.yaml: two endpoints, each a container, by name on one network."""

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.serving import until

ROOT = Path(__file__).parent.parent.parent


def compose() -> list[str]:
    """The command: the plugin of Docker's client, or the older program of its own."""
    plugin = [os.environ.get("DOCKER", "docker"), "compose"]
    if subprocess.run([*plugin, "version"], check=False, capture_output=True).returncode == 0:
        return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither `docker compose` nor docker-compose is installed")


def test_one_endpoint_asks_the_other_by_name(image):
    command = [*compose(), "--project-name", "flash-runtime-test"]
    environ = {**os.environ, "FLASH_IMAGE": image}
    try:
        subprocess.run([*command, "up", "-d"], cwd=ROOT, env=environ, check=True, timeout=120)
        total = "http://127.0.0.1:8002/total"

        def answers() -> bool:
            try:
                return httpx.get("http://127.0.0.1:8002/ping").status_code == 200
            except httpx.TransportError:
                return False

        until(answers, "orders is ready")
        assert httpx.post(total, json={"items": ["apple", "melon"]}).json() == {"total": 2.5}
        refused = httpx.post(total, json={"items": ["stone"]})
        assert refused.status_code == 422
        assert refused.json() == {"detail": "the catalog says 404 to 'stone'"}
    finally:
        subprocess.run([*command, "down", "-t", "10"], cwd=ROOT, env=environ, check=True, timeout=120)


def test_one_request_goes_through_four_containers(image):
    command = [*compose(), "--project-name", "flash-runtime-pipeline-test"]
    environ = {**os.environ, "FLASH_IMAGE": image, "EXECUTE_TOKEN": "for-the-test"}
    directory = ROOT / "examples" / "pipeline"
    try:
        subprocess.run([*command, "up", "-d"], cwd=directory, env=environ, check=True, timeout=120)

        def classified() -> bool:
            try:
                answer = httpx.post("http://127.0.0.1:8003/classify", json={"text": "The quickest fox"})
                return answer.status_code == 200 and answer.json()["best"] == "quickest"
            except httpx.TransportError:
                return False

        until(classified, "the pipeline answers", 60)
    finally:
        subprocess.run([*command, "down", "-t", "10"], cwd=directory, env=environ, check=True, timeout=120)
