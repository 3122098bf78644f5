"""How far a Deployment and its pods are, as the cluster tells it."""

from __future__ import annotations

from collections.abc import Mapping

from flash_cli.targets.objects import Object

_TRIES = 2
"""A worker that ended so often does not turn healthy."""
_HOPELESS = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}


def is_rolled_out(deployment: Object) -> bool:
    """As `kubectl rollout status` sees it."""
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas") or 0
    return bool(
        (status.get("observedGeneration") or 0) >= deployment["metadata"].get("generation", 0)
        and updated >= wanted
        and (status.get("replicas") or 0) == updated
        and (status.get("availableReplicas") or 0) >= updated
    )


def containers(pod: Object) -> list[Object]:
    """The states of a pod's containers."""
    return list((pod.get("status") or {}).get("containerStatuses") or ())


def is_of(pod: Object, annotations: Mapping[str, str]) -> bool:
    """Whether a pod was made of the template with these annotations."""
    return annotations.items() <= (pod["metadata"].get("annotations") or {}).items()


def hopeless(pod: Object) -> str | None:
    """Why a pod will not be ready, where that is plain; None for others."""
    for status in containers(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            return f"cannot start: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        if (status.get("restartCount") or 0) >= _TRIES:
            ended = (status.get("lastState") or {}).get("terminated") or {}
            return (
                f"has ended {status['restartCount']} times, the last with exit code {ended.get('exitCode')}"
            )
    return None
