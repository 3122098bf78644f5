"""A Kubernetes API over real HTTP, as far as a deployment asks it: objects, and Deployments that roll.

A Deployment whose worker's variable BOOT is `never` gets pods that keep ending; every other is ready at once.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
KINDS = {
    "/api/v1": {"secrets": "Secret", "services": "Service", "pods": "Pod"},
    "/apis/apps/v1": {"deployments": "Deployment"},
    "/apis/autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
}
LOG = (
    '{"level": "ERROR", "message": "cannot be imported", "traceback": "RuntimeError: the weights are gone"}\n'
)


class Cluster:
    """What is in it, by resource and name; and what was asked, as `METHOD path`."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.asked: list[str] = []

    def named(self, resource: str) -> dict[str, Object]:
        return {name: each for (kind, name), each in self.objects.items() if kind == resource}

    def put(self, resource: str, name: str, body: Object) -> Object:
        now = self.objects.get((resource, name), {"metadata": {"generation": 0}})
        new = {**now, **body, "metadata": {**now["metadata"], **body["metadata"]}}
        new.setdefault("metadata", {})["managedFields"] = [{"manager": "flash"}]
        if resource == "secrets":
            encoded = {k: base64.b64encode(v.encode()).decode() for k, v in new.pop("stringData", {}).items()}
            new["data"] = {**new.get("data", {}), **encoded}
        if resource == "deployments" and now.get("spec") != new["spec"]:
            new["metadata"]["generation"] = now["metadata"].get("generation", 0) + 1
            self._roll(name, new)
        self.objects[resource, name] = new
        return new

    def _roll(self, name: str, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        variables = {each["name"]: each["value"] for each in template["spec"]["containers"][0]["env"]}
        fails = variables.get("BOOT") == "never"
        generation = deployment["metadata"]["generation"]
        ended = {"restartCount": 2, "state": {}, "lastState": {"terminated": {"exitCode": 70}}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": f"{name}-{generation}"},
            "status": {"containerStatuses": [ended] if fails else []},
        }
        if not fails:
            for each in [each for each in self.named("pods") if each.rpartition("-")[0] == name]:
                del self.objects["pods", each]
        self.objects["pods", f"{name}-{generation}"] = pod
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
        if fails:
            counts = {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        deployment["status"] = {"observedGeneration": generation, **counts}


@contextmanager
def serve(kubeconfig: Path) -> Iterator[Cluster]:
    """Run it until the block ends; the kubeconfig's context is `test`."""
    cluster = Cluster()
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "other",
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body at once

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.cluster.asked.append(f"{self.command} {url.path}")
        found = self._discovery(url.path)
        if found is None:
            group, _, rest = url.path.partition("/namespaces/apps/")
            resource, _, name = rest.partition("/")
            assert resource in KINDS[group], url.path
            found = self._answer(resource, name, query, json.loads(body) if body else {})
        self._send(found)

    do_GET = do_PATCH = do_PUT = do_DELETE = _serve

    def _discovery(self, path: str) -> Object | None:
        if path == "/version":
            return {"kind": "Info", "major": "1", "minor": "34"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {"kind": "APIGroupList", "groups": [_group("apps", "v1"), _group("autoscaling", "v2")]}
        if path in KINDS:
            verbs = ["get", "list", "patch", "update", "delete"]
            resources = [
                {"name": plural, "kind": kind, "namespaced": True, "verbs": verbs, "singularName": ""}
                for plural, kind in KINDS[path].items()
            ]
            version = path.removeprefix("/apis/").removeprefix("/api/")
            return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        return None

    def _answer(self, resource: str, name: str, query: dict[str, str], body: Object) -> Object | str | None:
        if name.endswith("/log"):
            return LOG if query.get("previous") == "true" else "listening\n"
        if self.command in ("PATCH", "PUT"):
            if self.command == "PATCH":
                assert self.headers["content-type"] == "application/apply-patch+yaml"
                assert query["fieldManager"] == "flash"
            return self.cluster.put(resource, name, body)
        if self.command == "DELETE":
            return self.cluster.objects.pop((resource, name), None)
        if name:
            return self.cluster.objects.get((resource, name))
        wanted = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if each)
        items = [
            each
            for each in self.cluster.named(resource).values()
            if wanted.items() <= each["metadata"].get("labels", {}).items()
        ]
        return {"kind": "List", "apiVersion": "v1", "items": items}

    def _send(self, found: Object | str | None) -> None:
        status = 404 if found is None else 200
        text = (
            found
            if isinstance(found, str)
            else json.dumps(found or {"kind": "Status", "message": "not found", "code": 404})
        )
        kind = "text/plain" if isinstance(found, str) else "application/json"
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def _group(name: str, version: str) -> Object:
    versions = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [versions], "preferredVersion": versions}
