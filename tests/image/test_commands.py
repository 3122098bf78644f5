"""`docker run IMAGE …`: the runtime's commands, the vendor's start command, and any other."""

import json

import httpx
import pytest

from flash_runtime import __version__
from tests.image.containers import ARTIFACT
from tests.serving import until

HELLO = """
def hello():
    return "hello"
"""
ROUTES = [("GET", "/hello", "hello")]


def test_version_is_printed(containers):
    assert containers.finish("version") == (0, f"flash-runtime {__version__}\n")


def test_check_lists_the_routes(containers):
    code, log = containers.finish("check", artifact=containers.artifact(HELLO, ROUTES))
    assert code == 0
    assert "main.hello" in log


def test_any_command_is_run(containers):
    assert containers.finish("echo", "a  b", "$HOME") == (0, "a  b $HOME\n")
    assert containers.finish("sh", "-c", "exit 7")[0] == 7


def test_wrong_usage_exits_64(containers):
    code, log = containers.finish("serve", "--port", "80")
    assert code == 64
    assert "usage: flash-runtime" in log


@pytest.mark.parametrize("image_setting", ["json", "text"])
def test_without_an_artifact_the_line_that_works_is_printed_first(containers, image_setting):
    environment = {"FLASH_ARTIFACT_WAIT": "0.1", "LOG_FORMAT": image_setting}
    code, log = containers.finish(environment=environment)
    assert code == 66
    first = log.splitlines()[0]
    said = json.loads(first)["message"] if image_setting == "json" else first
    line = f"docker run -p 8000:80 -v $PWD/.flash/artifact.tar.gz:{ARTIFACT}:ro {containers.image}"
    assert said.endswith(line)


def test_with_an_application_nothing_of_that_is_printed(containers):
    artifact, directory = containers.artifact(HELLO, ROUTES), containers.directory(HELLO, ROUTES)
    for brought in ({"artifact": artifact}, {"mount": {"/app": directory}}):
        container = containers.start(**brought).until_ready()
        assert "docker run" not in container.log


VENDOR = "uvicorn handler_{name}:app --host 0.0.0.0 --port 80"


@pytest.mark.parametrize("shell", [False, True], ids=["direct", "through-a-shell"])
def test_the_vendors_start_command_serves_its_resource(containers, shell):
    directory = containers.directory(HELLO, ROUTES)
    manifest = json.loads((directory / "flash_manifest.json").read_text())
    [(name, resource)] = manifest["resources"].items()
    other = {**resource, "functions": [{**resource["functions"][0], "http_path": "/other"}]}
    manifest["resources"] = {"other-one": other, name: resource}
    (directory / "flash_manifest.json").write_text(json.dumps(manifest))
    for resource_name, path in ((name, "/hello"), ("other-one", "/other")):
        line = VENDOR.format(name=resource_name)
        command = ["sh", "-c", line] if shell else line.split()
        container = containers.start(*command, mount={"/app": directory}).until_ready()
        assert httpx.get(f"{container.url}{path}").json() == "hello"


@pytest.mark.parametrize("option", [["--port", "8080"], ["--port=8080"]], ids=["two-words", "one-word"])
def test_the_vendors_start_command_chooses_port_and_workers(containers, option):
    command = ["uvicorn", "lb_handler:app", *option, "--workers", "2", "--timeout-keep-alive", "600"]
    container = containers.start(
        *command, artifact=containers.artifact(HELLO, ROUTES), port=8080
    ).until_ready()
    [listening] = [line for line in container.lines() if line["message"] == "listening on port 8080"]
    assert listening["workers"] == 2


def test_uvicorn_serves_any_other_application_as_ever(containers):
    container = containers.start(
        "uvicorn", "fastapi:FastAPI", "--factory", "--host", "0.0.0.0", "--port", "80"
    )
    until(lambda: container.ping("/openapi.json") == 200, "uvicorn serves")
    assert httpx.get(f"{container.url}/openapi.json").json()["info"]["title"] == "FastAPI"
