"""Starts real `flash-runtime serve` processes for tests, on loopback, and ends them."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

USER_CODE = Path(__file__).parent / "user_code"
MODULE = ["-m", "flash_runtime"]


@dataclass
class Server:
    """A running `flash-runtime serve`; what it logs goes to `log_path`."""

    process: subprocess.Popen[bytes]
    port: int
    health_port: int
    log_path: Path
    client: httpx.Client = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines; every one must be a JSON object."""
        return [json.loads(line) for line in self.log.splitlines()]

    def ping(self, path: str = "/ping", *, health_port: bool = False, timeout: float = 5) -> int:
        """The status of a health request on a connection of its own; 0 where nothing answers."""
        port = self.health_port if health_port else self.port
        try:
            return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=timeout).status_code
        except httpx.TransportError:
            return 0

    def metric(self, name: str) -> int:
        """What /metrics says at present; the server needs `separate_health`."""
        text = httpx.get(f"http://127.0.0.1:{self.health_port}/metrics", timeout=5).text
        (value,) = re.findall(rf"^{re.escape(name)} (\d+)$", text, re.MULTILINE)
        return int(value)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Send the signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def workers(self) -> list[int]:
        """The pids of the processes that the supervisor has started, its health process left out."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children[1:]]


_held: collections.deque[socket.socket] = collections.deque()
_MOST_HELD = 100


def free_port() -> int:
    """A port of 127.0.0.1 that nobody is given twice, by whatever process on this machine.

    It stays bound for a good while, without listening: the kernel gives it to no other, as a server's or as a
    client's own, and a server that names it may listen there (both have SO_REUSEADDR).
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    if len(_held) > _MOST_HELD:
        _held.popleft().close()
    port: int = held.getsockname()[1]
    return port


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for `condition`; fail with `what` where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def environment(**settings: str | Path | int) -> dict[str, str]:
    """An environment with nothing of this machine's but the path, and these settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    own = {"FLASH_HOST": "127.0.0.1", "FLASH_DRAIN_DELAY": "0"}
    return {**kept, **own, **{name: str(value) for name, value in settings.items()}}


@contextlib.contextmanager
def serve(
    tmp_path: Path,
    *,
    wait_ready: bool = True,
    separate_health: bool = False,
    python: str | Path = sys.executable,
    port: int | None = None,
    **settings: str | Path | int,
) -> Iterator[Server]:
    """Run `flash-runtime serve` with these settings until the block ends."""
    port = port or free_port()
    health_port = free_port() if separate_health else port
    env = environment(PORT=port, PORT_HEALTH=health_port, **settings)
    log_path = tmp_path / f"log-{port}.txt"
    with log_path.open("wb") as log, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        process = subprocess.Popen(
            [python, *MODULE, "serve"], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        server = Server(process, port, health_port, log_path, client)
        try:
            if wait_ready:
                until(lambda: server.ping() == 200 or process.poll() is not None, "ready")
                assert process.poll() is None, server.log
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def run(
    *arguments: str, timeout: float = 60, **settings: str | Path | int
) -> subprocess.CompletedProcess[str]:
    """Run a `flash-runtime` command to its end."""
    settings = {"PORT": free_port(), **settings}
    return subprocess.run(
        [sys.executable, *MODULE, *arguments],
        env=environment(**settings),
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def user_code(tmp_path: Path, source: str, routes: list[tuple[str, str, str]], name: str = "case") -> Path:
    """An unpacked application of one module `main`; routes are (method, path, function)."""
    directory = tmp_path / name
    directory.mkdir()
    (directory / "main.py").write_text(source)
    functions = [
        {"name": function, "module": "main", "is_async": True, "is_class": False}
        | {"http_method": method, "http_path": path}
        for method, path, function in routes
    ]
    resource = {
        "resource_type": "CpuLiveLoadBalancer",
        "file_path": "main.py",
        "local_path_prefix": "/main",
        "module_path": "main",
        "functions": functions,
        "is_load_balanced": True,
        "is_live_resource": True,
        "config_variable": "api",
        "makes_remote_calls": False,
    }
    manifest = {
        "version": "1.0",
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "generated_at": "2026-01-01T00:00:00Z",
        "project_name": name,
        "resources": {name: resource},
        "function_registry": {function: name for _, _, function in routes},
    }
    (directory / "flash_manifest.json").write_text(json.dumps(manifest))
    return directory
