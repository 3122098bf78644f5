"""`flash deploy` to a real engine: what its users do by the command, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
import pytest
from docker.errors import APIError

from tests.serving import environment, free_port, until

FLASH = Path(sys.executable).parent / "flash"
API = """
import os
from runpod_flash import Endpoint
from scores import score
api = Endpoint(name="api", cpu="cpu3c-1-2", workers=(2, 3), env={"OWN": "own", "SHARED": "under"})

@api.post("/score")
async def scored(text: str):
    return await score(text)

@api.get("/version")
def version():
    return "first"

@api.get("/environ")
def environ():
    return [os.environ.get(name) for name in ("OWN", "SHARED", "SECRET")]
"""
SCORES = """
from runpod_flash import Endpoint

@Endpoint(name="scores", cpu="cpu3c-1-2")
def score(text):
    return len(text)
"""
HELLO = """
from runpod_flash import Endpoint
api = Endpoint(name="hello", cpu="cpu3c-1-2")

@api.get("/version")
def version():
    return "first"
"""
TABLE = """
[tool.flash.env.test]
target = "docker"
image = "{image}"
env = {{ SHARED = "over" }}
secrets = ["SECRET"]
"""
BROKEN = "raise RuntimeError('the weights are gone')\n"
HANGS = "import time\nprint('loading the weights', flush=True)\ntime.sleep(600)\n"


@dataclass(frozen=True)
class Project:
    """A project's directory, the command in it, and what the engine has of it."""

    root: Path
    engine: docker.DockerClient

    @property
    def environ(self) -> dict[str, str]:
        host = {name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ}
        return environment(SECRET="s3cret", **host)

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command, to be interrupted; killed where it is not through in a minute."""
        process = subprocess.Popen(
            [FLASH, *arguments],
            cwd=self.root,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        limit = threading.Timer(60, process.kill)
        limit.start()
        with process:
            try:
                yield process
                process.stdout.read()
                process.wait()
            finally:
                limit.cancel()
                process.kill()

    def flash(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """All that the command prints; it must end with this exit code, on one screen, and tell no secret."""
        done = subprocess.run(
            [FLASH, *arguments],
            cwd=self.root,
            env=self.environ | variables,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        told = done.stdout + done.stderr
        assert done.returncode == code, told
        assert "s3cret" not in told
        assert "Traceback (most recent call last)\n  File" not in told
        assert not code or len(told.splitlines()) < 30, told
        return told

    def urls(self) -> dict[str, str]:
        lines = [line.split() for line in self.flash("status").splitlines()[1:]]
        return {words[0]: words[3] for words in lines}

    def containers(self) -> set[str]:
        own = {"label": f"flash.project={self.root.name}"}
        return {each.name for each in self.engine.containers.list(all=True, filters=own, ignore_removed=True)}

    def is_gone(self) -> bool:
        """Whether the engine has nothing of it any more."""
        own = {"label": f"flash.project={self.root.name}"}
        images = self.engine.images.list(filters=own)
        return not self.containers() and not self.engine.networks.list(filters=own) and not images


@pytest.fixture(scope="module")
def projects(image: str) -> Iterator[list[Project]]:
    """Those that were made, which are undeployed at the end; made by `project_of`."""
    made: list[Project] = []
    yield made
    for project in made:
        (project.root / "pyproject.toml").write_text(TABLE.format(image=image))
        project.flash("undeploy", "--all", "--yes")
        assert project.is_gone()


def project_of(
    name: str, made: list[Project], engine: docker.DockerClient, directory: Path, table: str, **modules: str
) -> Project:
    root = directory / name
    root.mkdir()
    (root / "pyproject.toml").write_text(table)
    for module, text in modules.items():
        (root / f"{module}.py").write_text(text)
    made.append(Project(root, engine))
    return made[-1]


@pytest.fixture(scope="module")
def deployed(
    projects: list[Project],
    engine: docker.DockerClient,
    image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Project:
    """An application of two endpoints, which is deployed; every test leaves it serving."""
    table = TABLE.format(image=image)
    directory = tmp_path_factory.mktemp("deployed")
    project = project_of("deploytest", projects, engine, directory, table, api=API, scores=SCORES)
    (project.root / "printed.txt").write_text(project.flash("deploy", "--env", "test"))
    return project


@pytest.fixture
def fresh(projects: list[Project], engine: docker.DockerClient, image: str, tmp_path: Path) -> Project:
    """An application of one endpoint, which is not deployed yet."""
    return project_of("deployfresh", projects, engine, tmp_path, TABLE.format(image=image), main=HELLO)


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


def test_every_endpoint_is_served_and_the_printed_commands_call_it(deployed):
    printed = (deployed.root / "printed.txt").read_text()
    urls = deployed.urls()
    assert set(urls) == {"api", "scores"}
    commands = [line.strip() for line in printed.splitlines() if line.startswith("  curl ")]
    answers = [
        subprocess.run(["sh", "-c", f"{each} -s -m 10"], check=True, capture_output=True, text=True).stdout
        for each in commands
    ]
    assert answers[0] == "4"  # of api, which asks scores
    assert '"output":4' in answers[1]
    assert httpx.get(f"{urls['api']}/environ").json() == ["own", "over", "s3cret"]
    rows = [line.split()[:2] for line in deployed.flash("status").splitlines()[1:]]
    assert rows == [["api", "2/2"], ["scores", "1/1"]]
    assert not any("s3cret" in path.read_text() for path in (deployed.root / ".flash" / "deployed").iterdir())


def test_the_next_release_replaces_it_without_a_lost_request(deployed):
    urls, before = deployed.urls(), deployed.containers()
    (deployed.root / "api.py").write_text(API.replace("first", "second"))
    with Asking(urls["api"]) as asking:
        deployed.flash("deploy")
        until(lambda: asking.answers["second"] > 50, "the new one serves")
    assert set(asking.answers) == {"first", "second"}
    assert deployed.urls() == urls
    kept = {name.rpartition("-")[0] for name in deployed.containers() & before}
    assert kept == {"deploytest-test-api-front", "deploytest-test-scores-front"}
    assert len(deployed.containers()) == len(before)


@pytest.mark.parametrize(
    ("broken", "options", "told"),
    [
        (BROKEN, (), ["ended with exit code 70", "RuntimeError: the weights are gone"]),
        (HANGS, ("--timeout", "10"), ["is not healthy after 10 s", "loading the weights"]),
    ],
    ids=["ends", "hangs"],
)
def test_a_release_that_is_not_healthy_leaves_the_old_one_serving_and_nothing_of_itself(
    deployed, broken, options, told
):
    url, before = deployed.urls()["api"], deployed.containers()
    (deployed.root / "api.py").write_text(API + broken)
    try:
        with Asking(url) as asking:
            said = deployed.flash("deploy", *options, code=69)
    finally:
        (deployed.root / "api.py").write_text(API)
    assert len(asking.answers) == 1
    assert set(asking.answers) <= {"first", "second"}
    assert all(each in said for each in told)
    assert deployed.containers() == before


def test_a_port_that_is_taken_is_named_and_what_served_at_another_serves_on(deployed, image):
    urls, before = deployed.urls(), deployed.containers()
    table = TABLE.format(image=image)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (deployed.root / "pyproject.toml").write_text(f"{table}ports = {{ api = {port} }}\n")
        assert f"Port {port} of 127.0.0.1 is taken, and api needs it" in deployed.flash("deploy", code=69)
    assert deployed.containers() == before
    assert httpx.get(f"{urls['api']}/ping").status_code == 200
    deployed.flash("deploy")
    assert deployed.urls() == {**urls, "api": f"http://127.0.0.1:{port}"}


def test_a_worker_that_is_killed_costs_at_most_its_own_requests_and_comes_back(deployed):
    (first, _) = deployed.engine.containers.list(
        filters={"label": [f"flash.project={deployed.root.name}", "flash.endpoint=api", "flash.role=worker"]}
    )
    with Asking(deployed.urls()["api"]) as asking:
        until(lambda: asking.answers.total() > 20, "requests")
        first.exec_run(["sh", "-c", "kill -9 -1"])
        until(lambda: first.reload() or first.attrs["RestartCount"], "it is started again")
        until(lambda: "api       2/2" in deployed.flash("status"), "it is healthy again")
    lost = asking.answers.total() - asking.answers["first"] - asking.answers["second"]
    assert lost <= 4, asking.answers


def test_logs_are_of_each_endpoint_and_can_be_followed(deployed):
    every = deployed.flash("logs").splitlines()
    assert {line.partition("|")[0].strip() for line in every} == {"api", "scores"}
    assert any("listening on port 80" in line for line in deployed.flash("logs", "scores").splitlines())
    assert "name one of api, scores" in deployed.flash("logs", "nobody", code=78)
    with deployed.start("logs", "api", "--follow", "--lines", "0") as following:
        assert following.stdout is not None
        with Asking(deployed.urls()["api"]):
            assert "GET /version 200" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
    assert following.returncode == 0


def test_what_cannot_be_deployed_is_refused_before_anything_is_changed(deployed, image):
    before = deployed.containers()
    assert "The environments are: test" in deployed.flash("deploy", "--env", "nowhere", code=78)
    told = deployed.flash("status", code=69, DOCKER_HOST="tcp://127.0.0.1:1")
    assert "No Docker engine answers" in told
    assert "SECRET" in deployed.flash("deploy", code=78, SECRET="")
    (deployed.root / "pyproject.toml").write_text(TABLE.format(image="flash-no-such:cpu"))
    told = deployed.flash("deploy", code=69)
    (deployed.root / "pyproject.toml").write_text(TABLE.format(image=image))
    assert "flash-no-such:cpu is missing" in told
    assert "make image-cpu" in told
    assert deployed.containers() == before


def test_undeploying_one_endpoint_leaves_the_others_and_all_leaves_nothing(deployed):
    url = deployed.urls()["scores"]
    assert "--yes" in deployed.flash("undeploy", "api", code=64)
    deployed.flash("undeploy", "api", "--yes")
    assert deployed.urls() == {"scores": url}
    assert httpx.get(f"{url}/ping").status_code == 200
    deployed.flash("undeploy", "--all", "--yes")
    assert deployed.is_gone()
    assert "nothing is deployed" in deployed.flash("status")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_deployment_that_is_interrupted_leaves_nothing_of_itself(fresh, sent):
    (fresh.root / "main.py").write_text(HELLO + HANGS)
    with fresh.start("deploy") as deploying:
        until(lambda: any("deployfresh-test-hello" in each for each in fresh.containers()), "a worker boots")
        deploying.send_signal(sent)
    assert deploying.returncode == 130
    assert fresh.is_gone()


def test_a_network_that_is_not_the_deployments_is_left_alone(fresh):
    foreign = fresh.engine.networks.create("deployfresh-test")
    try:
        assert "does not belong to this deployment" in fresh.flash("deploy", code=69)
        foreign.reload()
    finally:
        foreign.remove()
    assert fresh.containers() == set()


def test_a_preview_serves_with_its_logs_until_ctrl_c_and_leaves_nothing(fresh):
    with fresh.start("deploy", "--preview") as preview:
        assert preview.stdout is not None
        for line in preview.stdout:
            if line.startswith("hello  http"):
                url = line.split()[1]
            if line.startswith("Ctrl-C"):
                break
        with Asking(url) as asking:
            assert any("GET /version 200" in line for line in preview.stdout)
        preview.send_signal(signal.SIGINT)
    assert set(asking.answers) == {"first"}
    assert preview.returncode == 0
    assert fresh.is_gone()


@pytest.fixture
def swarm(engine: docker.DockerClient) -> Iterator[None]:
    """The engine is a swarm's manager for one test."""
    if engine.info()["Swarm"]["LocalNodeState"] != "inactive":
        pytest.skip("the engine is in a swarm of its user's")
    try:
        engine.swarm.init(
            advertise_addr="127.0.0.1", listen_addr="127.0.0.1", data_path_port=free_port() % 10000 + 40000
        )
    except APIError as error:
        pytest.skip(f"the engine cannot be a swarm's manager: {error.explanation}")
    yield
    engine.swarm.leave(force=True)


def test_a_swarm_rolls_a_release_over_and_keeps_the_old_one_where_it_fails(fresh, swarm, image):
    """Asked inside of its task: the published port needs IPVS, which not every kernel has."""

    def versions() -> set[str]:
        tasks = fresh.engine.containers.list(
            filters={"label": "com.docker.swarm.service.name=deployfresh-test-hello", "health": "healthy"}
        )
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1/version').read().decode())"
        try:
            return {each.exec_run(["python3", "-c", ask]).output.decode().strip(' "\n') for each in tasks}
        except APIError:
            return set()  # one has ended meanwhile

    (fresh.root / "pyproject.toml").write_text(TABLE.format(image=image) + 'mode = "swarm"\n')
    fresh.flash("deploy")
    assert versions() == {"first"}
    assert fresh.flash("status").splitlines()[1].split()[:2] == ["hello", "1/1"]
    (fresh.root / "main.py").write_text(HELLO.replace("first", "second"))
    fresh.flash("deploy")
    until(lambda: versions() == {"second"}, "the old task is gone")
    (fresh.root / "main.py").write_text(HELLO + BROKEN)
    told = fresh.flash("deploy", code=69)
    assert "ended before it was healthy (exit code 70)" in told
    assert "RuntimeError: the weights are gone" in told
    until(lambda: versions() == {"second"}, "the old task is there")
    fresh.flash("undeploy", "--all", "--yes")
    assert fresh.is_gone()
