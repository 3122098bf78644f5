"""Containers of the image under test, as `docker run` starts them."""

from __future__ import annotations

import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
from docker.models.containers import Container as EngineContainer

from tests.serving import until
from tests.serving import user_code as write_user_code

ARTIFACT = "/root/.runpod/artifact.tar.gz"
PYTHON = "3.12"
"""The version of Python in the image."""


@dataclass(frozen=True)
class Container:
    """A container that was started; `port` is that of the host which leads to the application's."""

    inner: EngineContainer
    port: int | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inspect(self) -> dict[str, Any]:
        self.inner.reload()
        attributes: dict[str, Any] = self.inner.attrs
        return attributes

    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def ping(self, path: str = "/ping", port: int | None = None) -> int:
        """The status of a health request; 0 where nothing answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{port or self.port}{path}", timeout=5).status_code
        except httpx.TransportError:
            return 0

    def until_ready(self) -> Container:
        until(lambda: self.ping() == 200 or not self.running(), "ready")
        assert self.running(), self.log
        return self

    def wait(self, seconds: float = 30) -> int:
        """The exit code."""
        until(lambda: not self.running(), f"the container ends\n{self.log}", seconds)
        code: int = self.inspect()["State"]["ExitCode"]
        return code

    @property
    def log(self) -> str:
        """What `docker logs` shows."""
        log: bytes = self.inner.logs()
        return log.decode()

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines; every one must be a JSON object."""
        return [json.loads(line) for line in self.log.splitlines()]

    def run(self, *command: str, user: str = "") -> str:
        """What a command prints in the container, as `docker exec` runs it; it must succeed."""
        code, output = self.inner.exec_run(list(command), user=user)
        assert code == 0, output
        text: str = output.decode()
        return text


class Containers:
    """Starts containers, and removes every one that it has started."""

    def __init__(self, engine: docker.DockerClient, image: str, tmp_path: Path) -> None:
        self.engine = engine
        self.image = image
        self._tmp_path = tmp_path
        self._started: list[EngineContainer] = []

    def start(
        self,
        *command: str,
        artifact: Path | None = None,
        mount: dict[str, Path] | None = None,
        image: str | None = None,
        port: int = 80,
        **options: Any,
    ) -> Container:
        """`docker run -d`. `mount` says which host path each path in the container shows, read-only."""
        shown = dict(mount or {})
        if artifact is not None:
            shown[ARTIFACT] = artifact
        volumes = {str(source): {"bind": target, "mode": "ro"} for target, source in shown.items()}
        if options.get("network_mode") != "none":
            options["ports"] = {f"{port}/tcp": ("127.0.0.1", None), **options.get("ports", {})}
        inner = self.engine.containers.run(
            image or self.image, list(command), detach=True, volumes=volumes, **options
        )
        self._started.append(inner)
        return Container(inner, self._host_port(inner, port))

    def finish(self, *command: str, **options: Any) -> tuple[int, str]:
        """`docker run` to its end; the exit code, and what was printed."""
        container = self.start(*command, **options)
        return container.wait(), container.log

    def artifact(self, source: str, routes: list[tuple[str, str, str]], python: str = PYTHON) -> Path:
        """An artifact of one module, for the image's Python."""
        return pack(self.directory(source, routes, python))

    def directory(self, source: str, routes: list[tuple[str, str, str]], python: str = PYTHON) -> Path:
        """The same, unpacked."""
        directory = write_user_code(
            self._tmp_path, source, routes, f"case{len(list(self._tmp_path.iterdir()))}"
        )
        manifest = json.loads((directory / "flash_manifest.json").read_text())
        (directory / "flash_manifest.json").write_text(json.dumps(manifest | {"python_version": python}))
        return directory

    def remove(self) -> None:
        while self._started:
            self._started.pop().remove(force=True, v=True)

    @staticmethod
    def _host_port(container: EngineContainer, port: int) -> int | None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            container.reload()
            bound = container.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")
            if bound:
                return int(bound[0]["HostPort"])
            if container.status != "created":
                break
            time.sleep(0.05)
        return None


def pack(directory: Path) -> Path:
    """An artifact of the directory's content, beside it."""
    archive = directory.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, path.name)
    return archive
