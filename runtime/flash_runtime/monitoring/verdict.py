"""The verdict: derives from the scoreboard what health says."""

from __future__ import annotations

from dataclasses import dataclass

from flash_runtime.monitoring.scoreboard import Phase, Scoreboard


@dataclass(frozen=True, slots=True)
class Verdict:
    """What health says: an HTTP status and one word for a reader."""

    status: int
    word: str


def verdict(board: Scoreboard) -> Verdict:
    """200 if the container can serve, 204 while it starts, 503 if it is stopping or cannot serve now.

    The platform reads 200 as healthy, 204 as initialising and everything else as unhealthy.
    """
    phase = board.phase
    if phase in (Phase.LEAVING, Phase.DRAINING):
        return Verdict(503, "draining")
    if phase is Phase.FAILED:
        return Verdict(503, "failed")
    if board.any_ready():
        return Verdict(200, "degraded" if board.given_up or board.failing else "healthy")
    if board.any_wedged():
        return Verdict(503, "wedged")
    return Verdict(503, "failing") if board.failing else Verdict(204, "starting")


def body_of(verdict: Verdict) -> bytes:
    """The JSON body that goes with a verdict; empty for 204, which has none."""
    return b"" if verdict.status == 204 else b'{"status":"%s"}' % verdict.word.encode()
