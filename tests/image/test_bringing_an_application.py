"""The ways to bring an application that docs/how-to/docker.md shows."""

import json
import shutil
from pathlib import Path

import httpx
import pytest

from tests import vendor
from tests.image.containers import ARTIFACT, PYTHON, Containers
from tests.serving import until

ROOT = Path(__file__).parent.parent.parent
HELLO = """
def hello():
    return "hello"
"""
NEW = HELLO.replace('"hello"', '"new"')
NEEDS_A_PACKAGE = """
import markupsafe

def hello():
    return str(markupsafe.escape("<hello>"))
"""
ROUTES = [("GET", "/hello", "hello")]


@pytest.fixture
def derived(containers: Containers):
    """Builds images of a Dockerfile's text, on the image under test, and removes them after the test."""
    tags: list[str] = []

    def build(dockerfile: str, context: Path) -> str:
        (context / "Dockerfile").write_text(dockerfile)
        tag = f"flash-runtime-test:derived-{len(tags)}"
        containers.engine.images.build(path=str(context), tag=tag, network_mode="host", rm=True)
        tags.append(tag)
        return tag

    yield build
    containers.remove()
    for tag in tags:
        containers.engine.images.remove(tag)


def answer(container) -> object:
    return httpx.get(f"{container.until_ready().url}/hello").json()


def test_a_mounted_artifact_is_served(containers):
    assert answer(containers.start(artifact=containers.artifact(HELLO, ROUTES))) == "hello"


def test_an_artifact_elsewhere_is_served(containers):
    container = containers.start(
        mount={"/data/mine.tar.gz": containers.artifact(HELLO, ROUTES)},
        environment={"FLASH_BUILD_ARTIFACT_PATH": "/data/mine.tar.gz"},
    )
    assert answer(container) == "hello"


def test_an_artifact_that_comes_after_the_start_is_served(containers, tmp_path):
    container = containers.start()
    until(lambda: container.ping() == 204, "starting")
    container.inner.put_archive("/root/.runpod", archive_of(containers.artifact(HELLO, ROUTES), tmp_path))
    assert answer(container) == "hello"


def archive_of(artifact: Path, tmp_path: Path) -> bytes:
    """What `docker cp` sends of an artifact."""
    place = tmp_path / "sent"
    place.mkdir()
    shutil.copy(artifact, place / "artifact.tar.gz")
    return Path(shutil.make_archive(str(tmp_path / "sent"), "tar", place)).read_bytes()


def test_a_mounted_directory_is_served(containers):
    assert answer(containers.start(mount={"/app": containers.directory(HELLO, ROUTES)})) == "hello"


def test_an_image_with_the_directory_copied_in_is_served(containers, derived):
    directory = containers.directory(HELLO, ROUTES)
    image = derived(f"FROM {containers.image}\nCOPY . /app\n", directory)
    assert answer(containers.start(image=image)) == "hello"
    assert answer(containers.start(image=image, read_only=True, user="1234:5678")) == "hello"


def test_an_image_with_the_artifact_copied_in_is_served(containers, derived, tmp_path):
    artifact = containers.artifact(HELLO, ROUTES)
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(artifact, context / "artifact.tar.gz")
    image = derived(f"FROM {containers.image}\nCOPY artifact.tar.gz {ARTIFACT}\n", context)
    assert answer(containers.start(image=image)) == "hello"


@pytest.mark.parametrize("command", ["uv pip install", "pip install --no-cache-dir"])
def test_an_image_with_packages_of_its_own_has_them(containers, derived, command):
    directory = containers.directory(NEEDS_A_PACKAGE, ROUTES)
    lines = f"FROM {containers.image}\nUSER root\nRUN {command} markupsafe\nUSER 1000\nCOPY . /app\n"
    image = derived(lines, directory)
    assert answer(containers.start(image=image)) == "&lt;hello&gt;"
    code, left = containers.finish("find", "/tmp", "/root", "-name", "*markupsafe*", image=image, user="root")
    assert (code, left) == (0, "")


def test_the_next_artifact_replaces_the_last_in_a_committed_container(containers):
    first = containers.start(artifact=containers.artifact(HELLO, ROUTES))
    assert answer(first) == "hello"
    committed = first.inner.commit("flash-runtime-test", "committed")
    try:
        second = containers.start(image=committed.id, artifact=containers.artifact(NEW, ROUTES))
        assert answer(second) == "new"
    finally:
        containers.remove()
        containers.engine.images.remove(committed.id, force=True)


@pytest.mark.vendor
def test_the_vendors_artifact_with_a_compiled_dependency_is_served_unchanged(containers):
    artifact = vendor.build("numeric", PYTHON)
    container = containers.start(artifact=artifact).until_ready()
    equations = {"matrix": [[2, 0], [0, 4]], "vector": [2, 4]}
    solved = httpx.post(f"{container.url}/solve", json=equations, timeout=30)
    assert solved.json() == {"solution": [1.0, 1.0]}


@pytest.mark.vendor
def test_the_vendors_artifact_of_two_resources_is_served_by_its_start_command(containers):
    artifact = vendor.build("duo", PYTHON)
    for resource, says in (("cats", "meow"), ("dogs", "woof")):
        command = f"uvicorn handler_{resource}:app --host 0.0.0.0 --port 80"
        container = containers.start(*command.split(), artifact=artifact).until_ready()
        assert httpx.get(f"{container.url}/say").json() == says


@pytest.mark.parametrize(
    "example", sorted(path.parent.name for path in ROOT.glob("examples/*/flash_manifest.json"))
)
def test_every_example_is_served(containers, example):
    directory = ROOT / "examples" / example
    manifest = json.loads((directory / "flash_manifest.json").read_text())
    for resource in manifest["resources"]:
        container = containers.start(mount={"/app": directory}, environment={"FLASH_RESOURCE_NAME": resource})
        assert container.until_ready().ping("/openapi.json") == 200
