"""Bad build arguments and bases end `docker build` with one message and its remedy."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

ROOT = Path(__file__).parent.parent.parent
PUBLISHED = "python:3.12-slim"
BASE = "flash-runtime-test:base"
NAME = "flash-runtime-test"
REMOVE_PYTHON = "RUN rm -f /usr/local/bin/python3*"


@pytest.fixture
def base(engine: docker.DockerClient, image: str, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a base image: the default one, with one more line of a Dockerfile."""

    def with_line(line: str) -> str:
        (tmp_path / "Dockerfile").write_text(f"FROM {PUBLISHED}\n{line}\n")
        engine.images.build(path=str(tmp_path), tag=BASE, rm=True)
        return BASE

    yield with_line
    for built in engine.images.list(NAME):
        for tag in built.tags:
            if tag.startswith(f"{NAME}:"):
                engine.images.remove(tag)  # by name: the base may be the published one itself


def build(target: str, **arguments: str) -> tuple[int, str]:
    """The exit code and the output of `make image` or `make image-cpu` with these build arguments."""
    options = " ".join(f"--build-arg {name}='{value}'" for name, value in arguments.items())
    done = subprocess.run(
        ["make", target, f"IMAGE={NAME}", f"BUILD_OPTIONS={os.environ.get('BUILD_OPTIONS', '')} {options}"],
        cwd=ROOT,
        env={**os.environ, "BUILDKIT_PROGRESS": "plain"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["image", "image-cpu"])
@pytest.mark.parametrize(
    ("line", "arguments", "what", "remedy"),
    [
        ("", {"PYTHON_VERSION": "3.11"}, "the base image has Python 3.12, not 3.11", "another BASE_IMAGE"),
        ("", {"PYTHON_VERSION": "3.1"}, "the base image has Python 3.12, not 3.1", "PYTHON_VERSION=3.12"),
        (
            f"{REMOVE_PYTHON} && printf '#!/bin/sh\\necho 3.9\\n' > /usr/local/bin/python3"
            " && chmod +x /usr/local/bin/python3",
            {},
            "the base image has Python 3.9, which is not supported",
            "take one of 3.11 3.12 3.13",
        ),
        (REMOVE_PYTHON, {}, "the base image has no python3", "python:3.12-slim"),
        ("RUN rm /usr/bin/apt-get", {}, "the base image has no apt-get", "Debian"),
        ("", {"EXTRAS": "torch cuda"}, "there is no extra cuda", "some of: artifact-sdk torch"),
    ],
    ids=["another-python", "no-such-python", "old-python", "no-python", "no-apt", "unknown-extra"],
)
def test_a_build_that_cannot_work_ends_with_one_message(base, target, line, arguments, what, remedy):
    code, output = build(target, BASE_IMAGE=base(line), **arguments)
    assert code != 0
    assert [said for said in output.splitlines() if "flash-runtime:" in said and what in said]
    assert remedy in output
    assert "Traceback" not in output


def test_a_base_with_variables_of_its_own_as_the_published_ones_have_is_built_upon(base):
    code, output = build("image-cpu", BASE_IMAGE=base("ENV PYTHON_VERSION=3.12.99 LANG=C.UTF-8"))
    assert code == 0, output


def test_the_full_version_of_the_bases_python_is_taken_too(base, engine):
    full = engine.containers.run(PUBLISHED, ["python3", "--version"], remove=True).decode().split()[1]
    code, output = build("image-cpu", BASE_IMAGE=base(""), PYTHON_VERSION=full)
    assert code == 0, output
