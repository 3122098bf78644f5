"""The Docker target: each endpoint has worker containers, and a front that holds its port.

A worker joins the application's network, where the front looks for workers, when it is healthy. So a new
worker boots beside the old ones and gets no requests before it can serve. The application's network is
internal. The environment's `network` connects workers to everything else. Only containers, networks and
images with this application's labels are ever changed.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import docker
import requests
from docker.errors import DockerException

from flash_cli.deploying import loglines
from flash_cli.deploying.loglines import Line, merged
from flash_cli.deploying.services import TOKEN, Release, Service, slug
from flash_cli.deploying.target import LAST_LINES, UNCHANGED, Say, State
from flash_cli.deploying.targets.docker import engine
from flash_cli.deploying.targets.docker.engine import HARDENING, end, followed, health_of, is_healthy
from flash_cli.deploying.targets.docker.front_containers import Fronts, workers_of
from flash_cli.faults import TargetFault

_POLL_SECONDS = 0.3
_FRONT_SECONDS = 20.0
"""How long a front may take to find a healthy worker."""


class DockerTarget(engine.EngineTarget):
    """`flash_cli.deploying.target.Target`, on one engine."""

    @property
    def has_gpus(self) -> bool:
        """Whether the engine has NVIDIA's runtime."""
        with engine.engine_faults("docker info"):
            return "nvidia" in self._engine.info().get("Runtimes", {})

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """See `Target`."""
        token = self._token() or secrets.token_urlsafe(32)
        deployment = secrets.token_hex(4)
        fronts = self._fronts()
        workers: dict[str, list[Any]] = {each.endpoint: [] for each in release.services}
        try:
            images = self._images(release, say)
            with engine.engine_faults(f"deploying {self._name}"):
                with engine.uninterrupted():
                    network = self._network()
                for service in release.services:
                    for _ in range(service.replicas):
                        with engine.uninterrupted():
                            worker = self._create(service, images, release, token, deployment)
                            workers[service.endpoint].append(worker)
                            worker.start()
                self._until_healthy(
                    {f"a worker of {name}": own for name, own in workers.items()}, release.timeout, say
                )
                for service in release.services:
                    for worker in workers[service.endpoint]:
                        worker.update(restart_policy={"Name": "unless-stopped"})
                        network.connect(worker, aliases=[workers_of(service.host)])
                with engine.uninterrupted():
                    serving = {each.endpoint: fronts.find_or_make(each, network) for each in release.services}
                self._until_healthy(
                    {f"the front of {name}": [front] for name, front in serving.items()}, _FRONT_SECONDS, say
                )
        except BaseException:
            fronts.undo()
            with contextlib.suppress(TargetFault, DockerException, requests.RequestException):
                for worker in self._containers(deployment=deployment):
                    worker.remove(force=True, v=True)
            self._sweep()
            raise
        self._end_others([*itertools.chain.from_iterable(workers.values()), *serving.values()], say)
        return {name: fronts.url(front) for name, front in serving.items()}

    def status(self) -> list[State]:
        """See `Target`."""
        with engine.engine_faults("docker ps"):
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
                    url=self._fronts().url(front) if front is not None else None,
                    release=own[0].labels["flash.artifact"][:12] if own else "",
                    note=", ".join(sorted({each for each in health if each != "healthy"})),
                )
            )
        return states

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[Line]:
        """See `Target`."""
        with engine.engine_faults("docker logs"):
            workers = self._containers(role="worker", endpoint=endpoint)
            if not follow:
                for worker in workers:
                    for line in engine.last_lines(worker, lines):
                        yield worker.labels["flash.endpoint"], line
                return
        yield from merged([followed(worker, lines) for worker in workers])

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """See `Target`."""
        with engine.engine_faults(f"removing {self._name}"):
            workers = [each for each in self._containers() if each.labels["flash.endpoint"] in endpoints]
            say(f"removing {', '.join(sorted(endpoints))}")
            end([each for each in workers if each.labels["flash.role"] == "worker"])
            end([each for each in workers if each.labels["flash.role"] == "front"])
            self._sweep()

    def _sweep(self) -> None:
        """Remove unused images, and the network if no container is left."""
        with contextlib.suppress(TargetFault, DockerException, requests.RequestException):
            if not self._containers():
                for network in self._engine.networks.list(filters={"label": self._filters()}):
                    network.remove()
            engine.remove_unused(self._engine, self._filters())

    def _filters(self, **more: str | None) -> list[str]:
        labels = {**self._labels, **{f"flash.{name}": value for name, value in more.items() if value}}
        return [f"{name}={value}" for name, value in labels.items()]

    def _containers(self, **more: str | None) -> list[Any]:
        with engine.engine_faults("docker ps"):
            return list(
                self._engine.containers.list(
                    all=True, filters={"label": self._filters(**more)}, ignore_removed=True
                )
            )

    def _images(self, release: Release, say: Say) -> dict[str, str]:
        """Build an image with the artifact on each base. Returns the images by base."""
        images = {}
        for base in sorted({service.base_image for service in release.services}):
            tag = f"flash-{self._name}:{release.digest[:12]}-{slug(base)}"
            say(f"building {tag} from {base}")
            engine.build_image(self._engine, base, release.artifact, tag, self._labels)
            images[base] = tag
        return images

    def _token(self) -> str | None:
        workers = self._containers(role="worker")
        return engine.token_of(variable for each in workers for variable in each.attrs["Config"]["Env"])

    def _fronts(self) -> Fronts:
        return Fronts(self._engine, self._environment, self._labels, self._containers(role="front"))

    def _network(self) -> Any:
        """The application's internal network, where peers and fronts find workers."""
        for network in self._engine.networks.list(names=[self._name]):
            if network.name == self._name:
                if not self._labels.items() <= (network.attrs.get("Labels") or {}).items():
                    raise TargetFault(
                        f"The network {self._name} exists and does not belong to this deployment.",
                        where="docker network ls",
                        remedy=f"remove it with `docker network rm {self._name}`, or rename the environment.",
                    )
                return network
        return self._engine.networks.create(
            self._name, internal=True, labels=self._labels, check_duplicate=True
        )

    def _create(
        self, service: Service, images: Mapping[str, str], release: Release, token: str, deployment: str
    ) -> Any:
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
            | {
                "flash.endpoint": service.endpoint,
                "flash.role": "worker",
                "flash.artifact": release.digest,
                "flash.deployment": deployment,
            },
            network=self._environment.network,
            **HARDENING,
            **limits,
        )

    def _until_healthy(self, containers: Mapping[str, list[Any]], timeout: float, say: Say) -> None:
        """Wait for the containers. Raises `TargetFault` if one ends, or is not healthy in time."""
        deadline = time.monotonic() + timeout
        waiting = [(what, each) for what, own in containers.items() for each in own]
        while waiting:
            for what, container in list(waiting):
                container.reload()
                if container.status in ("exited", "dead", "restarting"):
                    code = container.attrs["State"]["ExitCode"]
                    raise _unhealthy(what, container, f"ended with exit code {code} before it was healthy")
                if is_healthy(container):
                    waiting.remove((what, container))
                    say(f"{what} is healthy")
                elif time.monotonic() > deadline:
                    raise _unhealthy(what, container, f"is not healthy after {timeout:g} s")
            if waiting:
                time.sleep(_POLL_SECONDS)

    def _end_others(self, kept: list[Any], say: Say) -> None:
        """End all other containers: those of the previous deployment and of deployments that failed."""
        ids = {each.id for each in kept}
        with engine.engine_faults("ending the previous deployment"):
            others = [each for each in self._containers() if each.id not in ids]
            if others:
                say("the new workers serve. Ending the old ones")
            end([each for each in others if each.labels["flash.role"] == "worker"])
            end([each for each in others if each.labels["flash.role"] == "front"])
        self._sweep()


def _unhealthy(what: str, container: Any, how: str) -> TargetFault:
    lines = engine.last_lines(container, LAST_LINES)
    return TargetFault(
        f"{what[0].upper()}{what[1:]} {how}. {UNCHANGED}",
        where=f"the container {container.name}, which is removed",
        remedy="fix the error that its log shows, and deploy again.",
        log=loglines.last(lines, LAST_LINES),
    )
