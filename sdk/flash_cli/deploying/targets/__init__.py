"""What a deployment's target can do. Each kind has its module, which is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flash_cli.deploying.environments import DockerEnvironment, Environment, KubernetesEnvironment
from flash_cli.deploying.services import Release

LAST_LINES = 20
"""So many lines of the log of a worker that does not turn healthy are shown."""

UNCHANGED = "what served before, if anything, serves on"
"""How a deployment ends that does not turn healthy."""

DOCKERFILE = "FROM {base}\nADD artifact.tar.gz /app/\n"
"""`ADD` unpacks the artifact, so that a worker starts without unpacking, and can be read-only."""

Say = Callable[[str], None]
"""Shows a line of progress."""


@dataclass(frozen=True, slots=True)
class State:
    """How an endpoint is."""

    endpoint: str
    ready: int
    wanted: int
    url: str | None
    release: str
    """The artifact's checksum, the first digits."""
    note: str = ""


class Target(Protocol):
    """Where endpoints run. Everything raises `TargetFault` where the target cannot be had."""

    @property
    def platform(self) -> str:
        """Of its machines, as Docker names it; what is deployed is built for it."""

    @property
    def has_gpus(self) -> bool:
        """Whether it can give some to an endpoint that asks for them."""

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """Bring the release up beside what serves, then switch; the URLs by endpoint of what serves now.

        Where it does not turn healthy, what served before serves on, and `TargetFault` has the last lines of
        the log.
        """

    def status(self) -> list[State]:
        """Every endpoint that is deployed."""

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[tuple[str, str]]:
        """Each line of the log with its endpoint; of all endpoints, or of one."""

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """Take these endpoints away. What they have begun is finished."""


def target_of(environment: Environment, project: str, root: Path) -> Target:
    """The environment's target, for the endpoints of a project and its directory."""
    if isinstance(environment, KubernetesEnvironment):
        from flash_cli.deploying.targets.kubernetes.target import KubernetesTarget

        return KubernetesTarget(environment, project, root)
    assert isinstance(environment, DockerEnvironment)
    if environment.mode == "swarm":
        from flash_cli.deploying.targets.docker.swarm import SwarmTarget

        return SwarmTarget(environment, project)
    from flash_cli.deploying.targets.docker.target import DockerTarget

    return DockerTarget(environment, project)
