"""What every kind of deployment target can do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from flash_cli.deploying.services import Release

LAST_LINES = 20
"""How many log lines are shown of a worker that does not become healthy."""

UNCHANGED = "The previous deployment, if there is one, keeps serving."
"""What a fault says of a deployment that does not become healthy."""

DOCKERFILE = "FROM {base}\nADD artifact.tar.gz /app/\n"
"""`ADD` unpacks the artifact, so that a worker starts without unpacking, and can be read-only."""

Say = Callable[[str], None]
"""Shows a line of progress."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a deployed endpoint."""

    endpoint: str
    ready: int
    wanted: int
    url: str | None
    release: str
    """The first digits of the artifact's checksum."""
    note: str = ""


class Target(Protocol):
    """Where endpoints run. Every method raises `TargetFault` if the target cannot be reached."""

    @property
    def platform(self) -> str:
        """The platform of the target's machines, in Docker's terms. The build is for this platform."""

    @property
    def has_gpus(self) -> bool:
        """Whether the target can give GPUs to the endpoints that ask for them."""

    def deploy(self, release: Release, say: Say) -> Mapping[str, str]:
        """Start the release beside the one that serves, then switch. Returns the URL of each endpoint.

        If the release does not become healthy, the previous one keeps serving, and `TargetFault` has the end
        of the log.
        """

    def status(self) -> list[State]:
        """The state of every endpoint that is deployed."""

    def logs(self, endpoint: str | None, *, follow: bool, lines: int) -> Iterator[tuple[str, str]]:
        """Each line of the log with its endpoint, of one endpoint or of all."""

    def undeploy(self, endpoints: Collection[str], say: Say) -> None:
        """Remove these endpoints. Requests in flight are finished first."""
