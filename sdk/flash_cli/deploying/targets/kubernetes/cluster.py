"""A Kubernetes cluster: applies, reads and deletes objects and reads logs, with the official client."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import kube_config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from flash_cli.deploying.targets.kubernetes.objects import Object
from flash_cli.faults import ConfigFault, TargetFault

MANAGER = "flash"
_VERSIONS = {
    "Secret": "v1",
    "Service": "v1",
    "Pod": "v1",
    "Deployment": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
}
_SECONDS = 30.0


class Cluster:
    """One namespace of a cluster, by a context of the kubeconfig. Every method can raise `TargetFault`."""

    def __init__(self, context: str, namespace: str) -> None:
        self._namespace = namespace
        try:
            self._client = config.new_client_from_config(context=context)
        except config.ConfigException as error:
            raise ConfigFault(
                f"The context {context!r} cannot be used: {str(error).rstrip('.')}.",
                where="the kubeconfig (KUBECONFIG, or ~/.kube/config)",
                remedy=f"set context to one of these: {', '.join(_contexts()) or '(there are none)'}. "
                "Without a context, objects are written to files and not applied.",
            ) from None
        self._where = f"the context {context}, {self._client.configuration.host}"
        with self._faults(), tempfile.TemporaryDirectory() as directory:
            # The client caches the API's description in a file. Everybody can write to its usual place.
            self._dynamic = DynamicClient(self._client, cache_file=str(Path(directory, "resources.json")))
            self._resources = {
                kind: self._dynamic.resources.get(api_version=version, kind=kind)
                for kind, version in _VERSIONS.items()
            }

    def apply(self, each: Object) -> None:
        """Apply an object on the server's side. Fields that flash does not set stay as they are."""
        with self._faults():
            self._resources[each["kind"]].server_side_apply(
                body=each,
                namespace=self._namespace,
                field_manager=MANAGER,
                force_conflicts=True,
                _request_timeout=_SECONDS,
            )

    def replace(self, each: Object) -> None:
        """Replace an object, like `kubectl replace`."""
        with self._faults():
            self._resources[each["kind"]].replace(
                body=each, namespace=self._namespace, _request_timeout=_SECONDS
            )

    def find(self, kind: str, name: str) -> Object | None:
        """The object, or `None` if it does not exist."""
        with self._faults(missing_is_fine=True):
            found = self._resources[kind].get(name=name, namespace=self._namespace, _request_timeout=_SECONDS)
            return dict(found.to_dict())
        return None

    def list(self, kind: str, labels: Mapping[str, str]) -> Iterable[Object]:
        """The objects with these labels."""
        with self._faults():
            found = self._resources[kind].get(
                namespace=self._namespace, label_selector=selector(labels), _request_timeout=_SECONDS
            )
            return [dict(each) for each in found.to_dict()["items"]]

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and the objects that it owns. It need not exist."""
        with self._faults(missing_is_fine=True):
            self._resources[kind].delete(
                name=name,
                namespace=self._namespace,
                body={"propagationPolicy": "Background"},
                _request_timeout=_SECONDS,
            )

    def log(self, pod: str, *, lines: int, follow: bool = False, previous: bool = False) -> Iterator[bytes]:
        """The last lines of a pod's log, or with `previous` of the container that ran before."""
        with self._faults():
            response: Any = client.CoreV1Api(self._client).read_namespaced_pod_log(
                pod,
                self._namespace,
                container="worker",
                tail_lines=lines,
                follow=follow,
                previous=previous,
                _preload_content=False,
                _request_timeout=None if follow else _SECONDS,
            )
            yield from response.stream()

    @contextlib.contextmanager
    def _faults(self, *, missing_is_fine: bool = False) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            if missing_is_fine and error.status == 404:
                return
            raise TargetFault(
                f"The cluster refuses: {_message(error)}.",
                where=self._where,
                remedy="check your rights with `kubectl auth can-i`.",
            ) from None
        except (urllib3.exceptions.HTTPError, ResourceNotFoundError) as error:
            raise TargetFault(
                f"The cluster does not answer: {error}.",
                where=self._where,
                remedy="check the connection with `kubectl --context … cluster-info`.",
            ) from None


def _message(error: ApiException) -> str:
    """The API's message, without the headers of its response."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _contexts() -> list[str]:
    # The client's own function also needs a current context, and there may be none.
    merged = kube_config.KubeConfigMerger(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).config
    contexts = (merged.value.get("contexts") if merged is not None else None) or ()
    return [str(each["name"]) for each in contexts]


def selector(labels: Mapping[str, str]) -> str:
    """The labels as a selector for `kubectl -l`."""
    return ",".join(f"{name}={value}" for name, value in labels.items())
