"""The Docker Swarm target: each endpoint is a service. The swarm updates it, and rolls back if that fails.

New tasks start beside the old ones and get requests when they are healthy. A swarm does not support GPUs. It
publishes ports at every address of its nodes, and balances with IPVS, which the nodes' kernels must have.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import DockerException

from flash_cli.deploying import loglines
from flash_cli.deploying.environments import DockerEnvironment
from flash_cli.deploying.loglines import Line, merged
from flash_cli.deploying.services import DRAIN_SECONDS, PORT, Release, Service, slug
from flash_cli.deploying.target import LAST_LINES, UNCHANGED, Say, State
from flash_cli.deploying.targets.docker import engine
from flash_cli.deploying.targets.docker.swarm_service import (
    DEPLOYMENT,
    ENDED,
    HEALTH_SECONDS,
    MONITOR_SECONDS,
    label,
    last_lines,
    log,
    published,
    spec_of,
    token_of,
    why,
)
from flash_cli.faults import ConfigFault, TargetFault

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Rolling:
    """A service that was just made or updated. `before` is its previous specification, if it had one."""

    service: Service
    now: Any
    before: Mapping[str, Any] | None


class SwarmTarget(engine.EngineTarget):
    """`flash_cli.deploying.target.Target`, on a manager of a swarm."""

    def __init__(
        self, environment: DockerEnvironment, project: str, client: docker.DockerClient | None = None
    ) -> None:
        super().__init__(environment, project, client)
        with engine.engine_faults("docker info"):
            if not self._engine.info()["Swarm"].get("ControlAvailable"):
                raise TargetFault(
                    "This engine is not a manager of a swarm.",
                    where=f"pyproject.toml, [tool.flash.env.{environment.name}], mode",
                    remedy='run `docker swarm init`, or set mode = "engine".',
                )

    has_gpus = False

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """See `Target`."""
        self._refuse_gpus(release)
        deployment = secrets.token_hex(4)
        rolling: list[Rolling] = []
        try:
            images = self._images(release, say)
            with engine.engine_faults(f"deploying {self._name}"):
                existing = {each.name: each for each in self._services()}
                token = token_of(existing.values()) or secrets.token_urlsafe(32)
                with engine.uninterrupted():
                    network = self._network()
                for service in release.services:
                    before = existing.get(service.name)
                    spec = spec_of(
                        service,
                        release,
                        self._labels,
                        token=token,
                        network=network,
                        deployment=deployment,
                        port=self._environment.ports.get(service.endpoint) or (before and published(before)),
                        most_cpus=int(self._engine.info()["NCPU"]),
                    )
                    with engine.uninterrupted():
                        rolling.append(self._start(service, before, images[service.base_image], spec))
                self._until_updated(rolling, deployment, release.timeout, say)
        except BaseException:
            with contextlib.suppress(TargetFault, DockerException, requests.RequestException):
                self._set_back(rolling)
                self._sweep()
            raise
        names = {service.name for service in release.services}
        self._remove([each for each in self._services() if each.name not in names])
        urls = {label(each, "endpoint"): self._url(each) for each in self._services()}
        for endpoint, url in urls.items():
            if not _is_reachable(url):
                say(f"{endpoint} is healthy, but {url} cannot be reached from here: that needs IPVS")
        return urls

    def status(self) -> list[State]:
        """See `Target`."""
        with engine.engine_faults("docker service ls"):
            return sorted(map(self._state, self._services()), key=lambda each: each.endpoint)

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[Line]:
        """See `Target`."""
        with engine.engine_faults("docker service logs"):
            sources = [
                log(each, follow, lines)
                for each in self._services()
                if endpoint in (None, label(each, "endpoint"))
            ]
        yield from merged(sources)

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """See `Target`."""
        say(f"removing {', '.join(sorted(endpoints))}")
        self._remove([each for each in self._services() if label(each, "endpoint") in endpoints])

    def _filters(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._labels.items()]

    def _services(self) -> list[Any]:
        with engine.engine_faults("docker service ls"):
            return list(self._engine.services.list(filters={"label": self._filters()}))

    def _refuse_gpus(self, release: Release) -> None:
        asking = [service.endpoint for service in release.services if service.gpus]
        if asking:
            raise ConfigFault(
                f"A swarm has no support for GPUs, and these endpoints ask for them: {', '.join(asking)}.",
                where=f"pyproject.toml, [tool.flash.env.{self._environment.name}]",
                remedy='set mode = "engine", or set gpus = false to run them without GPUs.',
            )

    def _images(self, release: Release, say: Say) -> dict[str, str]:
        """Build an image with the artifact on each base, and push it if there is a repository."""
        repository = self._environment.repository
        images = {}
        for base in sorted({service.base_image for service in release.services}):
            images[base] = f"{repository or 'flash-' + self._name}:{release.digest[:12]}-{slug(base)}"
            say(f"building {images[base]} from {base}")
            engine.build_image(self._engine, base, release.artifact, images[base], self._labels)
            if repository is not None:
                engine.push(self._engine, images[base])
        return images

    def _network(self) -> str:
        """The id of the application's network, which spans all nodes."""
        for network in self._engine.networks.list(filters={"label": self._filters()}):
            return str(network.id)
        made = self._engine.networks.create(
            self._name, driver="overlay", labels=self._labels, check_duplicate=True
        )
        return str(made.id)

    def _start(self, service: Service, before: Any, image: str, spec: Mapping[str, Any]) -> Rolling:
        if before is None:
            return Rolling(service, self._engine.services.create(image, name=service.name, **spec), None)
        was = before.attrs["Spec"]
        before.update(image=image, **spec)
        return Rolling(service, before, was)

    def _until_updated(self, rolling: list[Rolling], deployment: str, timeout: float, say: Say) -> None:
        """Wait for all services. Raises `TargetFault` if a task ends, or a service is not ready in time."""
        deadline = time.monotonic() + timeout + HEALTH_SECONDS + MONITOR_SECONDS
        waiting = list(rolling)
        while waiting:
            for each in list(waiting):
                each.now.reload()
                tasks = [
                    task
                    for task in each.now.tasks()
                    if task["Spec"]["ContainerSpec"].get("Labels", {}).get(DEPLOYMENT) == deployment
                ]
                for task in tasks:
                    if task["Status"]["State"] in ENDED:
                        raise _unhealthy(each, task, f"ended before it was healthy ({why(task)})")
                running = [task for task in tasks if task["Status"]["State"] == "running"]
                update = (each.now.attrs.get("UpdateStatus") or {}).get("State")
                if len(running) >= each.service.replicas and (each.before is None or update == "completed"):
                    waiting.remove(each)
                    say(f"{each.service.endpoint} is healthy")
                elif time.monotonic() > deadline:
                    late = next((task for task in tasks if task not in running), None)
                    raise _unhealthy(each, late, f"is not healthy after {timeout:g} s")
            if waiting:
                time.sleep(_POLL_SECONDS)

    def _set_back(self, rolling: list[Rolling]) -> None:
        """Remove the services that were made, and restore those that were updated."""
        for each in rolling:
            if each.before is None:
                continue
            each.now.reload()
            self._engine.api.update_service(
                each.now.id,
                each.now.version,
                task_template=each.before["TaskTemplate"],
                name=each.before["Name"],
                labels=each.before["Labels"],
                mode=each.before["Mode"],
                update_config=each.before["UpdateConfig"],
                rollback_config=each.before.get("RollbackConfig"),
                endpoint_spec=each.before["EndpointSpec"],
            )
        self._remove([each.now for each in rolling if each.before is None])

    def _remove(self, services: list[Any]) -> None:
        """Remove services, wait until none of their containers is left on this node, and clean up."""
        with engine.engine_faults(f"removing {self._name}"):
            for each in services:
                each.remove()
            deadline = time.monotonic() + DRAIN_SECONDS
            for each in services:
                own = {"label": f"com.docker.swarm.service.id={each.id}"}
                while self._engine.containers.list(all=True, filters=own, ignore_removed=True):
                    if time.monotonic() > deadline:
                        break
                    time.sleep(_POLL_SECONDS)
        self._sweep()

    def _sweep(self) -> None:
        """Remove unused images, and the network if no service is left."""
        with contextlib.suppress(TargetFault, DockerException, requests.RequestException):
            if not self._services():
                for network in self._engine.networks.list(filters={"label": self._filters()}):
                    network.remove()
            engine.remove_unused(self._engine, self._filters())

    def _state(self, service: Any) -> State:
        tasks = service.tasks(filters={"desired-state": "running"})
        update = (service.attrs.get("UpdateStatus") or {}).get("State", "completed")
        return State(
            endpoint=label(service, "endpoint"),
            ready=sum(task["Status"]["State"] == "running" for task in tasks),
            wanted=service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"],
            url=self._url(service),
            release=label(service, "artifact")[:12],
            note="" if update.endswith("completed") else update.replace("_", " "),
        )

    def _url(self, service: Any) -> str:
        with engine.engine_faults("docker service inspect"):
            service.reload()
        host = urlsplit(self._environment.host or "").hostname or "127.0.0.1"
        return f"http://{host}:{published(service)}"


def _is_reachable(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or PORT), timeout=3).close()
    except OSError:
        return False
    return True


def _unhealthy(each: Rolling, task: Mapping[str, Any] | None, what: str) -> TargetFault:
    lines: Iterable[str] = ()
    if task is not None:
        with contextlib.suppress(DockerException, requests.RequestException):
            lines = list(last_lines(each.now, LAST_LINES, of=task["ID"]))
    return TargetFault(
        f"A worker of {each.service.endpoint} {what}. {UNCHANGED}",
        where=f"the service {each.service.name}",
        remedy="fix the error that its log shows, and deploy again.",
        log=loglines.last(lines, LAST_LINES),
    )
