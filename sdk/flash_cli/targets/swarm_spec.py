"""The service of an endpoint in a swarm, in the words of Docker's SDK; nothing here asks the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

from flash_cli.services import DRAIN_SECONDS, PORT, TOKEN, Release, Service

HEALTH_SECONDS = 2
"""From one question for health to the next."""
MONITOR_SECONDS = 3
"""So long the swarm watches new tasks that are healthy, before it calls an update complete."""
DEPLOYMENT = "flash.deployment"
"""The label of a deployment's tasks; another each time, so that a swarm never finds nothing to do."""
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
    published = {"Protocol": "tcp", "TargetPort": PORT} | ({"PublishedPort": port} if port else {})
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
        "endpoint_spec": EndpointSpec(mode="vip", ports=[published]),
    }
