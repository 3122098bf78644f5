"""The Kubernetes objects of a release, as plain dictionaries, and how to read the states of objects.

Nothing here talks to a cluster or the disk.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from typing import Any

from flash_cli.deploying.environments import KubernetesEnvironment
from flash_cli.deploying.services import DRAIN_SECONDS, PORT, TOKEN, Release, Service, slug
from flash_runtime.artifact.contract import environ

Object = dict[str, Any]

WORKER_PORT = 8080
"""Not 80: in older clusters only root can listen there."""
HEALTH_PORT = 8081
ARTIFACTS = "/artifacts"
"""The mount point of the volume with the artifact."""
_PERIOD_SECONDS = 5
_CPU_PERCENT = 70
"""The share of the requested CPU above which the autoscaler adds workers."""
_TRIES = 2
"""A worker that has ended this many times is given up."""
_HOPELESS = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}


def labels_of(project: str, environment: str, host: str | None = None) -> dict[str, str]:
    """The labels of an application's objects, or with `host` of one endpoint's objects."""
    labels = {
        "app.kubernetes.io/name": slug(project),
        "app.kubernetes.io/instance": environment,
        "app.kubernetes.io/managed-by": "flash",
    }
    return labels | ({"app.kubernetes.io/component": host} if host else {})


def image_of(environment: KubernetesEnvironment, release: Release, service: Service) -> str:
    """The image of a service's pods. It contains the artifact, unless that is on a volume."""
    if environment.artifact == "volume":
        return service.base_image
    return f"{environment.repository}:{release.digest[:12]}-{slug(service.base_image)}"


def artifact_name(release: Release) -> str:
    """The artifact's file on the volume. Each artifact has its own file, so that old pods keep theirs."""
    return f"{release.digest[:12]}.tar.gz"


def secret_of(name: str, labels: Mapping[str, str], token: str, secrets: Mapping[str, str]) -> Object:
    """The Secret with the variables of every pod of the application."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels)},
        "type": "Opaque",
        "stringData": {TOKEN: token, **secrets},
    }


def objects_of(
    service: Service, release: Release, environment: KubernetesEnvironment, project: str, secret: Object
) -> list[Object]:
    """Deployment, Service and, if the number of workers can change, HorizontalPodAutoscaler."""
    labels = labels_of(project, environment.name, service.host)
    scales = service.max_replicas > service.replicas
    objects = [
        _deployment(service, release, environment, labels, secret),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service.name, "labels": labels},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
        },
    ]
    if not scales:
        # Only without an autoscaler, whose number every deployment would reset.
        objects[0]["spec"]["replicas"] = service.replicas
        return objects
    return [*objects, _autoscaler(service, labels)]


def _deployment(
    service: Service,
    release: Release,
    environment: KubernetesEnvironment,
    labels: Mapping[str, str],
    secret: Object,
) -> Object:
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  the container's own
    variables = dict(service.environ) | environ(port=str(WORKER_PORT), port_health=str(HEALTH_PORT))
    if environment.artifact == "volume":
        volumes += [
            {"name": "app", "emptyDir": {}},
            {
                "name": "artifacts",
                "persistentVolumeClaim": {"claimName": environment.volume, "readOnly": True},
            },
        ]
        mounts += [
            {"name": "app", "mountPath": "/app"},
            {"name": "artifacts", "mountPath": ARTIFACTS, "readOnly": True},
        ]
        variables |= environ(
            artifact_path=f"{ARTIFACTS}/{artifact_name(release)}", artifact_sha256=release.digest
        )
    worker: Object = {
        "name": "worker",
        "image": image_of(environment, release, service),
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "envFrom": [{"secretRef": {"name": secret["metadata"]["name"]}}],
        "ports": [
            {"name": "http", "containerPort": WORKER_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ],
        "startupProbe": _probe("/readyz", math.ceil(release.timeout / _PERIOD_SECONDS)),
        "readinessProbe": _probe("/readyz", 1),
        "livenessProbe": _probe("/livez", 3),
        "resources": _resources(service),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
    pod = {
        "automountServiceAccountToken": False,
        "containers": [worker],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": DRAIN_SECONDS,
        "volumes": volumes,
    }
    annotations = {"flash/artifact": release.digest, "flash/secrets": _hash_of(secret)}
    annotations["flash/template"] = hashlib.sha256(repr((pod, annotations)).encode()).hexdigest()[:16]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": service.name,
            "labels": dict(labels),
            "annotations": {"flash/endpoint": service.endpoint, "flash/artifact": release.digest},
        },
        "spec": {
            "selector": {"matchLabels": dict(labels)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": math.ceil(release.timeout),
            "template": {"metadata": {"labels": dict(labels), "annotations": annotations}, "spec": pod},
        },
    }


def _probe(path: str, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": _PERIOD_SECONDS,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _resources(service: Service) -> Object:
    """The resources of `cpu=`. With `gpu=`, one CPU for each GPU, since an autoscaler needs a CPU request."""
    requests: Object = {"cpu": str(service.cpus or service.gpus or 1)}
    limits: Object = {"cpu": str(service.cpus)} if service.cpus else {}
    if service.memory_gb:
        requests["memory"] = limits["memory"] = f"{service.memory_gb}Gi"
    if service.gpus:
        limits["nvidia.com/gpu"] = str(service.gpus)
    return {"requests": requests, "limits": limits}


def _autoscaler(service: Service, labels: Mapping[str, str]) -> Object:
    """The autoscaler of `workers=`. It keeps at least one worker, since it cannot start from zero."""
    target = {"type": "Utilization", "averageUtilization": _CPU_PERCENT}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": service.name, "labels": dict(labels)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name},
            "minReplicas": service.replicas,
            "maxReplicas": service.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def _hash_of(secret: Object) -> str:
    """A keyed hash of the secrets: new secrets bring new pods. The key keeps them from being guessed."""
    values = secret["stringData"]
    text = json.dumps(values, sort_keys=True).encode()
    return hmac.new(values[TOKEN].encode(), text, hashlib.sha256).hexdigest()[:16]


def is_rolled_out(deployment: Object) -> bool:
    """Whether a Deployment is complete, by the rules of `kubectl rollout status`."""
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
    """The statuses of a pod's containers."""
    return list((pod.get("status") or {}).get("containerStatuses") or ())


def is_of(pod: Object, annotations: Mapping[str, str]) -> bool:
    """Whether a pod was made from the template with these annotations."""
    return annotations.items() <= (pod["metadata"].get("annotations") or {}).items()


def hopeless(pod: Object) -> str | None:
    """Why a pod can never be ready, or `None` if it may be."""
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
