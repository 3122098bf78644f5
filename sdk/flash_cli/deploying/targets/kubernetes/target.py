"""The Kubernetes target: writes objects to `.flash/kubernetes/` and, with a context, applies them.

The cluster keeps a Deployment's old pods until the new ones are ready. If they do not become ready, the
Deployment is restored.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from flash_cli.deploying import loglines
from flash_cli.deploying.environments import KubernetesEnvironment
from flash_cli.deploying.loglines import Line, lines_of, merged
from flash_cli.deploying.services import PORT, TOKEN, Release, Service, slug
from flash_cli.deploying.target import LAST_LINES, UNCHANGED, Say, State
from flash_cli.deploying.targets.kubernetes.cluster import Cluster, selector
from flash_cli.deploying.targets.kubernetes.files import Written
from flash_cli.deploying.targets.kubernetes.objects import (
    Object,
    artifact_name,
    containers,
    hopeless,
    image_of,
    is_of,
    is_rolled_out,
    labels_of,
    objects_of,
    secret_of,
)
from flash_cli.faults import ConfigFault, TargetFault

_POLL_SECONDS = 1.0


class KubernetesTarget:
    """`flash_cli.deploying.target.Target`, in one namespace of a cluster, or on disk alone."""

    def __init__(self, environment: KubernetesEnvironment, project: str, root: Path) -> None:
        self._environment = environment
        self._project = project
        self._name = f"{slug(project)}-{environment.name}"
        self._labels = labels_of(project, environment.name)
        self._written = Written(root / ".flash" / "kubernetes" / environment.name)

    has_gpus = True  # the cluster's device plugin knows which nodes have some

    @functools.cached_property
    def _cluster(self) -> Cluster:
        if self._environment.context is None:
            raise ConfigFault(
                f"The environment {self._environment.name} has no context, so its cluster is unknown.",
                where=f"pyproject.toml, [tool.flash.env.{self._environment.name}]",
                remedy='add context = "…", or use kubectl with '
                f"-n {self._environment.namespace} -l {selector(self._labels)}",
            )
        return Cluster(self._environment.context, self._environment.namespace)

    @property
    def platform(self) -> str:
        """See `Target`."""
        return self._environment.platform

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """See `Target`. Without a context, objects are written and not applied, and there are no URLs."""
        environment = self._environment
        applies = environment.context is not None
        token = self._token(applies)
        secret = secret_of(self._name, self._labels, token, release.secrets)
        objects = {
            service.host: objects_of(service, release, environment, self._project, secret)
            for service in release.services
        }
        self._written.objects({"_secret": [secret], **objects})
        images = {}
        if environment.artifact == "image":
            images = {image_of(environment, release, each): each.base_image for each in release.services}
            self._written.contexts(images, release.artifact)
        say(f"written to {self._written.directory}")
        if applies:
            self._push(images, release, say)
            self._apply(release, secret, objects, say)
        else:
            self._say_how_to_apply(release, images, say)
            return {}
        return {service.endpoint: self._url(service.name, service.host) for service in release.services}

    def status(self) -> list[State]:
        """See `Target`."""
        states = []
        for each in self._cluster.list("Deployment", self._labels):
            metadata, status = each["metadata"], each.get("status") or {}
            ready, wanted = status.get("readyReplicas") or 0, each["spec"].get("replicas", 1)
            host = metadata["labels"]["app.kubernetes.io/component"]
            states.append(
                State(
                    endpoint=metadata["annotations"]["flash/endpoint"],
                    ready=ready,
                    wanted=wanted,
                    url=self._url(metadata["name"], host),
                    release=metadata["annotations"]["flash/artifact"][:12],
                    note="" if is_rolled_out(each) else "rolling out",
                )
            )
        return sorted(states, key=lambda state: state.endpoint)

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[Line]:
        """See `Target`."""
        sources = [
            self._log(state.endpoint, pod["metadata"]["name"], follow, lines)
            for state in self.status()
            if endpoint in (None, state.endpoint)
            for pod in self._pods(slug(state.endpoint))
        ]
        if follow:
            yield from merged(sources)
        else:
            for source in sources:
                yield from source()

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """See `Target`. The cluster ends the pods, each with its time to drain."""
        say(f"removing {', '.join(sorted(endpoints))}")
        self._delete({slug(endpoint) for endpoint in endpoints})
        if not self.status():
            for secret in self._cluster.list("Secret", self._labels):
                self._cluster.delete("Secret", secret["metadata"]["name"])

    def _url(self, name: str, host: str) -> str:
        if self._environment.url is not None:
            return self._environment.url.replace("{endpoint}", host)
        return f"http://{name}.{self._environment.namespace}:{PORT}"

    def _token(self, applies: bool) -> str:
        """The previous deployment's token, since old and new pods call each other, or a new one."""
        if applies:
            found = self._cluster.find("Secret", self._name)
            if found is not None:
                return base64.b64decode(found["data"][TOKEN]).decode()
        return self._written.token() or secrets.token_urlsafe(32)

    def _say_how_to_apply(self, release: Release, images: Mapping[str, str], say: Say) -> None:
        """Show the commands that apply the objects."""
        say("not applied, since the environment has no context. To apply the objects:")
        for image in images:
            context = self._written.context(image)
            say(f"  docker build -t {image} {context} && docker push {image}")
        if self._environment.artifact == "volume":
            say(f"  copy {release.artifact} to {artifact_name(release)} on {self._environment.volume}")
        namespace = self._environment.namespace
        say(
            f"  kubectl apply --server-side --field-manager=flash -n {namespace} -f {self._written.directory}"
        )

    def _push(self, images: Mapping[str, str], release: Release, say: Say) -> None:
        if self._environment.artifact == "volume":
            say(
                f"pods look for {artifact_name(release)} on the volume {self._environment.volume}: "
                f"copy {release.artifact} there"
            )
            return
        from flash_cli.deploying.targets.docker import engine

        client = engine.connect(None)
        for image, base in images.items():
            say(f"pushing {image}")
            engine.build_image(client, base, release.artifact, image, {"flash.project": self._project})
            engine.push(client, image)

    def _apply(self, release: Release, secret: Object, objects: Mapping[str, list[Object]], say: Say) -> None:
        every = [secret, *(each for own in objects.values() for each in own)]
        before = {}
        for each in every:
            found = self._cluster.find(each["kind"], each["metadata"]["name"])
            if found is not None:
                self._check_ours(found)
            if each["kind"] == "Deployment":
                before[each["metadata"]["name"]] = found
        try:
            for each in every:
                self._cluster.apply(each)
            self._until_rolled_out(release, objects, say)
        except BaseException:
            with contextlib.suppress(TargetFault):  # the first fault is the one to report
                for name, found in before.items():
                    self._set_back(name, found)
            raise
        self._delete(
            {
                each["metadata"]["labels"]["app.kubernetes.io/component"]
                for each in self._cluster.list("Deployment", self._labels)
            }
            - set(objects),
        )
        for service in release.services:
            if service.max_replicas == service.replicas:
                self._delete({service.host}, kinds=("HorizontalPodAutoscaler",))

    def _check_ours(self, found: Object) -> None:
        if not self._labels.items() <= (found["metadata"].get("labels") or {}).items():
            kind, name = found["kind"], found["metadata"]["name"]
            raise TargetFault(
                f"The {kind} {name} exists and does not belong to this deployment.",
                where=f"the namespace {self._environment.namespace}",
                remedy="rename the environment, or use another namespace.",
            )

    def _until_rolled_out(self, release: Release, objects: Mapping[str, list[Object]], say: Say) -> None:
        """Wait for all Deployments. Raises `TargetFault` if one cannot become ready, or not in time."""
        deadline = time.monotonic() + release.timeout
        waiting = list(release.services)
        while waiting:
            for service in list(waiting):
                deployment = self._cluster.find("Deployment", service.name)
                if deployment is not None and is_rolled_out(deployment):
                    waiting.remove(service)
                    say(f"{service.endpoint}: rolled out")
                    continue
                template = objects[service.host][0]["spec"]["template"]
                pods = [
                    pod for pod in self._pods(service.host) if is_of(pod, template["metadata"]["annotations"])
                ]
                for pod in pods:
                    why = hopeless(pod)
                    if why is not None:
                        raise self._unhealthy(service, pod, why)
                if time.monotonic() > deadline:
                    why = f"is not ready after {release.timeout:g} s"
                    raise self._unhealthy(service, pods[0] if pods else None, why)
            if waiting:
                time.sleep(_POLL_SECONDS)

    def _unhealthy(self, service: Service, pod: Object | None, what: str) -> TargetFault:
        name, log = "", ""
        if pod is not None:
            name = str(pod["metadata"]["name"])
            restarted = any(status.get("restartCount") for status in containers(pod))
            with contextlib.suppress(TargetFault):  # a container that never started has no log
                chunks = self._cluster.log(name, lines=LAST_LINES, previous=restarted)
                log = loglines.last(lines_of(chunks), LAST_LINES)
        return TargetFault(
            f"A worker of {service.endpoint} {what}. {UNCHANGED}",
            where=f"the pod {name}" if pod else f"the Deployment {service.name}, which made no pod",
            remedy="fix the error that its log shows, and deploy again.",
            log=log,
        )

    def _set_back(self, name: str, before: Object | None) -> None:
        """Restore a Deployment, or delete it if there was none before."""
        if before is None:
            self._cluster.delete("Deployment", name)
            return
        now = self._cluster.find("Deployment", name)
        if now is not None and now["spec"] != before["spec"]:
            metadata = {
                **now["metadata"],
                "annotations": before["metadata"].get("annotations"),
                "managedFields": None,
            }
            self._cluster.replace({**now, "metadata": metadata, "spec": before["spec"]})

    def _delete(
        self,
        hosts: Collection[str],
        kinds: tuple[str, ...] = ("HorizontalPodAutoscaler", "Deployment", "Service"),
    ) -> None:
        for host in sorted(hosts):
            for kind in kinds:
                for each in self._cluster.list(kind, self._labels_of(host)):
                    self._cluster.delete(kind, each["metadata"]["name"])

    def _labels_of(self, host: str) -> dict[str, str]:
        return labels_of(self._project, self._environment.name, host)

    def _pods(self, host: str) -> list[Object]:
        return list(self._cluster.list("Pod", self._labels_of(host)))

    def _log(self, endpoint: str, pod: str, follow: bool, lines: int) -> Callable[[], Iterator[Line]]:
        def read() -> Iterator[Line]:
            for line in lines_of(self._cluster.log(pod, lines=lines, follow=follow)):
                yield endpoint, line

        return read
