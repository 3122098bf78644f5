"""`flash deploy` to a real Docker engine: services of two endpoints, changed while they are asked."""

from __future__ import annotations

import gc
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from flash_cli.application import Application, DeclaredEndpoint, Function, Place
from flash_cli.environments import DockerEnvironment
from flash_cli.faults import TargetFault
from flash_cli.services import release_of
from flash_cli.targets.docker import DockerTarget
from tests.image.containers import PYTHON, pack
from tests.serving import until

PROJECT = "deploy-test"
API = """
import os
from runpod_flash import Endpoint
from scores import score
api = Endpoint(name="api", cpu="cpu3c-1-2", workers=(2, 3))

@api.get("/version")
def version():
    return "first"

@api.get("/environ")
def environ():
    return [os.environ.get(name) for name in ("OWN", "SHARED", "SECRET")]

@api.post("/score")
async def scored(text: str):
    return await score(text)
"""
SCORES = """
from runpod_flash import Endpoint

@Endpoint(name="scores", cpu="cpu3c-1-2")
def score(text):
    return len(text)
"""
BROKEN = "raise RuntimeError('the weights are gone')\n"
HANGS = "import time\ntime.sleep(600)\n"


@dataclass(frozen=True)
class Deployer:
    """Deploys the application of two endpoints, as the command does when it has built it."""

    target: DockerTarget
    environment: DockerEnvironment
    engine: docker.DockerClient
    directory: Path

    def application(self) -> Application:
        def function(name: str, module: str, method: str | None = None, path: str | None = None) -> Function:
            return Function(name, module, Place(f"{module}.py", 1), method=method, path=path)

        routes = (("version", "GET"), ("environ", "GET"), ("scored", "POST"))
        api = tuple(function(name, "api", method, f"/{name}") for name, method in routes)
        options = {"cpu": "cpu3c-1-2", "workers": (2, 3), "env": {"OWN": "own", "SHARED": "under"}}
        endpoints = (
            DeclaredEndpoint("api", Place("api.py", 5), api, options, calls_others=True),
            DeclaredEndpoint(
                "scores", Place("scores.py", 4), (function("score", "scores"),), {"cpu": "cpu3c-1-2"}
            ),
        )
        return Application(PROJECT, self.directory, endpoints)

    def artifact(self, api: str = API) -> Path:
        resources: dict[str, Any] = {}
        for endpoint in self.application().endpoints:
            functions = [
                {"name": each.name, "module": each.module, "http_method": each.method, "http_path": each.path}
                for each in endpoint.functions
            ]
            resources[endpoint.name] = {"functions": functions, "is_load_balanced": endpoint.is_load_balanced}
        registry = {each["name"]: name for name, own in resources.items() for each in own["functions"]}
        manifest = {"python_version": PYTHON, "resources": resources, "function_registry": registry}
        place = self.directory / f"case{len(list(self.directory.iterdir()))}"
        place.mkdir()
        (place / "api.py").write_text(api)
        (place / "scores.py").write_text(SCORES)
        (place / "flash_manifest.json").write_text(json.dumps(manifest))
        return pack(place)

    def __call__(
        self,
        api: str = API,
        *,
        timeout: float = 30,
        say: Callable[[str], None] = print,
        **changed: Any,
    ) -> dict[str, str]:
        environment = replace(self.environment, **changed)
        variables = {"SECRET": "s3cret"}
        release = release_of(self.application(), environment, self.artifact(api), variables, timeout)
        return dict(DockerTarget(environment, PROJECT, self.engine).deploy(release, say))

    def containers(self) -> set[str]:
        found = self.engine.containers.list(all=True, filters={"label": f"flash.project={PROJECT}"})
        return {each.name for each in found}


@pytest.fixture
def deployer(engine: docker.DockerClient, image: str, tmp_path: Path) -> Iterator[Deployer]:
    environment = DockerEnvironment(name="test", image=image, env={"SHARED": "over"}, secrets=("SECRET",))
    directory = tmp_path / "built"
    directory.mkdir()
    target = DockerTarget(environment, PROJECT, engine)
    yield Deployer(target, environment, engine, directory)
    target.undeploy(["api", "scores"], print)


class Asking:
    """Asks for the version all the time, half on kept connections; counts the answers."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url, keep)) for keep in (0, 0, 5, 5)]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url: str, keep: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=keep)
        with httpx.Client(base_url=url, timeout=10, limits=limits) as client:
            while not self._stop.wait(0.005):
                try:
                    response = client.get("/version")
                    self.answers[response.json() if response.status_code == 200 else response.text] += 1
                except httpx.TransportError as error:
                    self.answers[repr(error)] += 1


def test_a_deployment_serves_every_endpoint_and_the_next_one_replaces_it_without_a_lost_request(deployer):
    urls = deployer()
    assert set(urls) == {"api", "scores"}
    assert httpx.get(f"{urls['api']}/environ").json() == ["own", "over", "s3cret"]
    assert httpx.post(f"{urls['api']}/scored", json={"text": "four"}).json() == 4
    assert httpx.post(f"{urls['scores']}/runsync", json={"input": {"text": "four"}}).json()["output"] == 4
    states = {state.endpoint: state for state in deployer.target.status()}
    assert [(states[name].ready, states[name].wanted) for name in ("api", "scores")] == [(2, 2), (1, 1)]
    before = deployer.containers()
    assert len(before) == 5

    with Asking(urls["api"]) as asking:
        assert deployer(API.replace("first", "second")) == urls
        until(lambda: asking.answers["second"] > 50, "the new one serves")
    assert set(asking.answers) == {"first", "second"}
    assert {name.rpartition("-")[0] for name in deployer.containers() & before} == {
        "deploy-test-test-api-front",
        "deploy-test-test-scores-front",
    }
    assert {state.release for state in deployer.target.status()} != {states["api"].release}
    assert httpx.post(f"{urls['api']}/scored", json={"text": "four"}).json() == 4


def test_a_release_that_cannot_start_leaves_the_old_one_serving_and_nothing_of_itself(deployer):
    urls = deployer()
    before = deployer.containers()
    with Asking(urls["api"]) as asking, pytest.raises(TargetFault) as fault:
        deployer(BROKEN)
    assert set(asking.answers) == {"first"}
    assert deployer.containers() == before
    assert "A worker of api ended with exit code 70" in fault.value.what
    assert "RuntimeError: the weights are gone" in str(fault.value)
    assert len(str(fault.value).splitlines()) < 25
    assert fault.value.exit_code == 69

    with pytest.raises(TargetFault, match="is not healthy after 3 s"):
        deployer(HANGS, timeout=3)
    assert deployer.containers() == before
    assert httpx.get(f"{urls['api']}/version").json() == "first"


def test_ctrl_c_in_the_midst_of_a_deployment_leaves_what_was(deployer):
    def interrupt(line: str) -> None:
        if "healthy" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deployer(say=interrupt)
    assert deployer.containers() == set()
    assert deployer.engine.networks.list(names=["deploy-test-test"]) == []


def test_a_worker_that_is_killed_costs_at_most_its_own_requests_and_comes_back(deployer):
    urls = deployer()
    (first, _) = deployer.engine.containers.list(
        filters={"label": [f"flash.project={PROJECT}", "flash.endpoint=api", "flash.role=worker"]}
    )
    with Asking(urls["api"]) as asking:
        until(lambda: asking.answers["first"] > 20, "it is asked")
        first.exec_run(["sh", "-c", "kill -9 -1"])
        until(lambda: deployer.target.status()[0].ready == 1, "one is gone")
        until(lambda: deployer.target.status()[0].ready == 2, "it is back")
    lost = asking.answers.total() - asking.answers["first"]
    assert lost <= 4, asking.answers


def test_a_network_that_is_not_the_deployments_is_left_alone(deployer):
    foreign = deployer.engine.networks.create("deploy-test-test")
    try:
        with pytest.raises(TargetFault, match="not this deployment's"):
            deployer()
        deployer.target.undeploy(["api"], print)
        foreign.reload()
    finally:
        foreign.remove()
    assert deployer.containers() == set()


def test_a_port_that_is_taken_is_named_and_what_served_at_another_serves_on(deployer):
    urls = deployer()
    before = deployer.containers()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TargetFault) as fault:
            deployer(ports={"api": port})
        assert str(port) in fault.value.what
        assert "ports" in str(fault.value.remedy)
    assert deployer.containers() == before
    assert httpx.get(f"{urls['api']}/version").json() == "first"
    moved = deployer(ports={"api": port})
    assert moved == {**urls, "api": f"http://127.0.0.1:{port}"}
    assert httpx.get(f"{moved['api']}/version").json() == "first"


def test_an_image_that_is_not_there_is_named_with_the_remedy(deployer):
    with pytest.raises(TargetFault, match="flash-no-such:cpu") as fault:
        deployer(image="flash-no-such:cpu")
    assert "make image-cpu" in str(fault.value.remedy)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker's, of a socket
def test_an_engine_that_is_not_there_is_named_with_the_remedy(image):
    with pytest.raises(TargetFault, match="No Docker engine answers") as fault:
        DockerTarget(DockerEnvironment(name="test", host="unix:///nowhere.sock"), PROJECT)
    assert fault.value.where == "unix:///nowhere.sock"
    assert "DOCKER_HOST" in str(fault.value.remedy)
    del fault
    gc.collect()


def test_undeploying_one_endpoint_leaves_the_others_and_logs_are_of_each(deployer):
    urls = deployer()
    logged = list(deployer.target.logs("api", follow=False, lines=50))
    assert {endpoint for endpoint, _ in logged} == {"api"}
    assert any("listening on port 80" in line for _, line in logged)
    deployer.target.undeploy(["api"], print)
    assert [state.endpoint for state in deployer.target.status()] == ["scores"]
    assert httpx.get(f"{urls['scores']}/ping").status_code == 200
    deployer.target.undeploy(["scores"], print)
    assert deployer.containers() == set()
    assert deployer.engine.networks.list(names=["deploy-test-test"]) == []
    assert deployer.engine.images.list(filters={"label": f"flash.project={PROJECT}"}) == []
