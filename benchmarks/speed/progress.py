"""What a run says while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

_BEGAN = time.monotonic()


def announced(what: str, rounds: int) -> Iterator[int]:
    """The numbers of the rounds, each said as it begins."""
    for number in range(rounds):
        say(f"{what}: {number + 1} of {rounds}")
        yield number


def say(text: str) -> None:
    """Print the text after the time that has passed."""
    passed = round(time.monotonic() - _BEGAN)
    print(f"{passed // 60:3d}:{passed % 60:02d}  {text}", flush=True)
