"""Services: what a target has to run, made from the application and the environment."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flash_cli.application import Application, DeclaredEndpoint
from flash_cli.deploying.environments import Environment, KubernetesEnvironment
from flash_cli.faults import ConfigFault, Problem, SourceFault
from flash_runtime.artifact.contract import HEALTH_PATH, environ, variable

PORT = 80
"""The port of a worker, and of a service inside its network."""
TOKEN = variable("execute_token")
MOST_LETTERS = 63
"""The limit that DNS sets to a service's name."""
DRAIN_SECONDS = 40
"""Time between SIGTERM and SIGKILL. Longer than FLASH_DRAIN_DELAY + FLASH_DRAIN_TIMEOUT, which are 31 s."""


@dataclass(frozen=True, slots=True)
class Service:
    """One endpoint as a target runs it."""

    endpoint: str
    host: str
    """The endpoint's name in the form that DNS allows: its name on the application's network."""
    name: str
    """The full name: `{project}-{environment}-{host}`."""
    base_image: str
    environ: Mapping[str, str]
    replicas: int = 1
    max_replicas: int = 1
    gpus: int = 0
    cpus: int | None = None
    memory_gb: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that one deployment brings to its target."""

    services: tuple[Service, ...]
    artifact: Path
    digest: str
    """The artifact's SHA-256, in hexadecimal."""
    secrets: Mapping[str, str] = field(repr=False)
    timeout: float
    """How many seconds every new worker has to become healthy."""


def slug(name: str) -> str:
    """The name in lower case, with hyphens in place of everything that DNS does not allow."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def release_of(
    application: Application,
    environment: Environment,
    artifact: Path,
    variables: Mapping[str, str],
    timeout: float,
) -> Release:
    """The release of an application, with secrets from `variables`. Raises `Fault`."""
    missing = [name for name in environment.secrets if not variables.get(name)]
    if missing:
        raise ConfigFault(
            f"These secrets of the environment are not set: {', '.join(missing)}.",
            where=f"pyproject.toml, [tool.flash.env.{environment.name}], secrets",
            remedy="export these variables before `flash deploy`.",
        )
    with artifact.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Release(
        services=services_of(application, environment),
        artifact=artifact,
        digest=digest,
        secrets=MappingProxyType({name: variables[name] for name in environment.secrets}),
        timeout=timeout,
    )


def services_of(application: Application, environment: Environment) -> tuple[Service, ...]:
    """A service for each endpoint. Raises `SourceFault` if a name is too long, or taken already."""
    prefix = f"{slug(application.name)}-{environment.name}"
    hosts: dict[str, DeclaredEndpoint] = {}
    for endpoint in application.endpoints:
        host = slug(endpoint.name)
        if not host or host in hosts or len(f"{prefix}-{host}") > MOST_LETTERS:
            other = f", like {hosts[host].name!r} at {hosts[host].place}" if host in hosts else ""
            raise SourceFault(
                Problem(
                    endpoint.place,
                    f"The endpoint {endpoint.name!r} would be the service {prefix}-{host}{other}.",
                    "give it a name of letters, digits and hyphens that differs from all others. "
                    f"The service's name can have up to {MOST_LETTERS} letters.",
                )
            )
        hosts[host] = endpoint
    shared = environ(port=str(PORT), health_path=HEALTH_PATH) | _peers(hosts, prefix, environment)
    return tuple(
        _service(endpoint, host, f"{prefix}-{host}", environment, shared) for host, endpoint in hosts.items()
    )


def _peers(hosts: Mapping[str, DeclaredEndpoint], prefix: str, environment: Environment) -> dict[str, str]:
    """The variables by which endpoints find each other. In a namespace they need the services' full names."""
    before = f"{prefix}-" if isinstance(environment, KubernetesEnvironment) else ""
    peers = environ(peer_url=f"http://{before}{{resource}}:{PORT}")
    odd = {
        endpoint.name: f"http://{before}{host}:{PORT}"
        for host, endpoint in hosts.items()
        if host != endpoint.name
    }
    return peers | (environ(peers=json.dumps(odd)) if odd else {})


def _service(
    endpoint: DeclaredEndpoint, host: str, name: str, environment: Environment, shared: Mapping[str, str]
) -> Service:
    options = endpoint.options
    low, high = _workers(options.get("workers"))
    cpus, memory_gb = _machine(options.get("cpu"))
    gpus = 0 if endpoint.is_cpu or not environment.gpus else int(options.get("gpu_count") or 1)
    return Service(
        endpoint=endpoint.name,
        host=host,
        name=name,
        base_image=environment.gpu_image if gpus else environment.image,
        environ=MappingProxyType(
            {
                **_limits(options),
                **(options.get("env") or {}),
                **environment.env,
                **shared,
                **environ(resource_name=endpoint.name),
            }
        ),
        replicas=max(1, low),
        max_replicas=max(1, low, high),
        gpus=gpus,
        cpus=cpus,
        memory_gb=memory_gb,
    )


def _limits(options: Mapping[str, Any]) -> dict[str, str]:
    limits: dict[str, str] = {}
    if options.get("execution_timeout_ms"):
        limits |= environ(request_timeout=f"{options['execution_timeout_ms'] / 1000:g}")
    if (options.get("max_concurrency") or 1) > 1:
        limits |= environ(max_concurrency=str(options["max_concurrency"]))
    return limits


def _workers(workers: int | tuple[int, int] | None) -> tuple[int, int]:
    """The minimum and maximum, as `Endpoint` reads them: a number is the maximum, and `None` is (0, 1)."""
    if workers is None:
        return 0, 1
    return (0, workers) if isinstance(workers, int) else (workers[0], workers[1])


def _machine(cpu: Any) -> tuple[int | None, int | None]:
    """Virtual CPUs and GB of an instance such as `cpu3c-1-2`, or of the first in a list."""
    if cpu is None:
        return None, None
    first = cpu[0] if isinstance(cpu, list | tuple) else cpu
    match = re.fullmatch(r"cpu\w+-(\d+)-(\d+)", str(getattr(first, "value", first)))
    return (int(match[1]), int(match[2])) if match else (None, None)


def left_out(application: Application) -> Iterator[str]:
    """A line for everything that the application asks for and no target provides."""
    for client in application.clients:
        yield f"{client.place}: Endpoint(image=…) is not deployed. Start that image yourself"
    for endpoint in application.endpoints:
        if endpoint.options.get("volume"):
            yield f"{endpoint.place}: volume= is not mounted. Put the models into an image of your own"
        if endpoint.options.get("system_dependencies"):
            yield f"{endpoint.place}: system_dependencies= are not installed. Use an image that has them"
