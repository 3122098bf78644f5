"""`flash deploy`, `undeploy`, `status` and `logs`: what they do, and what they print."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from flash_cli import sample_calls
from flash_cli.application import Application, DeclaredEndpoint
from flash_cli.deploying.environments import (
    PREVIEW,
    DockerEnvironment,
    Environment,
    environment_of,
    the_only_one,
)
from flash_cli.deploying.services import left_out, release_of
from flash_cli.deploying.target import Target
from flash_cli.deploying.targets import target_of
from flash_cli.faults import ConfigFault, OutputFault, TargetFault
from flash_cli.project import Project
from flash_runtime.artifact.contract import environ, variable
from flash_runtime.errors import UsageFault

KEY = variable("api_key")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def say(line: str) -> None:
    """Show a line of progress on standard error. Only results go to standard output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def deploy(directory: Path, env: str | None, timeout: float, exclude: str, no_deps: bool) -> None:
    """Build the project, deploy it to the environment's target, and print how to call it. Raises `Fault`."""
    project = Project.find(directory)
    environment = environment_of(project.config, env or the_only_one(project.config))
    target = target_of(environment, project.name, project.root)
    with _signals():
        application, artifact = _built(project, environment, target, exclude, no_deps)
        try:
            urls = roll_out(application, artifact, environment, target, timeout)
        except KeyboardInterrupt:
            say("interrupted. `flash status` shows which workers serve now")
            raise
    if urls:
        _record(project.root, environment.name, urls)


def preview(directory: Path, env: str | None, timeout: float, exclude: str, no_deps: bool) -> None:
    """Deploy to containers on this machine and show their logs. Ctrl-C or SIGTERM removes everything."""
    project = Project.find(directory)
    names = list(project.config.get("env") or {})
    environment = _for_preview(
        environment_of(project.config, env or (names[0] if len(names) == 1 else PREVIEW))
    )
    target = target_of(environment, project.name, project.root)
    if environment.gpus and not target.has_gpus:
        environment = dataclasses.replace(environment, gpus=False)
    with _signals():
        application, artifact = _built(project, environment, target, exclude, no_deps)
        names = [endpoint.name for endpoint in application.endpoints]
        without = [each.name for each in application.endpoints if not each.is_cpu and not environment.gpus]
        if without:
            say(f"running without a GPU: {', '.join(without)}")
        try:
            roll_out(application, artifact, environment, target, timeout)
            say("Ctrl-C stops the preview and removes everything")
            _show(target.logs(None, follow=True, lines=100), names)
            raise TargetFault(
                "Every worker has ended.",
                where="the log above",
                remedy="fix the error that the log shows, and start again.",
            )
        except KeyboardInterrupt:
            say("")
        finally:
            _ignore_signals()
            target.undeploy(names, say)


def roll_out(
    application: Application, artifact: Path, environment: Environment, target: Target, timeout: float
) -> Mapping[str, str]:
    """Deploy an application that is built. Print the URL of each endpoint, and a command that calls it."""
    release = release_of(application, environment, artifact, os.environ, timeout)
    for line in left_out(application):
        say(line)
    urls = target.deploy(release, say)
    keys = {each.endpoint: {**each.environ, **release.secrets}.get(KEY) for each in release.services}
    for endpoint in application.endpoints:
        if endpoint.name in urls:
            url, key = urls[endpoint.name], keys[endpoint.name]
            print(f"{endpoint.name}  {url}")
            print(f"  {_sample(endpoint, environment, url, key)}")
    sys.stdout.flush()
    return urls


def _sample(endpoint: DeclaredEndpoint, environment: Environment, url: str, key: str | None) -> str:
    """A command that calls the endpoint, by its API document if that can be read, else by its source."""
    # Names inside a cluster cannot be resolved from here.
    document = sample_calls.document_of(url, key) if isinstance(environment, DockerEnvironment) else None
    call = (sample_calls.from_document(document) if document else None) or sample_calls.from_source(endpoint)
    return sample_calls.curl(url, call, with_key=bool(key)) if call else "(called by name: POST /execute)"


def status(directory: Path, env: str | None) -> None:
    """Print a table of the deployed endpoints."""
    from rich.console import Console
    from rich.table import Table

    _, environment, target = _deployed(directory, env)
    states = target.status()
    if not states:
        say(f"nothing is deployed to {environment.name}")
        return
    table = Table("endpoint", "ready", "artifact", "url", "", box=None, pad_edge=False)
    for state in states:
        ready = f"{state.ready}/{state.wanted}"
        table.add_row(state.endpoint, ready, state.release, state.url or "", state.note)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(table)


def logs(directory: Path, env: str | None, endpoint: str | None, follow: bool, lines: int) -> None:
    """Print the workers' logs. If they are of several endpoints, each line begins with its endpoint."""
    _, environment, target = _deployed(directory, env)
    names = [state.endpoint for state in target.status()]
    _check_deployed(endpoint, names, environment)
    if not names:
        say(f"nothing is deployed to {environment.name}")
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        _show(target.logs(endpoint, follow=follow, lines=lines), names, prefix=endpoint is None)


def undeploy(directory: Path, env: str | None, endpoint: str | None, everything: bool, yes: bool) -> None:
    """Remove one endpoint, or all with `everything`. Asks for confirmation, unless `yes`."""
    if (endpoint is None) != everything:
        raise UsageFault(
            "Name an endpoint, or pass --all.", remedy="`flash undeploy ENDPOINT`, or `flash undeploy --all`."
        )
    project, environment, target = _deployed(directory, env)
    names = [state.endpoint for state in target.status()]
    if everything and not names:
        say(f"nothing is deployed to {environment.name}")
        return
    _check_deployed(endpoint, names, environment)
    removed = names if endpoint is None else [endpoint]
    if not yes:
        _confirm(f"Remove {', '.join(removed)} from {environment.name}?")
    target.undeploy(removed, say)
    _record(project.root, environment.name, dict.fromkeys(removed))


def _built(
    project: Project, environment: Environment, target: Target, exclude: str, no_deps: bool
) -> tuple[Application, Path]:
    from flash_cli.building.build import BuildOptions, build

    options = BuildOptions(
        python=environment.python,
        platform=target.platform,
        exclude=tuple(each.strip() for each in exclude.split(",") if each.strip()),
        no_deps=no_deps,
    )
    built = build(project, options, say)
    for note in built.notes:
        say(note)
    return built.application, built.artifact


def _deployed(directory: Path, env: str | None) -> tuple[Project, Environment, Target]:
    project = Project.find(directory)
    environment = environment_of(project.config, env or the_only_one(project.config))
    return project, environment, target_of(environment, project.name, project.root)


def _for_preview(environment: Environment) -> DockerEnvironment:
    """The same environment on this machine's engine, at free ports, with logs for people."""
    return DockerEnvironment(
        name=PREVIEW,
        image=environment.image,
        gpu_image=environment.gpu_image,
        python=environment.python,
        gpus=environment.gpus,
        env=MappingProxyType({**environ(log_format="text"), **environment.env}),
        secrets=environment.secrets,
    )


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """In this block SIGTERM acts like Ctrl-C, and further signals are ignored while the first is handled."""

    def interrupt(*_: object) -> None:
        _ignore_signals()  # a second signal would leave containers behind
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ignore_signals() -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _show(lines: Iterator[tuple[str, str]], names: list[str], *, prefix: bool = True) -> None:
    width = max(map(len, names), default=0)
    for endpoint, line in lines:
        print(f"{endpoint:<{width}} | {line}" if prefix else line, flush=True)


def _check_deployed(endpoint: str | None, names: list[str], environment: Environment) -> None:
    if endpoint is not None and endpoint not in names:
        raise ConfigFault(
            f"No endpoint {endpoint!r} is deployed to {environment.name}.",
            where=f"--env {environment.name}",
            remedy=f"name one of {', '.join(names)}." if names else "deploy first: `flash deploy`.",
        )


def _confirm(question: str) -> None:
    import typer

    if not sys.stdin.isatty():
        raise UsageFault(
            "Standard input is not a terminal, so nobody can confirm.",
            where="standard input",
            remedy="add --yes.",
        )
    typer.confirm(question, abort=True)


def _record(root: Path, env: str, urls: Mapping[str, str | None]) -> None:
    """Store the URLs where `Endpoint(id=…)` finds them. An endpoint without a URL is removed from there."""
    path = root / ".flash" / "deployed" / f"{env}.json"
    try:
        before: dict[str, str] = json.loads(path.read_text())["endpoints"] if path.exists() else {}
    except (ValueError, KeyError, TypeError):
        before = {}
    gone = {name for name, url in urls.items() if url is None}
    new = {name: url for name, url in urls.items() if url is not None}
    endpoints = {name: url for name, url in before.items() if name not in gone} if gone else new
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"endpoints": endpoints}, indent=2) + "\n")
        part.replace(path)
    except OSError as error:
        raise OutputFault(
            f"The record of deployed endpoints cannot be written: {error.strerror}.",
            where=str(path),
            remedy="make the directory writable, and deploy again.",
        ) from None
