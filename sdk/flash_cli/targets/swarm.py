"""A Docker Swarm: each endpoint is a service of its, and the swarm itself rolls it over and back.

Tasks are started first, count when they are healthy, and are rolled back where they fail. A swarm gives no
GPUs, and publishes ports at every address of its nodes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import DockerException
from docker.types import (
    EndpointSpec,
    Healthcheck,
    Mount,
    NetworkAttachmentConfig,
    Resources,
    RestartPolicy,
    ServiceMode,
    UpdateConfig,
)

from flash_cli import loglines
from flash_cli.environments import DockerEnvironment
from flash_cli.faults import ConfigFault, TargetFault
from flash_cli.loglines import Line, lines_of, merged
from flash_cli.services import DRAIN_SECONDS, PORT, TOKEN, Release, Service, slug
from flash_cli.targets import LAST_LINES, Say, State, engine

_SECOND = 10**9
"""In the engine's unit of time."""
_POLL_SECONDS = 0.5
_HEALTH_SECONDS = 3
"""From one question for health to the next."""
_ENDED = {"failed", "rejected", "complete", "shutdown", "orphaned"}


class SwarmTarget:
    """`flash_cli.targets.Target`, on a manager of a swarm."""

    def __init__(
        self, environment: DockerEnvironment, project: str, client: docker.DockerClient | None = None
    ) -> None:
        self._environment = environment
        self._name = f"{slug(project)}-{environment.name}"
        self._labels = {"flash.project": project, "flash.environment": environment.name}
        self._engine = client or engine.connect(environment.host)
        with engine.told("docker info"):
            if not self._engine.info()["Swarm"].get("ControlAvailable"):
                raise TargetFault(
                    "This engine is no manager of a swarm.",
                    where=f"pyproject.toml, [tool.flash.env.{environment.name}], mode",
                    remedy='`docker swarm init` makes it one; or set mode = "engine".',
                )

    @property
    def platform(self) -> str:
        """As `Target` has it: the manager's."""
        with engine.told("docker version"):
            return f"linux/{self._engine.version()['Arch']}"

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """As `Target` has it, one endpoint after the other; those before one that fails are the new ones."""
        self._refuse_gpus(release)
        images = self._images(release, say)
        with engine.told(f"deploying {self._name}"):
            existing = {each.name: each for each in self._services()}
            token = _token_of(existing.values()) or secrets.token_urlsafe(32)
            network = self._network()
            for service in release.services:
                image = images[service.base_image]
                spec = self._spec(service, image, release, token, network)
                self._bring(service, existing.get(service.name), image, spec, release.timeout)
                say(f"{service.endpoint} is healthy")
            names = {service.name for service in release.services}
            for name, each in existing.items():
                if name not in names:
                    each.remove()
            urls = {
                each.attrs["Spec"]["Labels"]["flash.endpoint"]: self._url(each) for each in self._services()
            }
        engine.remove_unused(self._engine, self._filters())
        return urls

    def status(self) -> list[State]:
        """As `Target` has it."""
        with engine.told("docker service ls"):
            return sorted((self._state(each) for each in self._services()), key=lambda each: each.endpoint)

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[Line]:
        """As `Target` has it."""
        with engine.told("docker service logs"):
            sources = [
                _log(each, follow, lines)
                for each in self._services()
                if endpoint in (None, each.attrs["Spec"]["Labels"]["flash.endpoint"])
            ]
        yield from merged(sources)

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """As `Target` has it; the swarm ends the tasks, each with its time to drain."""
        say(f"removing {', '.join(sorted(endpoints))}")
        with engine.told(f"removing {self._name}"):
            for each in self._services():
                if each.attrs["Spec"]["Labels"]["flash.endpoint"] in endpoints:
                    each.remove()

    def _filters(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._labels.items()]

    def _services(self) -> list[Any]:
        return list(self._engine.services.list(filters={"label": self._filters()}))

    def _refuse_gpus(self, release: Release) -> None:
        asking = [service.endpoint for service in release.services if service.gpus]
        if asking:
            raise ConfigFault(
                f"A swarm has no GPUs to give, and endpoints ask for some: {', '.join(asking)}.",
                where=f"pyproject.toml, [tool.flash.env.{self._environment.name}]",
                remedy='set mode = "engine"; or gpus = false, to run them without.',
            )

    def _images(self, release: Release, say: Say) -> dict[str, str]:
        """The image with the artifact, by its base; pushed, where other nodes are to pull it."""
        repository = self._environment.repository
        images = {}
        for base in sorted({service.base_image for service in release.services}):
            images[base] = f"{repository or 'flash-' + self._name}:{release.digest[:12]}-{slug(base)}"
            say(f"the artifact on {base}: {images[base]}")
            engine.build_image(self._engine, base, release.artifact, images[base], self._labels)
            if repository is not None:
                engine.push(self._engine, images[base])
        return images

    def _network(self) -> str:
        """That of the application, over all nodes."""
        for network in self._engine.networks.list(filters={"label": self._filters()}):
            return str(network.id)
        made = self._engine.networks.create(
            self._name, driver="overlay", labels=self._labels, check_duplicate=True
        )
        return str(made.id)

    def _spec(
        self, service: Service, image: str, release: Release, token: str, network: str
    ) -> dict[str, Any]:
        labels = {"flash.endpoint": service.endpoint, "flash.artifact": release.digest}
        environ = {TOKEN: token, **service.environ, **release.secrets}
        return {
            "labels": self._labels | labels,
            "env": [f"{name}={value}" for name, value in environ.items()],
            "networks": [NetworkAttachmentConfig(network, aliases=[service.host, service.endpoint])],
            "mode": ServiceMode("replicated", replicas=service.replicas),
            "resources": Resources(
                cpu_limit=service.cpus * _SECOND if service.cpus else None,
                mem_limit=service.memory_gb * 2**30 if service.memory_gb else None,
            ),
            "healthcheck": Healthcheck(
                test=["CMD", "flash-runtime", "health"],
                interval=_HEALTH_SECONDS * _SECOND,
                timeout=5 * _SECOND,
                retries=3,
                start_period=int(release.timeout) * _SECOND,
            ),
            "update_config": UpdateConfig(
                parallelism=0, order="start-first", failure_action="rollback", monitor=5 * _SECOND
            ),
            "restart_policy": RestartPolicy(condition="any", delay=2 * _SECOND),
            "stop_grace_period": DRAIN_SECONDS * _SECOND,
            "read_only": True,
            "mounts": [Mount("/tmp", None, type="tmpfs")],  # noqa: S108  the container's own
            "cap_drop": ["ALL"],
        }

    def _bring(
        self, service: Service, before: Any, image: str, spec: Mapping[str, Any], timeout: float
    ) -> None:
        """Create or update it, and wait until the swarm has. Raises `TargetFault` where that fails."""
        ports = self._ports(service, before)
        if before is None:
            now = self._engine.services.create(image, name=service.name, endpoint_spec=ports, **spec)
        else:
            before.update(image=image, endpoint_spec=ports, **spec)
            now = before
        deadline = time.monotonic() + timeout + 3 * _HEALTH_SECONDS
        try:
            while not self._is_through(now, before is not None, service):
                if time.monotonic() > deadline:
                    raise self._unhealthy(service, now, f"is not healthy after {timeout:g} s")
                time.sleep(_POLL_SECONDS)
        except BaseException:
            if before is None:
                now.remove()
            raise

    def _is_through(self, now: Any, updates: bool, service: Service) -> bool:
        now.reload()
        if updates:
            state = now.attrs.get("UpdateStatus", {}).get("State", "")
            if state.startswith("rollback") or state == "paused":
                raise self._unhealthy(service, now, "failed, and is rolled back")
            return bool(state == "completed")
        tasks = now.tasks()
        if any(task["Status"]["State"] in _ENDED for task in tasks):
            raise self._unhealthy(service, now, "ended before it was healthy")
        return sum(task["Status"]["State"] == "running" for task in tasks) >= service.replicas

    def _unhealthy(self, service: Service, now: Any, what: str) -> TargetFault:
        log = b"".join(now.logs(stdout=True, stderr=True, tail=LAST_LINES)).decode(errors="replace")
        return TargetFault(
            f"A worker of {service.endpoint} {what}; what served before serves on.",
            where=f"the service {service.name}",
            remedy="mend what its log says, and deploy again; `docker service ps` has each task's error.",
            log=loglines.last(log.splitlines(), LAST_LINES),
        )

    def _ports(self, service: Service, before: Any) -> EndpointSpec:
        """The port that it has, or that the environment names; else the swarm chooses one, from 30000 on."""
        published = self._environment.ports.get(service.endpoint)
        if published is None and before is not None:
            published = _published(before)
        port = {"Protocol": "tcp", "TargetPort": PORT}
        return EndpointSpec(mode="vip", ports=[port | ({"PublishedPort": published} if published else {})])

    def _state(self, service: Any) -> State:
        spec = service.attrs["Spec"]
        running = [
            task
            for task in service.tasks(filters={"desired-state": "running"})
            if task["Status"]["State"] == "running"
        ]
        return State(
            endpoint=spec["Labels"]["flash.endpoint"],
            ready=len(running),
            wanted=spec["Mode"]["Replicated"]["Replicas"],
            url=self._url(service),
            release=spec["Labels"]["flash.artifact"][:12],
            note=service.attrs.get("UpdateStatus", {}).get("State", "").replace("completed", ""),
        )

    def _url(self, service: Any) -> str:
        service.reload()
        host = urlsplit(self._environment.host or "").hostname or "127.0.0.1"
        return f"http://{host}:{_published(service)}"


def _published(service: Any) -> int | None:
    ports = service.attrs.get("Endpoint", {}).get("Ports") or ()
    return next((int(port["PublishedPort"]) for port in ports), None)


def _token_of(services: Collection[Any]) -> str | None:
    """That of the deployment before: old and new endpoints call each other while they change."""
    for service in services:
        for variable in service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env", ()):
            name, _, value = variable.partition("=")
            if name == TOKEN:
                return str(value)
    return None


def _log(service: Any, follow: bool, lines: int) -> Callable[[], Iterator[Line]]:
    endpoint = service.attrs["Spec"]["Labels"]["flash.endpoint"]

    def read() -> Iterator[Line]:
        try:
            for line in lines_of(service.logs(stdout=True, stderr=True, follow=follow, tail=lines)):
                yield endpoint, line
        except (DockerException, requests.RequestException):
            pass  # removed: its log is at its end

    return read
