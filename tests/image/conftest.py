"""A real Docker engine, and the image under test. Every test here skips where no `--image` is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from tests.image.containers import Containers


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> str:
    """The name of the image under test."""
    name: str | None = request.config.getoption("--image")
    if name is None:
        pytest.skip("no --image is given; `make test-image` builds one and gives it")
    return name


@pytest.fixture(scope="session")
def engine(image: str) -> Iterator[docker.DockerClient]:
    """The engine's client; that the image is there was promised by `--image`."""
    client = docker.from_env()
    try:
        client.images.get(image)
    except ImageNotFound:
        pytest.fail(f"the engine has no image {image}")
    yield client
    client.close()


@pytest.fixture
def containers(engine: docker.DockerClient, image: str, tmp_path: Path) -> Iterator[Containers]:
    """Starts containers of the image, and removes them after the test."""
    started = Containers(engine, image, tmp_path)
    yield started
    started.remove()
