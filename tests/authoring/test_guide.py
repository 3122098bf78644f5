"""The guide `Load-Balanced Endpoints`, block by block: its code and its commands work as it says.

Where it needs the vendor's cloud, a worker on this machine stands in; `tests/image/test_deploy.py` deploys
to a real engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import environment, free_port, serve, until

FLASH = Path(sys.executable).parent / "flash"

QUICK_START = """
from runpod_flash import Endpoint, GpuGroup

# create a load-balanced endpoint
api = Endpoint(name="example-api", gpu=GpuGroup.ADA_24, workers=(1, 3))

@api.post("/greet")
async def greet_user(name: str):
    return {"message": f"Hello, {name}!"}

@api.get("/health")
async def health():
    return {"status": "ok"}
"""
ROUTING = """
from runpod_flash import Endpoint

api = Endpoint(name="user-service", cpu="cpu3c-1-2", workers=(1, 5))

@api.get("/users")
def list_users():
    return {"users": []}

@api.post("/users")
async def create_user(name: str, email: str):
    return {"id": 1, "name": name, "email": email}

@api.get("/users/{user_id}")
def get_user(user_id: int):
    return {"id": user_id, "name": "Alice"}

@api.delete("/users/{user_id}")
async def delete_user(user_id: int):
    return {"deleted": True}
"""
GPU = """
from runpod_flash import Endpoint, GpuGroup

api = Endpoint(name="inference-api", gpu=GpuGroup.ADA_24, workers=(1, 5))

@api.post("/predict")
async def predict(data: dict) -> dict:
    import torch
    model = torch.load("/models/model.pt")
    return {"prediction": model.predict(data)}

@api.get("/health")
async def health():
    return {"status": "ok", "gpu": "available"}
"""
CPU = """
from runpod_flash import Endpoint

api = Endpoint(name="data-api", cpu="cpu3c-1-2", workers=(1, 3))

@api.post("/process")
async def process(data: dict) -> dict:
    return {"echo": data}

@api.get("/health")
async def health():
    return {"status": "healthy"}
"""
QUEUE = """
from runpod_flash import Endpoint

@Endpoint(name="worker")
async def work(x: int):
    return x
"""
TESTING = """
import pytest
from runpod_flash import Endpoint

api = Endpoint(name="test-api", cpu="cpu3c-1-2")

@api.post("/calculate")
async def calculate(operation: str, a: int, b: int):
    if operation == "add":
        return a + b
    elif operation == "multiply":
        return a * b
    raise ValueError(f"Unknown operation: {operation}")

@pytest.mark.asyncio
async def test_calculate_add():
    result = await calculate("add", 5, 3)
    assert result == 8
"""
CALLING = """
from runpod_flash import Endpoint

ep = Endpoint(id="your-endpoint-id")

async def main():
    # HTTP calls return raw response data
    result = await ep.post("/predict", {"data": [1, 2, 3]})
    health = await ep.get("/health")
    return result, health
"""
MODEL = """
class Model:
    def predict(self, data):
        return sorted(data)

def load(path):
    assert path == "/models/model.pt"
    return Model()
"""


def flash(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLASH, *arguments],
        cwd=project,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def project(tmp_path: Path, **modules: str) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    for name, source in modules.items():
        (place / f"{name}.py").write_text(source)
    return place


@contextlib.contextmanager
def built(tmp_path: Path, **modules: str) -> Iterator[httpx.Client]:
    """What `flash build` makes of the modules, served as a container serves it."""
    place = project(tmp_path, **modules)
    done = flash(place, "build")
    assert done.returncode == 0, done.stdout + done.stderr
    artifact = place / ".flash" / "artifact.tar.gz"
    with serve(tmp_path, FLASH_BUILD_ARTIFACT_PATH=artifact, FLASH_APP_DIR=tmp_path / "app") as server:
        yield server.client


def test_quick_start(tmp_path):
    with built(tmp_path, main=QUICK_START) as client:
        assert client.post("/greet", json={"name": "Ada"}).json() == {"message": "Hello, Ada!"}
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ping").status_code == 200


def test_a_single_endpoint_has_many_routes(tmp_path):
    with built(tmp_path, main=ROUTING) as client:
        assert client.get("/users").json() == {"users": []}
        created = client.post("/users", json={"name": "Alice", "email": "alice@example.com"})
        assert created.json() == {"id": 1, "name": "Alice", "email": "alice@example.com"}
        assert client.get("/users/7").json() == {"id": 7, "name": "Alice"}
        assert client.delete("/users/7").json() == {"deleted": True}


def test_the_gpu_endpoint(tmp_path):
    """A module of the project stands in for torch, whose `load` would not take a class of the user's."""
    with built(tmp_path, main=GPU, torch=MODEL) as client:
        answer = client.post("/predict", json={"data": {"b": 1, "a": 2}})
        assert answer.json() == {"prediction": ["a", "b"]}
        assert client.get("/health").json() == {"status": "ok", "gpu": "available"}


def test_the_cpu_endpoint(tmp_path):
    with built(tmp_path, main=CPU) as client:
        assert client.post("/process", json={"data": {"x": 1}}).json() == {"echo": {"x": 1}}
        assert client.get("/health").json() == {"status": "healthy"}


@pytest.mark.parametrize("path", ["/ping", "/execute"])
def test_reserved_paths_cannot_be_used(tmp_path, path):
    place = project(tmp_path, main=QUICK_START.replace("/health", path))
    done = flash(place, "build")
    assert done.returncode != 0
    assert path in done.stderr
    assert "reserved" in done.stderr
    assert "main.py:11" in done.stderr


def test_flash_run_serves_every_endpoint_under_its_name(tmp_path):
    place = project(tmp_path, users=ROUTING, data=CPU)
    port = free_port()
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [FLASH, "run", "--port", str(port)], cwd=place, env=environment(), stdout=output, stderr=output
        )
    try:
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=10) as client:

            def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/data-api/health").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, "flash run", 30)
            assert client.get("/user-service/users/3").json() == {"id": 3, "name": "Alice"}
            assert client.post("/data-api/process", json={"data": {}}).json() == {"echo": {}}
            assert client.get("/docs").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, log.read_text()


def test_flash_run_is_at_port_8888_by_default(tmp_path):
    assert re.search(r"--port\b.*8888", flash(tmp_path, "run", "--help").stdout, re.DOTALL)


def test_decorated_functions_are_tested_as_functions(tmp_path):
    place = project(tmp_path, test_api=TESTING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_api.py"],
        cwd=place, env=environment(), check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_flash_build_finds_both_kinds_and_their_routes(tmp_path):
    place = project(tmp_path, main=ROUTING, worker=QUEUE)
    done = flash(place, "build")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(place / ".flash" / "artifact.tar.gz") as tar:
        member = next(each for each in tar if each.name.removeprefix("./") == "flash_manifest.json")
        manifest = json.load(tar.extractfile(member))  # type: ignore[arg-type]
    assert manifest["routes"]["user-service"]["GET /users/{user_id}"] == "get_user"
    assert manifest["resources"]["worker"]["is_load_balanced"] is False
    for told in ("user-service", "worker", "/users/{user_id}"):
        assert told in done.stdout


def test_a_deployed_endpoint_is_called_by_its_id(tmp_path, monkeypatch):
    namespace: dict[str, object] = {}
    exec(CALLING, namespace)
    with built(tmp_path, main=GPU.replace("data: dict", "data: list"), torch=MODEL) as client:
        monkeypatch.setenv("FLASH_ENDPOINT_URL", str(client.base_url))
        result, health = asyncio.run(namespace["main"]())  # type: ignore[operator]
    assert result == {"prediction": [1, 2, 3]}
    assert health == {"status": "ok", "gpu": "available"}


def test_curl_calls_a_route_with_the_key(tmp_path):
    place = project(tmp_path, main=ROUTING)
    assert flash(place, "build").returncode == 0
    artifact = place / ".flash" / "artifact.tar.gz"
    settings = {
        "FLASH_BUILD_ARTIFACT_PATH": artifact,
        "FLASH_APP_DIR": tmp_path / "app",
        "FLASH_API_KEY": "key",
    }
    with serve(tmp_path, **settings) as server:
        command = (
            f"curl -s -m 10 {server.url}/ping -o /dev/null -w '%{{http_code}} '; "
            f"curl -s -m 10 -X POST {server.url}/users -H 'Content-Type: application/json' "
            '-H "Authorization: Bearer $RUNPOD_API_KEY" '
            '-d \'{"name": "Alice", "email": "alice@example.com"}\''
        )
        environ = {**os.environ, "RUNPOD_API_KEY": "key"}
        done = subprocess.run(["sh", "-c", command], env=environ, check=True, capture_output=True, text=True)
    assert done.stdout == '200 {"id":1,"name":"Alice","email":"alice@example.com"}'


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (ROUTING.replace('"/users/{user_id}"', '"users/{user_id}"', 1), "path must start with '/'"),
        (ROUTING.replace('@api.post("/users")', '@api.get("/users")'), "duplicate route"),
    ],
)
def test_validation_errors_name_the_line(tmp_path, wrong, told):
    done = flash(project(tmp_path, main=wrong), "build")
    assert done.returncode != 0
    assert told in done.stderr.lower()
    assert re.search(r"main\.py:\d+", done.stderr)


def test_runtime_errors_are_worded_as_the_guide_has_them(tmp_path, monkeypatch):
    from runpod_flash import Endpoint

    failing = CPU.replace('return {"echo": data}', 'raise RuntimeError("the cause")')
    with built(tmp_path, main=failing) as client:
        ep = Endpoint(id=str(client.base_url))
        with pytest.raises(Exception, match="HTTP error from endpoint: 500"):
            asyncio.run(_ask(ep))
    with pytest.raises(Exception, match="Connection refused"):
        asyncio.run(_ask(Endpoint(id=f"http://127.0.0.1:{free_port()}")))


async def _ask(ep):  # type: ignore[no-untyped-def]
    return await ep.post("/process", {"data": {}})
