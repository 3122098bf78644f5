"""The guide `Load-Balanced Endpoints`: each of its blocks and commands does what the guide says it does.

Where it needs the vendor's cloud, a worker on this machine stands in; `tests/image/test_guide.py` deploys
to a Docker engine instead.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import httpx
import pytest

from runpod_flash import Endpoint, EndpointError
from tests.authoring import guide
from tests.serving import Server, environment, free_port, serve, until


@contextlib.contextmanager
def built(tmp_path: Path, variables: dict[str, str] | None = None, **modules: str) -> Iterator[Server]:
    """What `flash build` makes of the modules, served as a container serves it."""
    place = guide.write(tmp_path / "project", **modules)
    done = guide.run("flash build", place)
    assert done.returncode == 0, done.stdout + done.stderr
    artifact = place / ".flash" / "artifact.tar.gz"
    app = tmp_path / "app"
    with serve(
        tmp_path, FLASH_BUILD_ARTIFACT_PATH=artifact, FLASH_APP_DIR=app, **(variables or {})
    ) as server:
        yield server


@contextlib.contextmanager
def running(tmp_path: Path, **modules: str) -> Iterator[httpx.Client]:
    """`flash run`, as the guide has it; the client is at the address that it says."""
    place = guide.write(tmp_path / "project", **modules)
    log = tmp_path / "run.txt"
    environ = environment()
    del environ["FLASH_HOST"]  # the tests', and the guide has it as it is by default
    with contextlib.ExitStack() as stack:
        with looking_for_a_port(), log.open("wb") as output:
            process = subprocess.Popen(
                [guide.FLASH, "run"], cwd=place, env=environ, stdout=output, stderr=output
            )
            stack.callback(interrupt, process, log)
            until(lambda: "/docs\n" in log.read_text() or process.poll() is not None, "flash run")
        address = re.search(r"(http://localhost:\d+)/docs", log.read_text())
        assert address, log.read_text()
        yield stack.enter_context(httpx.Client(base_url=address[1], timeout=60))


def looking_for_a_port() -> filelock.FileLock:
    """Of two that look at the same time for the next one that is free, both may find the same."""
    return filelock.FileLock(Path(tempfile.gettempdir()) / "flash-tests-looking-for-a-port.lock")


def interrupt(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()


def greets(client: httpx.Client, base: str = "") -> None:
    assert client.post(f"{base}/greet", json={"name": "Ada"}).json() == {"message": "Hello, Ada!"}
    assert client.get(f"{base}/health").json() == {"status": "ok"}


def keeps_users(client: httpx.Client, base: str = "") -> None:
    assert client.get(f"{base}/users").json() == {"users": []}
    alice = {"name": "Alice", "email": "alice@example.com"}
    assert client.post(f"{base}/users", json=alice).json() == {"id": 1, **alice}
    assert client.get(f"{base}/users/7").json() == {"id": 7, "name": "Alice"}
    assert client.delete(f"{base}/users/7").json() == {"deleted": True}


def echoes(client: httpx.Client, base: str = "") -> None:
    assert client.post(f"{base}/process", json={"data": {"x": 1}}).json() == {"echo": {"x": 1}}
    assert client.get(f"{base}/health").json() == {"status": "healthy"}


def predicts(client: httpx.Client, base: str = "") -> None:
    answer = client.post(f"{base}/predict", json={"data": {"b": 1, "a": 2}})
    assert answer.json() == {"prediction": ["a", "b"]}
    assert client.get(f"{base}/health").json() == {"status": "ok", "gpu": "available"}


@pytest.mark.parametrize(
    ("block", "serves"),
    [
        (guide.QUICK_START, greets),
        (guide.ROUTING, keeps_users),
        (guide.GPU, predicts),
        (guide.CPU, echoes),
    ],
    ids=["quick-start", "routing", "gpu", "cpu"],
)
def test_an_endpoint_of_the_guide_is_built_and_served(tmp_path, block, serves):
    with built(tmp_path, main=block, torch=guide.TORCH) as server:
        serves(server.client)
        assert server.client.get("/ping").status_code == 200


def test_flash_run_serves_every_endpoint_under_its_name_at_port_8888_or_the_next_free_one(tmp_path):
    # As at the vendor's, the functions of one application have different names.
    cpu = guide.CPU.replace("def health", "def healthy")
    modules = {"example": guide.QUICK_START, "users": guide.ROUTING, "data": cpu, "jobs": guide.QUEUE}
    with running(tmp_path, **modules) as client:
        assert client.base_url.port is not None
        assert 8888 <= client.base_url.port < 8988
        greets(client, "/example-api")
        keeps_users(client, "/user-service")
        echoes(client, "/data-api")
        job = client.post("/worker/runsync", json={"input": {"x": 3}}).json()
        assert (job["status"], job["output"]) == ("COMPLETED", 3)
        assert client.get("/docs").status_code == 200


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "patch"])
def test_each_method_registers_a_route(method):
    api = Endpoint(name="example-api")
    getattr(api, method)("/api/users/{user_id}")(lambda user_id: user_id)
    assert api.is_load_balanced


@pytest.mark.parametrize("path", ["/ping", "/execute"])
def test_a_reserved_path_cannot_be_used(tmp_path, path):
    wrong = guide.QUICK_START.replace('"/health"', f'"{path}"')
    refused(tmp_path, wrong, f"path '{path}' is reserved", 11)


@pytest.mark.parametrize(
    ("wrong", "told", "line"),
    [
        (guide.ROUTING.replace('"/users/{user_id}"', '"users/{user_id}"', 1), "path must start with '/'", 14),
        (guide.ROUTING.replace('@api.post("/users")', '@api.get("/users")'), "duplicate route", 10),
    ],
)
def test_validation_errors_are_worded_as_the_guide_has_them(tmp_path, wrong, told, line):
    refused(tmp_path, wrong, told, line)


def refused(tmp_path: Path, source: str, told: str, line: int) -> None:
    """By the build, and where the module is imported; both name the line."""
    place = guide.write(tmp_path / "project", main=source)
    for command in ("flash build", f"{sys.executable} main.py"):
        done = guide.run(command, place)
        assert done.returncode != 0
        assert told in done.stderr
        assert f"main.py:{line}" in done.stderr


def test_decorated_functions_are_tested_as_functions(tmp_path):
    place = guide.write(tmp_path / "project", test_api=guide.TESTING)
    done = guide.run(f"{sys.executable} -m pytest -q -p no:cacheprovider", place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_flash_build_finds_both_kinds_and_their_routes(tmp_path):
    place = guide.write(tmp_path / "project", main=guide.ROUTING, worker=guide.QUEUE)
    done = guide.run("flash build", place)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(place / ".flash" / "artifact.tar.gz") as tar:
        member = next(each for each in tar if each.name.removeprefix("./") == "flash_manifest.json")
        manifest = json.load(tar.extractfile(member))  # type: ignore[arg-type]
    assert manifest["routes"] == {
        "user-service": {
            "GET /users": "list_users",
            "POST /users": "create_user",
            "GET /users/{user_id}": "get_user",
            "DELETE /users/{user_id}": "delete_user",
        }
    }
    assert manifest["resources"]["worker"]["is_load_balanced"] is False
    for told in ("user-service", "worker", "/users/{user_id}"):
        assert told in done.stdout


def test_the_curl_commands_work_where_a_worker_listens(tmp_path):
    with built(tmp_path, {"FLASH_API_KEY": "key"}, main=guide.ROUTING) as server:
        commands = guide.VERIFYING.replace(guide.CLOUD, server.url)
        done = guide.run(commands, tmp_path, RUNPOD_API_KEY="key")
        assert done.stdout.endswith('{"id":1,"name":"Alice","email":"alice@example.com"}')
        # That is what the key is for.
        assert "Alice" not in guide.run(commands, tmp_path, RUNPOD_API_KEY="another").stdout


def test_an_endpoint_is_called_by_its_id(tmp_path, monkeypatch):
    source = guide.GPU.replace("inference-api", "your-endpoint-id").replace("data: dict", "data: list")
    with running(tmp_path, main=source, torch=guide.TORCH) as client:
        monkeypatch.setenv("FLASH_ENDPOINT_URL", f"{str(client.base_url).rstrip('/')}/{{id}}")
        names = guide.awaited(guide.CALLING)
    assert names["result"] == {"prediction": [1, 2, 3]}
    assert names["health"] == {"status": "ok", "gpu": "available"}


def test_runtime_errors_are_worded_as_the_guide_has_them(tmp_path):
    failing = guide.CPU.replace('return {"echo": data}', 'raise RuntimeError("the cause")')
    call = """
from runpod_flash import Endpoint
await Endpoint(id="{url}").post("/process", {{"data": {{}}}})
"""
    with built(tmp_path, main=failing) as server:
        with pytest.raises(EndpointError, match="HTTP error from endpoint: 500") as caught:
            guide.awaited(call.format(url=server.url))
        # `Check endpoint logs`, which have the cause by the request's id.
        (line,) = (line for line in server.lines() if "the cause" in str(line))
        assert line["request_id"] == caught.value.request_id
    with pytest.raises(EndpointError, match="Connection refused"):
        guide.awaited(call.format(url=f"http://127.0.0.1:{free_port()}"))
