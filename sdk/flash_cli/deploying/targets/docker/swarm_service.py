"""The service of an endpoint in a swarm: how it is specified, and what it tells of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import requests
from docker.errors import DockerException
from docker.types import (
    EndpointSpec,
    Healthcheck,
    Mount,
    NetworkAttachmentConfig,
    Resources,
    RestartPolicy,
    RollbackConfig,
    ServiceMode,
    UpdateConfig,
)

from flash_cli.deploying.loglines import Line, lines_of
from flash_cli.deploying.services import DRAIN_SECONDS, PORT, TOKEN, Release, Service
from flash_cli.deploying.targets.docker import engine

HEALTH_SECONDS = 2
"""From one question for health to the next."""
MONITOR_SECONDS = 3
"""So long the swarm watches new tasks that are healthy, before it calls an update complete."""
DEPLOYMENT = "flash.deployment"
"""The label of a deployment's tasks; another each time, so that a swarm never finds nothing to do."""
ENDED = {"failed", "rejected", "complete", "shutdown", "orphaned"}
"""States of a task that does not serve, and will not."""
_SECOND = 10**9
"""In the engine's unit of time."""


def spec_of(
    service: Service,
    release: Release,
    labels: Mapping[str, str],
    *,
    token: str,
    network: str,
    deployment: str,
    port: int | None,
    most_cpus: int,
) -> dict[str, Any]:
    """What `services.create` and `Service.update` take, but for the name and the image.

    Without a `port`, the swarm chooses one, from 30000 on. An engine refuses more than `most_cpus`.
    """
    own = {"Protocol": "tcp", "TargetPort": PORT} | ({"PublishedPort": port} if port else {})
    environ = {TOKEN: token, **service.environ, **release.secrets}
    return {
        "labels": dict(labels) | {"flash.endpoint": service.endpoint, "flash.artifact": release.digest},
        "container_labels": {DEPLOYMENT: deployment},
        "env": [f"{name}={value}" for name, value in environ.items()],
        "networks": [NetworkAttachmentConfig(network, aliases=[service.host, service.endpoint])],
        "mode": ServiceMode("replicated", replicas=service.replicas),
        "resources": Resources(
            cpu_limit=min(service.cpus or 0, most_cpus) * _SECOND or None,
            mem_limit=service.memory_gb * 2**30 if service.memory_gb else None,
        ),
        "healthcheck": Healthcheck(
            test=["CMD", "flash-runtime", "health"],
            interval=HEALTH_SECONDS * _SECOND,
            timeout=5 * _SECOND,
            retries=3,
            start_period=int(release.timeout) * _SECOND,
        ),
        "update_config": UpdateConfig(
            parallelism=0,
            order="start-first",
            failure_action="rollback",
            monitor=MONITOR_SECONDS * _SECOND,
        ),
        "rollback_config": RollbackConfig(
            parallelism=0, order="start-first", monitor=MONITOR_SECONDS * _SECOND
        ),
        "restart_policy": RestartPolicy(condition="any", delay=2 * _SECOND),
        "stop_grace_period": DRAIN_SECONDS * _SECOND,
        "read_only": True,
        "mounts": [Mount("/tmp", None, type="tmpfs")],  # noqa: S108  the container's own
        "cap_drop": ["ALL"],
        "endpoint_spec": EndpointSpec(mode="vip", ports=[own]),
    }


def label(service: Any, name: str) -> str:
    """What its label `flash.NAME` says."""
    return str(service.attrs["Spec"]["Labels"][f"flash.{name}"])


def published(service: Any) -> int | None:
    """Its port on every node."""
    ports = service.attrs.get("Endpoint", {}).get("Ports") or ()
    return next((int(port["PublishedPort"]) for port in ports), None)


def token_of(services: Iterable[Any]) -> str | None:
    """That of the deployment before."""
    return engine.token_of(
        variable
        for service in services
        for variable in service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env", ())
    )


def why(task: Mapping[str, Any]) -> str:
    """Why a task has ended."""
    code = (task["Status"].get("ContainerStatus") or {}).get("ExitCode")
    return f"exit code {code}" if code else str(task["Status"].get("Err") or task["Status"]["State"])


def last_lines(service: Any, count: int, *, follow: bool = False, of: str = "") -> Iterator[str]:
    """The last lines of each task that has not ended, or of one, by its id."""
    ended = {task["ID"] for task in service.tasks() if task["Status"]["State"] in ENDED}
    stream = service.logs(details=True, stdout=True, stderr=True, follow=follow, tail=count)
    for line in lines_of(stream):
        details, _, text = line.partition(" ")
        task = details.rpartition("com.docker.swarm.task.id=")[2].partition(",")[0]
        if task == of if of else task not in ended:
            yield text


def log(service: Any, follow: bool, lines: int) -> Callable[[], Iterator[Line]]:
    """Its log, of tasks that have not ended, until it is removed."""

    def read() -> Iterator[Line]:
        try:
            for line in last_lines(service, lines, follow=follow):
                yield label(service, "endpoint"), line
        except (DockerException, requests.RequestException):
            pass  # removed: its log is at its end

    return read
