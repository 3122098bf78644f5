"""A Docker engine: each endpoint is some worker containers, and a front that holds its port.

Workers join the application's network, where the front looks for them, when they are healthy: so a new one
boots beside the old ones and takes nothing before it can serve. That network leads nowhere else; the
environment's `network` does. Only what carries this application's labels is ever touched.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException

from flash_cli import loglines
from flash_cli.environments import DockerEnvironment
from flash_cli.faults import TargetFault
from flash_cli.services import PORT, TOKEN, Release, Service, slug
from flash_cli.targets import LAST_LINES, Say, State, engine
from flash_cli.targets.containers import answers, end, followed, health_of, published, token_of
from flash_cli.targets.streams import Line, merged

FIRST_PORT = 8000
_POLL_SECONDS = 0.3
_SHUT = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},  # noqa: S108  the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
"""As docs/images.md has it: what a handler is broken into by gets nothing more than the handler."""


@dataclass
class _Begun:
    """What a deployment has begun, and takes away again where it does not come to its end."""

    workers: list[tuple[Service, Any]] = field(default_factory=list)
    fronts: list[Any] = field(default_factory=list)

    def undo(self) -> None:
        for container in [*(worker for _, worker in self.workers), *self.fronts]:
            try:
                container.remove(force=True, v=True)
            except (DockerException, requests.RequestException):
                pass  # the fault that led here is what is to be told


class DockerTarget:
    """`flash_cli.targets.Target`, on one engine."""

    def __init__(
        self, environment: DockerEnvironment, project: str, client: docker.DockerClient | None = None
    ) -> None:
        self._environment = environment
        self._name = f"{slug(project)}-{environment.name}"
        self._labels = {"flash.project": project, "flash.environment": environment.name}
        self._engine = client or engine.connect(environment.host)

    @property
    def has_gpus(self) -> bool:
        """Whether the engine has NVIDIA's runtime."""
        with engine.told("docker info"):
            return "nvidia" in self._engine.info().get("Runtimes", {})

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """As `Target` has it."""
        images = self._images(release, say)
        token = token_of(self._containers(role="worker")) or secrets.token_urlsafe(32)
        begun = _Begun()
        try:
            with engine.told(f"deploying {self._name}"):
                network = self._network()
                for service in release.services:
                    for _ in range(service.replicas):
                        begun.workers.append((service, self._create(service, images, release, token)))
                        begun.workers[-1][1].start()
                self._until_healthy(begun.workers, release.timeout, say)
                for service, worker in begun.workers:
                    worker.update(restart_policy={"Name": "unless-stopped"})
                    network.connect(worker, aliases=[_workers_of(service.host)])
                urls = {
                    service.endpoint: self._front(service, network, begun) for service in release.services
                }
        except BaseException:
            begun.undo()
            self._sweep()
            raise
        self._end_others({worker.id for _, worker in begun.workers}, set(urls), say)
        return urls

    def status(self) -> list[State]:
        """As `Target` has it."""
        with engine.told("docker ps"):
            fronts = {each.labels["flash.endpoint"]: each for each in self._containers(role="front")}
            workers = self._containers(role="worker")
        states = []
        for endpoint in sorted({*fronts, *(each.labels["flash.endpoint"] for each in workers)}):
            own = [each for each in workers if each.labels["flash.endpoint"] == endpoint]
            health = [health_of(each) for each in own]
            front = fronts.get(endpoint)
            states.append(
                State(
                    endpoint,
                    ready=health.count("healthy"),
                    wanted=len(own),
                    url=self._url(front) if front is not None else None,
                    release=own[0].labels["flash.artifact"][:12] if own else "",
                    note=", ".join(sorted({each for each in health if each != "healthy"})),
                )
            )
        return states

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[Line]:
        """As `Target` has it."""
        with engine.told("docker logs"):
            workers = self._containers(role="worker", endpoint=endpoint)
            if not follow:
                for worker in workers:
                    for line in engine.last_lines(worker, lines):
                        yield worker.labels["flash.endpoint"], line
                return
        yield from merged([followed(worker, lines) for worker in workers])

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """As `Target` has it."""
        with engine.told(f"removing {self._name}"):
            workers = [each for each in self._containers() if each.labels["flash.endpoint"] in endpoints]
            say(f"ending {', '.join(sorted(endpoints))}")
            end([each for each in workers if each.labels["flash.role"] == "worker"])
            end([each for each in workers if each.labels["flash.role"] == "front"])
            self._sweep()

    def _sweep(self) -> None:
        """Remove the images that no container has, and without any container the network."""
        with contextlib.suppress(DockerException, requests.RequestException):
            if not self._containers():
                for network in self._engine.networks.list(filters={"label": self._filters()}):
                    network.remove()
            engine.remove_unused(self._engine, self._filters())

    def _filters(self, **more: str | None) -> list[str]:
        labels = {**self._labels, **{f"flash.{name}": value for name, value in more.items() if value}}
        return [f"{name}={value}" for name, value in labels.items()]

    def _containers(self, **more: str | None) -> list[Any]:
        with engine.told("docker ps"):
            return list(
                self._engine.containers.list(
                    all=True, filters={"label": self._filters(**more)}, ignore_removed=True
                )
            )

    def _images(self, release: Release, say: Say) -> dict[str, str]:
        """The image with the artifact, by its base."""
        images = {}
        for base in sorted({service.base_image for service in release.services}):
            tag = f"flash-{self._name}:{release.digest[:12]}-{slug(base)}"
            say(f"the artifact on {base}: {tag}")
            engine.build_image(self._engine, base, release.artifact, tag, self._labels)
            images[base] = tag
        return images

    def _network(self) -> Any:
        """That of the application: peers and fronts find workers there; it leads nowhere else."""
        for network in self._engine.networks.list(names=[self._name]):
            if network.name == self._name:
                if not self._labels.items() <= (network.attrs.get("Labels") or {}).items():
                    raise TargetFault(
                        f"there is a network {self._name} that is not this deployment's",
                        where="docker network ls",
                        remedy=f"remove it (`docker network rm {self._name}`), or rename the environment",
                    )
                return network
        return self._engine.networks.create(
            self._name, internal=True, labels=self._labels, check_duplicate=True
        )

    def _create(self, service: Service, images: Mapping[str, str], release: Release, token: str) -> Any:
        limits: dict[str, Any] = {}
        if service.gpus:
            request = docker.types.DeviceRequest(count=service.gpus, capabilities=[["gpu"]])
            limits["device_requests"] = [request]
        if service.cpus:
            limits["nano_cpus"] = min(service.cpus, int(self._engine.info()["NCPU"])) * 10**9
        if service.memory_gb:
            limits["mem_limit"] = f"{service.memory_gb}g"
        return self._engine.containers.create(
            images[service.base_image],
            name=f"{service.name}-{secrets.token_hex(3)}",
            environment={TOKEN: token, **service.environ, **release.secrets},
            labels=self._labels
            | {"flash.endpoint": service.endpoint, "flash.role": "worker", "flash.artifact": release.digest},
            network=self._environment.network,
            **_SHUT,
            **limits,
        )

    def _until_healthy(self, workers: list[tuple[Service, Any]], timeout: float, say: Say) -> None:
        """Raises `TargetFault` for the first that ends, or is not healthy in time."""
        deadline = time.monotonic() + timeout
        waiting = list(workers)
        while waiting:
            for service, worker in list(waiting):
                worker.reload()
                if worker.status in ("exited", "dead"):
                    code = worker.attrs["State"]["ExitCode"]
                    raise _unhealthy(service, worker, f"ended with exit code {code} before it was healthy")
                if answers(worker):
                    waiting.remove((service, worker))
                    say(f"{service.endpoint}: a worker is healthy")
                elif time.monotonic() > deadline:
                    raise _unhealthy(service, worker, f"is not healthy after {timeout:g} s")
            if waiting:
                time.sleep(_POLL_SECONDS)

    def _front(self, service: Service, network: Any, begun: _Begun) -> str:
        """The URL of the endpoint's front, which is made where there is none that suits."""
        wanted = self._environment.ports.get(service.endpoint)
        for front in self._containers(role="front", endpoint=service.endpoint):
            bind, port = published(front)
            if bind == self._environment.bind and port == (wanted or port):
                if front.status != "running":
                    front.start()
                return self._url(front)
            front.remove(force=True)
        ports = [wanted] if wanted else range(FIRST_PORT, FIRST_PORT + 1000)
        for port in ports:
            front = self._engine.containers.create(
                service.base_image,
                ["python3", "-m", "flash_cli.front", _workers_of(service.host), str(PORT)],
                name=service.name,
                labels=self._labels | {"flash.endpoint": service.endpoint, "flash.role": "front"},
                ports={f"{PORT}/tcp": (self._environment.bind, port)},
                network="bridge",
                restart_policy={"Name": "unless-stopped"},
                **_SHUT,
            )
            begun.fronts.append(front)
            network.connect(front, aliases=[service.host, service.endpoint])
            try:
                front.start()
            except APIError as error:
                front.remove(force=True)
                begun.fronts.remove(front)
                taken = any(
                    text in str(error.explanation) for text in ("already allocated", "already in use")
                )
                if not taken or port == ports[-1]:
                    raise
            else:
                return self._url(front)
        raise AssertionError("the last port is returned or raises")

    def _url(self, front: Any) -> str:
        bind, port = published(front)
        if bind in ("0.0.0.0", "::"):  # noqa: S104  whatever leads to the engine's machine
            where = urlsplit(self._engine.api.base_url)
            remote = where.hostname if where.scheme in ("http", "https", "tcp", "ssh") else None
            bind = remote if remote and "docker" not in remote else "127.0.0.1"
        return f"http://{bind}:{port}"

    def _end_others(self, kept: Collection[str], endpoints: Collection[str], say: Say) -> None:
        """End all other workers, those of a deployment that broke off too, and what is declared no more."""
        with engine.told("ending the old workers"):
            old = [each for each in self._containers(role="worker") if each.id not in kept]
            if old:
                say(f"the new workers serve; ending {len(old)} that served before")
            end(old)
            end([each for each in self._containers() if each.labels["flash.endpoint"] not in endpoints])
        self._sweep()


def _workers_of(host: str) -> str:
    return f"workers.{host}"


def _unhealthy(service: Service, worker: Any, what: str) -> TargetFault:
    lines = engine.last_lines(worker, LAST_LINES)
    return TargetFault(
        f"a worker of {service.endpoint} {what}; what served before serves on",
        where=f"the container {worker.name}, which is removed; its log ended so:\n"
        + loglines.last(lines, LAST_LINES),
        remedy="mend that and deploy again; `flash deploy --preview` shows the whole log",
    )
