"""The kinds of deployment targets. Each kind is imported when it is used."""

from __future__ import annotations

from pathlib import Path

from flash_cli.deploying.environments import DockerEnvironment, Environment, KubernetesEnvironment
from flash_cli.deploying.target import Target


def target_of(environment: Environment, project: str, root: Path) -> Target:
    """The target of an environment, for the endpoints of the project in `root`."""
    if isinstance(environment, KubernetesEnvironment):
        from flash_cli.deploying.targets.kubernetes.target import KubernetesTarget

        return KubernetesTarget(environment, project, root)
    assert isinstance(environment, DockerEnvironment)
    if environment.mode == "swarm":
        from flash_cli.deploying.targets.docker.swarm import SwarmTarget

        return SwarmTarget(environment, project)
    from flash_cli.deploying.targets.docker.target import DockerTarget

    return DockerTarget(environment, project)
