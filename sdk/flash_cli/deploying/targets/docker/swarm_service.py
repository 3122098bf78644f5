"""The service of an endpoint in a swarm: its specification, its labels and the logs of its tasks."""

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
"""The time between two health checks."""
MONITOR_SECONDS = 3
"""How long the swarm watches new healthy tasks before it calls an update complete."""
DEPLOYMENT = "flash.deployment"
"""The label of a deployment's tasks. Its value is always new, so that a swarm never skips an update."""
ENDED = {"failed", "rejected", "complete", "shutdown", "orphaned"}
"""States of tasks that do not serve and never will."""
_SECOND = 10**9
"""In nanoseconds, the engine's unit of time."""


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
    """The arguments of `services.create` and `Service.update`, except the name and the image.

    Without a `port`, the swarm chooses one from 30000 on. An engine refuses more CPUs than `most_cpus`.
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
    """The value of a service's label `flash.NAME`."""
    return str(service.attrs["Spec"]["Labels"][f"flash.{name}"])


def published(service: Any) -> int | None:
    """A service's port on every node."""
    ports = service.attrs.get("Endpoint", {}).get("Ports") or ()
    return next((int(port["PublishedPort"]) for port in ports), None)


def token_of(services: Iterable[Any]) -> str | None:
    """The previous deployment's token."""
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
    """The last lines of the log, of the tasks that have not ended, or of the task with the id `of`."""
    ended = {task["ID"] for task in service.tasks() if task["Status"]["State"] in ENDED}
    stream = service.logs(details=True, stdout=True, stderr=True, follow=follow, tail=count)
    for line in lines_of(stream):
        details, _, text = line.partition(" ")
        task = details.rpartition("com.docker.swarm.task.id=")[2].partition(",")[0]
        if task == of if of else task not in ended:
            yield text


def log(service: Any, follow: bool, lines: int) -> Callable[[], Iterator[Line]]:
    """A function that yields the log of a service's running tasks."""

    def read() -> Iterator[Line]:
        try:
            for line in last_lines(service, lines, follow=follow):
                yield label(service, "endpoint"), line
        except (DockerException, requests.RequestException):
            pass  # the service was removed, so its log ends

    return read
