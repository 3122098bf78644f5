"""The fronts: the containers that hold the endpoints' ports, from one deployment to the next."""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException

from flash_cli.deploying.environments import DockerEnvironment
from flash_cli.deploying.services import PORT, Service
from flash_cli.deploying.targets.docker import front_program
from flash_cli.deploying.targets.docker.engine import HARDENING
from flash_cli.faults import TargetFault

FIRST_PORT = 8000
PORTS = 1000


def workers_of(host: str) -> str:
    """The network name by which a front finds an endpoint's workers."""
    return f"workers.{host}"


class Fronts:
    """Finds or makes fronts. `undo` removes those that were made and restarts those that were stopped."""

    def __init__(
        self,
        client: docker.DockerClient,
        environment: DockerEnvironment,
        labels: Mapping[str, str],
        existing: Collection[Any],
    ) -> None:
        self._client = client
        self._environment = environment
        self._labels = dict(labels)
        self._existing = existing
        self._made: list[Any] = []
        self._stopped: list[Any] = []

    def find_or_make(self, service: Service, network: Any) -> Any:
        """The front of an endpoint: the existing one, or a new one if the address has changed."""
        own = [each for each in self._existing if each.labels["flash.endpoint"] == service.endpoint]
        wanted = self._environment.ports.get(service.endpoint) or (published(own[0])[1] if own else None)
        for front in own:
            if front.status == "running" and published(front) == (self._environment.bind, wanted):
                return front
        for front in own:
            if published(front)[1] == wanted:
                self._stopped.append(front)
                front.stop()
        ports = [wanted] if wanted else range(FIRST_PORT, FIRST_PORT + PORTS)
        for port in ports:
            front = self._make(service, network, port)
            try:
                front.start()
            except APIError as error:
                front.remove(force=True)
                self._made.remove(front)
                if not is_taken(error):
                    raise
            else:
                return front
        tried = f"Port {wanted}" if wanted else f"Every port from {ports[0]} to {ports[-1]}"
        raise TargetFault(
            f"{tried} of {self._environment.bind} is taken, and {service.endpoint} needs it.",
            where=f"pyproject.toml, [tool.flash.env.{self._environment.name}], ports",
            remedy="free the port (`docker ps` shows the ports in use), or set another one under ports.",
        )

    def undo(self) -> None:
        """Remove the fronts that were made, and restart those that were stopped."""
        for front in self._made:
            _try(front.remove, force=True)
        for front in self._stopped:
            _try(front.start)

    def url(self, front: Any) -> str:
        """The URL of a front, as this machine reaches it."""
        bind, port = published(front)
        if bind in ("0.0.0.0", "::"):  # noqa: S104  then the engine's machine has it
            engine = urlsplit(self._environment.host or os.environ.get("DOCKER_HOST", ""))
            bind = engine.hostname if engine.scheme in ("tcp", "ssh") and engine.hostname else "127.0.0.1"
        return f"http://{bind}:{port}"

    def _make(self, service: Service, network: Any, port: int) -> Any:
        front = self._client.containers.create(
            service.base_image,
            # The text itself, since the worker's image does not contain the command.
            ["python3", "-c", inspect.getsource(front_program), workers_of(service.host), str(PORT)],
            name=f"{service.name}-front-{secrets.token_hex(3)}",
            labels=self._labels | {"flash.endpoint": service.endpoint, "flash.role": "front"},
            ports={f"{PORT}/tcp": (self._environment.bind, port)},
            network="bridge",
            restart_policy={"Name": "unless-stopped"},
            **HARDENING,
        )
        self._made.append(front)
        network.connect(front, aliases=[service.host, service.endpoint])
        return front


def published(front: Any) -> tuple[str, int]:
    """The address and port of the host where a front is published."""
    bound = front.attrs["HostConfig"]["PortBindings"][f"{PORT}/tcp"][0]
    return bound["HostIp"], int(bound["HostPort"])


def is_taken(error: APIError) -> bool:
    """Whether a container does not start because its port is taken."""
    text = str(error.explanation)
    return "port is already allocated" in text or "address already in use" in text


def _try(call: Any, **options: Any) -> None:
    try:
        call(**options)
    except (DockerException, requests.RequestException):
        pass  # the fault that led here is the one to report
