"""Containers of the engine's: what they are told, asked and ended by."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import requests
from docker.errors import APIError, DockerException, NotFound

from flash_cli.services import DRAIN_SECONDS, TOKEN
from flash_cli.targets.streams import Line, lines_of

SHUT = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},  # noqa: S108  the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
"""As docs/images.md has it: what a handler is broken into by gets nothing more than the handler."""


def token_of(workers: list[Any]) -> str | None:
    """That of the deployment before: old and new endpoints call each other while they change."""
    for worker in workers:
        for variable in worker.attrs["Config"]["Env"]:
            name, _, value = variable.partition("=")
            if name == TOKEN:
                return str(value)
    return None


def answers(worker: Any) -> bool:
    """Whether the image's own HEALTHCHECK succeeds now; the engine would ask only every 10 seconds."""
    try:
        return bool(worker.exec_run(["flash-runtime", "health"]).exit_code == 0)
    except APIError:
        return False  # it has ended meanwhile, which its status tells


def health_of(worker: Any) -> str:
    """`healthy`, or what it is instead."""
    if worker.status != "running":
        return str(worker.status)
    return "healthy" if answers(worker) else "not ready"


def end(containers: list[Any]) -> None:
    """Stop them, all at once, each with its time to drain, and remove them."""

    def end_one(container: Any) -> None:
        try:
            container.stop(timeout=DRAIN_SECONDS)
            container.remove(force=True, v=True)
        except NotFound:
            pass

    if containers:
        with concurrent.futures.ThreadPoolExecutor(len(containers)) as pool:
            for _ in pool.map(end_one, containers):
                pass


def followed(worker: Any, lines: int) -> Callable[[], Iterator[Line]]:
    """A worker's log, as it comes, until the worker ends."""

    def follow() -> Iterator[Line]:
        try:
            for line in lines_of(worker.logs(stream=True, follow=True, tail=lines)):
                yield worker.labels["flash.endpoint"], line
        except (DockerException, requests.RequestException):
            pass  # removed: its log is at its end

    return follow
