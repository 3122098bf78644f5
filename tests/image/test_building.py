"""Bad build arguments and bases end `docker build` with one message and its remedy."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

ROOT = Path(__file__).parent.parent.parent
BASE = "flash-runtime-test:base"


@pytest.fixture(scope="module")
def base(
    engine: docker.DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., str]]:
    """Makes a base image that lacks some files: the image under test without them."""
    context = tmp_path_factory.mktemp("base")

    def without(*files: str) -> str:
        (context / "Dockerfile").write_text(f"FROM {image}\nUSER root\nRUN rm -rf {' '.join(files)}\n")
        engine.images.build(path=str(context), tag=BASE, rm=True)
        return BASE

    yield without
    engine.images.remove(BASE)


def build(target: str, **arguments: str) -> tuple[int, str]:
    """The exit code and the output of a build that must not succeed; it is stopped if it goes on for long."""
    options = " ".join(f"--build-arg {name}='{value}'" for name, value in arguments.items())
    done = subprocess.run(
        ["make", target, "IMAGE=flash-runtime-test", f"BUILD_OPTIONS={options}"],
        cwd=ROOT,
        env={**os.environ, "BUILDKIT_PROGRESS": "plain"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["image", "image-cpu"])
@pytest.mark.parametrize(
    ("lacking", "arguments", "what", "remedy"),
    [
        ([], {"PYTHON_VERSION": "3.11"}, "the base image has Python 3.12, not 3.11", "BASE_IMAGE"),
        (
            ["/usr/local/bin/python3*", "/opt/venv"],
            {},
            "the base image has no python3",
            "python:3.12-slim",
        ),
        (["/usr/bin/apt-get"], {}, "the base image has no apt-get", "Debian"),
        ([], {"EXTRAS": "torch cuda"}, "EXTRAS has cuda; there is artifact-sdk torch", "leave it out"),
    ],
    ids=["another-python", "no-python", "no-apt", "unknown-extra"],
)
def test_a_build_that_cannot_work_ends_with_one_message(base, target, lacking, arguments, what, remedy):
    code, output = build(target, BASE_IMAGE=base(*lacking) if lacking else base("/nothing"), **arguments)
    assert code != 0
    said = [line for line in output.splitlines() if "flash-runtime:" in line and what in line]
    assert said
    assert remedy in output
    assert "Traceback" not in output
