"""`flash run`: serves a project's endpoints from their source, and reloads after each save.

A child process runs the real worker, with every endpoint under its name. A save replaces the worker without
losing a request. If the new source cannot be served, the fault is shown and the previous code keeps serving.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from flash_cli import env_file, sample_calls
from flash_cli.application import Application
from flash_cli.building.manifest import encode, manifest_of
from flash_cli.discovery.discover import discover
from flash_cli.faults import NothingFoundFault, OutputFault
from flash_cli.project import OUTPUT, Project
from flash_cli.serving import watching
from flash_cli.serving.child import Child
from flash_cli.serving.ports import free_port
from flash_runtime.artifact.contract import EVERY_RESOURCE, JOB_PATH, MANIFEST, environ, variable
from flash_runtime.errors import EXIT_OK, Fault

_REACHED_BY = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104  only looked up
"""The address to reach the child at, for hosts that stand for several addresses."""
_PATIENCE = 2
"""How many signals are taken before the next one interrupts."""


def run(directory: Path, host: str, port: int, *, reload: bool) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns the exit code.

    Without `reload`, raises `Fault` if the source cannot be served, and ends when the server ends.
    """
    root = Project.find(directory).root
    free = free_port(host, port)
    if free != port:
        _say(f"port {port} is taken: using {free}")
    server = DevelopmentServer(root, host, free)
    stop = _StopSignals()
    changes = watching.saves(root, stop.event) if reload else watching.ticks(stop.event)
    try:
        if not reload:
            server.serve()
        else:
            next(changes, None)  # starts watching, so that no save is missed while the source is read
            server.serve_if_possible()
        for saved in changes:
            if saved:
                server.reload(saved)
            code = server.check()
            if code is not None and not reload:
                return code
            if code is not None:
                _say("waiting for a save …")
    finally:
        server.end(stop)
    return EXIT_OK


class _StopSignals:
    """Counts the signals that ask the process to stop."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._times = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    @property
    def in_a_hurry(self) -> bool:
        """Whether there was more than one signal."""
        return self._times > 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        self.event.set()
        if self._times > _PATIENCE:
            raise KeyboardInterrupt  # in whatever delays the end, such as the import of a module


class DevelopmentServer:
    """A project, and the child process that serves its last working source."""

    def __init__(self, root: Path, host: str, port: int) -> None:
        self._root = root
        self._address = host, port
        self._reached_by = _REACHED_BY.get(host, host)
        self._url = _url("localhost" if host in _REACHED_BY else host, port)
        self._given = dict(os.environ)
        self._table: list[str] = []
        self._child: Child | None = None
        self._started_with: dict[str, str] = {}

    def serve(self) -> None:
        """Read the source and serve it. Raises `Fault`."""
        self._set_variables()
        application = discover(Project.find(self._root))
        if not application.endpoints:
            raise NothingFoundFault(
                "The project has no code to run, since its endpoints are images.",
                where=str(self._root),
                remedy="start the images yourself, or add an endpoint with code.",
            )
        manifest = self._write(application)
        lines = list(table(application, self._url))
        variables = {**_variables(application), **self._environ(manifest)}
        if self._child is not None and variables != self._started_with:
            self._end_child()  # the variables of a running process cannot be changed
        if self._child is None:
            self._child = Child(self._root, variables, self._reached_by, self._address[1])
            self._started_with = variables
            self._table = lines
        else:
            self._child.reload()
            if lines != self._table:
                self._table = lines
                self._show()

    def serve_if_possible(self) -> None:
        """Serve the source. A fault is shown, and the previous code keeps serving."""
        try:
            self.serve()
        except Fault as fault:
            _say(str(fault))
            _say("the previous code keeps serving" if self._child is not None else "waiting for a save …")

    def reload(self, saved: frozenset[Path]) -> None:
        """Serve the project after these files were saved."""
        names = sorted(os.path.relpath(path, self._root) for path in saved)
        _say(f"saved: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
        for path in saved:
            _forget_compiled(path)
        if self._child is not None and not self._child.is_ready:
            self._end_child()  # while it starts, it cannot be reloaded
        self.serve_if_possible()

    def check(self) -> int | None:
        """Check the child. Returns its exit code if it has ended by itself."""
        if self._child is None:
            return None
        code = self._child.exit_code()
        if code is not None:
            self._child = None
            _say(f"the server ended with exit code {code}")
        elif self._child.becomes_ready():
            self._show()
        return code

    def end(self, stop: _StopSignals) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end(lambda: stop.in_a_hurry)
            self._child = None

    def _end_child(self) -> None:
        assert self._child is not None, "callers check that"
        self._child.end()
        self._child = None

    def _set_variables(self) -> None:
        """Set the variables of .env here, too, unless they were given: discovery may import modules."""
        variables = {
            name: each for name, each in env_file.read(self._root).items() if name not in self._given
        }
        for name in set(os.environ) - set(self._given) - set(variables):
            del os.environ[name]
        os.environ.update(variables)

    def _write(self, application: Application) -> Path:
        path = self._root / OUTPUT / "dev" / MANIFEST
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / ".gitignore").write_text("*\n")
            path.write_bytes(encode(manifest_of(application, version)))
        except OSError as error:
            raise OutputFault(
                f"The manifest cannot be written: {error.strerror}.",
                where=str(path),
                remedy=f"make {self._root / OUTPUT} writable.",
            ) from error
        return path

    def _environ(self, manifest: Path) -> dict[str, str]:
        host, port = self._address
        own = environ(
            app_dir=str(self._root),
            disable_unpack="on",
            manifest_path=str(manifest),
            resource_name=EVERY_RESOURCE,
            sdk="image",
            host=host,
            port=str(port),
            port_health="",
            health_path="",
            workers="1",
            boot_tries="1",  # the next save is the next try
            drain_delay="0",
        )
        if sys.platform == "darwin":
            # Looking up the system's proxies loads frameworks that would end a forked process.
            own["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**environ(log_format="text"), **os.environ, **own}

    def _show(self) -> None:
        """Show the endpoints that are served, and how to call one."""
        lines = [*self._table, "", f"  docs   {self._url}/docs", "  stop   Ctrl-C"]
        key = os.environ.get(variable("api_key"))
        document = sample_calls.document_of(_url(self._reached_by, self._address[1]), key)
        call = sample_calls.from_document(document) if document else None
        if call is not None:
            lines += ["", f"  {sample_calls.curl(self._url, call, with_key=bool(key))}"]
        _say("\n".join(["serving", "", *lines, ""]))


def table(application: Application, url: str) -> Iterator[str]:
    """A line for each route and each function that takes jobs, with its method, URL, name and place."""
    rows = []
    for endpoint in application.endpoints:
        base = f"{url}/{endpoint.name}"
        plain = [each for each in endpoint.functions if not each.is_class]
        for each in endpoint.functions:
            if each.path is not None:
                rows.append((each.method or "", base + each.path, each.name, str(each.place)))
            elif plain == [each]:
                rows.append(("POST", base + JOB_PATH, each.name, str(each.place)))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for method, address, name, place in rows:
        yield f"  {method:<{widths[0]}}  {address:<{widths[1]}}  {name:<{widths[2]}}  {place}"


def _variables(application: Application) -> dict[str, str]:
    """The `env` of all endpoints. One process serves all, so the last endpoint wins if names are equal."""
    return {
        name: value
        for endpoint in application.endpoints
        for name, value in (endpoint.options.get("env") or {}).items()
    }


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _forget_compiled(path: Path) -> None:
    """Remove a file's compiled code: Python compares only whole seconds and sizes to notice a change."""
    if path.suffix == ".py":
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stdout.write(f"flash: {text}\n")
    sys.stdout.flush()
