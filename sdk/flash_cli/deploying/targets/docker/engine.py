"""The Docker engine: connects to it, builds images with an artifact, and looks after containers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import signal
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from flash_cli.deploying.environments import DockerEnvironment
from flash_cli.deploying.loglines import Line, lines_of
from flash_cli.deploying.services import DRAIN_SECONDS, TOKEN, slug
from flash_cli.deploying.target import DOCKERFILE
from flash_cli.faults import TargetFault

HARDENING = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},  # noqa: S108  the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
"""How docs/how-to/docker.md secures a container: code that takes over a handler gets no further rights."""


def connect(host: str | None) -> docker.DockerClient:
    """The engine at `host`, or else the one of DOCKER_HOST, or else the one of Docker's current context.

    Raises `TargetFault` if it does not answer.
    """
    tried = host or os.environ.get("DOCKER_HOST") or ""
    try:
        if host is None and tried:
            client = docker.from_env()
        else:
            tried = tried or ContextAPI.get_current_context().Host or "unix:///var/run/docker.sock"
            client = docker.DockerClient(base_url=tried)
        client.ping()
    except (DockerException, requests.RequestException, OSError) as error:
        raise TargetFault(
            f"No Docker engine answers: {_last_cause(error)}.",
            where=tried,
            remedy="start Docker (Docker Desktop, or `systemctl start docker`), or set DOCKER_HOST to "
            "another engine. Only root and the group `docker` may use the socket.",
        ) from None
    return client


class EngineTarget:
    """The common part of the two targets that use a Docker engine's API."""

    def __init__(
        self, environment: DockerEnvironment, project: str, client: docker.DockerClient | None = None
    ) -> None:
        self._environment = environment
        self._name = f"{slug(project)}-{environment.name}"
        self._labels = {"flash.project": project, "flash.environment": environment.name}
        self._engine = client or connect(environment.host)

    @property
    def platform(self) -> str:
        """See `Target`. The platform of the engine, or of the swarm's manager."""
        with engine_faults("docker version"):
            return f"linux/{self._engine.version()['Arch']}"


def _last_cause(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


@contextlib.contextmanager
def engine_faults(action: str) -> Iterator[None]:
    """Turns the engine's errors in this block into a `TargetFault`."""
    try:
        yield
    except APIError as error:
        raise TargetFault(
            f"The Docker engine refuses: {error.explanation}.", where=action, remedy=_remedy(error)
        ) from None
    except (DockerException, requests.RequestException) as error:
        raise TargetFault(
            f"The Docker engine does not answer: {error}.",
            where=action,
            remedy="check it with `docker info`.",
        ) from None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until the block's end: the engine may finish a request that we give up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remedy(error: APIError) -> str:
    text = str(error.explanation)
    if "could not select device driver" in text or "nvidia" in text.lower():
        return "install NVIDIA's container toolkit, or set gpus = false in the environment's table."
    if "already in use by container" in text:
        return "rename or remove that container. It does not belong to this deployment."
    return "check `docker info` and the engine's log."


def build_image(
    client: docker.DockerClient, base: str, artifact: Path, tag: str, labels: Mapping[str, str]
) -> None:
    """Build an image of `base` with the artifact in it. Raises `TargetFault`."""
    pull_if_missing(client, base)
    with engine_faults(f"building {tag}"), tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as tar:
            text = DOCKERFILE.format(base=base).encode()
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
            tar.add(artifact, "artifact.tar.gz")
        context.seek(0)
        client.images.build(
            fileobj=context, custom_context=True, tag=tag, labels=dict(labels), rm=True, forcerm=True
        )


def pull_if_missing(client: docker.DockerClient, image: str) -> None:
    """Pull the image if the engine does not have it. Raises `TargetFault`."""
    try:
        client.images.get(image)
    except ImageNotFound:
        try:
            client.images.pull(image)
        except (DockerException, requests.RequestException) as error:
            explanation = getattr(error, "explanation", None) or error
            raise TargetFault(
                f"The worker's image {image} is missing and cannot be pulled: {explanation}.",
                where=f"the engine, {image}",
                remedy="build it with `make image-cpu` (or `make image`) in flash-runtime, or set image and "
                "gpu_image in the environment's table.",
            ) from None


def push(client: docker.DockerClient, image: str) -> None:
    """Push the image to the registry in its name. Raises `TargetFault`."""
    with engine_faults(f"pushing {image}"):
        for event in client.images.push(image, stream=True, decode=True):
            if "error" in event:
                raise TargetFault(
                    f"The image cannot be pushed: {event['error']}.",
                    where=image,
                    remedy="log in with `docker login`, and check `repository` in the environment's table.",
                )


def remove_unused(client: docker.DockerClient, filters: list[str]) -> None:
    """Remove the images with these labels that no container uses."""
    for image in client.images.list(filters={"label": filters}):
        try:
            client.images.remove(image.id)
        except APIError:
            pass  # a container uses it


def last_lines(container: Any, count: int) -> list[str]:
    """The last lines of a container's log, or none if the engine fails."""
    try:
        log: bytes = container.logs(tail=count)
    except (DockerException, requests.RequestException):
        return []
    return log.decode(errors="replace").splitlines()


def token_of(variables: Iterable[str]) -> str | None:
    """The previous deployment's token, from its `NAME=value` list. Old and new endpoints call each other."""
    values = (value for name, _, value in (each.partition("=") for each in variables) if name == TOKEN)
    return next(values, None)


def is_healthy(worker: Any) -> bool:
    """Whether the image's HEALTHCHECK succeeds now. The engine itself runs it only every 10 seconds."""
    try:
        return bool(worker.exec_run(["flash-runtime", "health"]).exit_code == 0)
    except APIError:
        return False  # it has ended in the meantime, as its status shows


def health_of(worker: Any) -> str:
    """`healthy`, `not ready`, or the container's status if it does not run."""
    if worker.status != "running":
        return str(worker.status)
    return "healthy" if is_healthy(worker) else "not ready"


def end(containers: list[Any]) -> None:
    """Stop the containers in parallel, each with its time to drain, and remove them."""

    def end_one(container: Any) -> None:
        try:
            container.stop(timeout=DRAIN_SECONDS)
            container.remove(force=True, v=True)
        except NotFound:
            pass

    if containers:
        with concurrent.futures.ThreadPoolExecutor(len(containers)) as pool:
            for _ in pool.map(end_one, containers):
                pass


def followed(worker: Any, lines: int) -> Callable[[], Iterator[Line]]:
    """A function that yields a worker's log as it is written, until the worker ends."""

    def follow() -> Iterator[Line]:
        try:
            for line in lines_of(worker.logs(stream=True, follow=True, tail=lines)):
                yield worker.labels["flash.endpoint"], line
        except (DockerException, requests.RequestException):
            pass  # the container was removed, so its log ends

    return follow
