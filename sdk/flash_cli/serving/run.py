"""`flash run`: serves a project's endpoints from its source, and again after each save.

What serves is the worker's own code, in a child process, with every endpoint under its name. A save renews
its worker, and no request is lost; source that cannot be served is told of, and the code before it serves on.
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
"""The address by which this process finds its child, for hosts that stand for several."""
_PATIENCE = 2
"""After so many signals the next one interrupts."""


def run(directory: Path, host: str, port: int, *, reload: bool) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code.

    Without `reload`, source that cannot be served is a `Fault`, and the server's end is the end.
    """
    root = Project.find(directory).root
    free = free_port(host, port)
    if free != port:
        _say(f"port {port} is taken: using {free}")
    development = Development(root, host, free)
    stop = _Stop()
    changes = watching.saves(root, stop.event) if reload else watching.ticks(stop.event)
    try:
        if not reload:
            development.serve()
        else:
            next(changes, None)  # it watches from here on: no save is missed while the source is read
            development.serve_if_possible()
        for saved in changes:
            if saved:
                development.take(saved)
            code = development.look()
            if code is not None and not reload:
                return code
            if code is not None:
                _say("waiting for a save …")
    finally:
        development.end(stop)
    return EXIT_OK


class _Stop:
    """Notes that the process is to stop, and how often it was told."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._times = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    @property
    def in_a_hurry(self) -> bool:
        """Whether it was told more than once."""
        return self._times > 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        self.event.set()
        if self._times > _PATIENCE:
            raise KeyboardInterrupt  # whatever holds up the end, such as the import of a module


class Development:
    """A project, and the child that serves it as it was when it could last be served."""

    def __init__(self, root: Path, host: str, port: int) -> None:
        self._root = root
        self._address = host, port
        self._reached_by = _REACHED_BY.get(host, host)
        self._url = _url("localhost" if host in _REACHED_BY else host, port)
        self._given = dict(os.environ)
        self._shown: list[str] = []
        self._child: Child | None = None
        self._started_with: dict[str, str] = {}

    def serve(self) -> None:
        """Read the source and serve it. Raises `Fault`."""
        self._set_variables()
        application = discover(Project.find(self._root))
        if not application.endpoints:
            raise NothingFoundFault(
                "The project has no code to run: its endpoints are images.",
                where=str(self._root),
                remedy="flash deploy runs images.",
            )
        manifest = self._write(application)
        lines = list(table(application, self._url))
        variables = {**_variables(application), **self._environ(manifest)}
        if self._child is not None and variables != self._started_with:
            self._end_child()  # a process keeps the variables that it was started with
        if self._child is None:
            self._child = Child(self._root, variables, self._reached_by, self._address[1])
            self._started_with = variables
            self._shown = lines
        else:
            self._child.renew()
            if lines != self._shown:
                self._shown = lines
                self._tell()

    def serve_if_possible(self) -> None:
        """The same; a fault is told of, and what serves goes on."""
        try:
            self.serve()
        except Fault as fault:
            _say(str(fault))
            _say("the code before it serves on" if self._child is not None else "waiting for a save …")

    def take(self, saved: frozenset[Path]) -> None:
        """Serve the project as it is after this save."""
        names = sorted(os.path.relpath(path, self._root) for path in saved)
        _say(f"saved: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
        for path in saved:
            _forget_compiled(path)
        if self._child is not None and not self._child.is_ready:
            self._end_child()  # one that starts cannot be renewed yet
        self.serve_if_possible()

    def look(self) -> int | None:
        """See what became of the child; returns its exit code where it has ended by itself."""
        if self._child is None:
            return None
        code = self._child.exit_code()
        if code is not None:
            self._child = None
            _say(f"the server ended with exit code {code}")
        elif self._child.becomes_ready():
            self._tell()
        return code

    def end(self, stop: _Stop) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end(lambda: stop.in_a_hurry)
            self._child = None

    def _end_child(self) -> None:
        assert self._child is not None, "it is asked for before"
        self._child.end()
        self._child = None

    def _set_variables(self) -> None:
        """Have the variables of .env here too, since discovery may import modules; those given come first."""
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
            # Its frameworks, which asking for the system's proxies loads, end a process that was forked.
            own["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
        return {**environ(log_format="text"), **os.environ, **own}

    def _tell(self) -> None:
        """Say what is served, and how to call it."""
        lines = [*self._shown, "", f"  docs   {self._url}/docs", "  stop   Ctrl-C"]
        key = os.environ.get(variable("api_key"))
        document = sample_calls.document_of(_url(self._reached_by, self._address[1]), key)
        call = sample_calls.from_document(document) if document else None
        if call is not None:
            lines += ["", f"  {sample_calls.curl(self._url, call, with_key=bool(key))}"]
        _say("\n".join(["serving", "", *lines, ""]))


def table(application: Application, url: str) -> Iterator[str]:
    """A line for each route and each function that takes jobs: method, URL, function and place."""
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
    """The endpoints' own `env`: one process serves all, so of one name the last endpoint's counts."""
    return {
        name: value
        for endpoint in application.endpoints
        for name, value in (endpoint.options.get("env") or {}).items()
    }


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _forget_compiled(path: Path) -> None:
    """Remove what Python has compiled of a file: it tells a change by whole seconds and the size."""
    if path.suffix == ".py":
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stdout.write(f"flash: {text}\n")
    sys.stdout.flush()
