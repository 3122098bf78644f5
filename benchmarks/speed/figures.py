"""Draws figures from the results: the values of all rounds, ratios within a round, and the issue's bars."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed import sides, starts

Results = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The values of all rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


def of_case(results: Results, case: str, side: str, key: str = "rate") -> Spread | None:
    """What a side reached in a case; `None` where it was not measured, or failed in any round."""
    runs = [
        number["cases"][case][side]
        for number in results.get("throughput", [])
        if side in number["cases"].get(case, {})
    ]
    return (
        Spread(tuple(run[key] for run in runs)) if runs and not any("error" in run for run in runs) else None
    )


def failure(results: Results, case: str, side: str) -> str | None:
    """Why there is no figure of a side that took part."""
    for number, its in enumerate(results.get("throughput", []), 1):
        if error := its["cases"].get(case, {}).get(side, {}).get("error"):
            return f"failed in round {number}: {error}"
    return None


def ratio(over: Spread | None, under: Spread | None) -> Spread | None:
    """The quotients round by round, so that what slows down a whole round falls out."""
    if over is None or under is None:
        return None
    return Spread(tuple(top / bottom for top, bottom in zip(over.values, under.values, strict=True)))


def of_ping(results: Results, path: str, side: str) -> Spread | None:
    """p99 in seconds, by round: on the kept connection or on new ones, whichever is worse."""
    rounds = results.get("ping", {}).get(path, {}).get(side)
    return Spread(tuple(max(way["p99"] for way in each.values()) for each in rounds)) if rounds else None


def of_start(results: Results, way: str, side: str, status: str) -> Spread | None:
    """Seconds to the first answer of that status; `None` where there never was one."""
    found = results.get("starts", {}).get(way, {}).get(side, [])
    values = [start[status] for start in found if status in start]
    return Spread(tuple(values)) if values and len(values) == len(found) else None


def of_memory(results: Results, side: str, key: str = "each") -> Spread | None:
    """Bytes."""
    found = results.get("memory", {}).get(side)
    return Spread(tuple(each[key] for each in found)) if found else None


@dataclass(frozen=True)
class Bar:
    """What is asked of this project in `docs`: a figure, and what it must be at least or at most."""

    title: str
    asked: float
    at_least: bool
    unit: str
    figure: Callable[[Results], Spread | None]

    def met(self, figure: Spread) -> bool:
        return figure.median >= self.asked if self.at_least else figure.median <= self.asked

    def missed_by(self, figure: Spread) -> float:
        """As a share of what is asked."""
        return abs(figure.median - self.asked) / self.asked


def _against(case: str, ours: str, other: str, key: str = "rate") -> Callable[[Results], Spread | None]:
    return lambda results: ratio(of_case(results, case, ours, key), of_case(results, case, other, key))


def _scaled(figure: Callable[[Results], Spread | None], factor: float) -> Callable[[Results], Spread | None]:
    def scaled(results: Results) -> Spread | None:
        found = figure(results)
        return Spread(tuple(value * factor for value in found.values)) if found else None

    return scaled


def _start(way: str, status: str) -> Callable[[Results], Spread | None]:
    return lambda results: ratio(
        of_start(results, way, sides.OURS, status), of_start(results, way, sides.VENDOR, "200")
    )


LIMIT, VENDOR = "x the limit", "x the vendor's"
BARS: Sequence[Bar] = [
    Bar("small typed POST, async", 0.55, True, LIMIT, _against("add-16", sides.OURS, sides.LIMIT)),
    Bar("small typed POST, async", 3.5, True, VENDOR, _against("add-16", sides.OURS, sides.VENDOR)),
    Bar("the same, access log off", 0.70, True, LIMIT, _against("add-16", sides.OURS_QUIET, sides.LIMIT)),
    Bar("the same, access log off", 4.5, True, VENDOR, _against("add-16", sides.OURS_QUIET, sides.VENDOR)),
    Bar("small typed POST, sync", 4.0, True, VENDOR, _against("sync", sides.OURS, sides.VENDOR)),
    Bar(
        "p99 at 16 connections, small typed POST, async",
        0.25,
        False,
        VENDOR,
        _against("add-16", sides.OURS, sides.VENDOR, "p99"),
    ),
    Bar("1,000 floats in and out", 3.0, True, "x FastAPI", _against("floats", sides.OURS, sides.FASTAPI)),
    Bar(
        "the same, the result not annotated",
        3.0,
        True,
        "x FastAPI",
        _against("floats-bare", sides.OURS, sides.FASTAPI),
    ),
    Bar(
        "`/ping` p99 while a handler sleeps",
        10,
        False,
        "ms",
        _scaled(lambda results: of_ping(results, "/sleep", sides.OURS), 1e3),
    ),
    Bar(
        "`/ping` p99 while a handler spins",
        50,
        False,
        "ms",
        _scaled(lambda results: of_ping(results, "/spin", sides.OURS), 1e3),
    ),
    Bar(
        "process start to first 204, unpacked",
        0.15,
        False,
        "x the vendor's 200",
        _start(starts.UNPACKED, "204"),
    ),
    Bar(
        "process start to first 204, artifact",
        0.15,
        False,
        "x the vendor's 200",
        _start(starts.PACKED, "204"),
    ),
    Bar("process start to first 200, unpacked", 0.40, False, VENDOR, _start(starts.UNPACKED, "200")),
    Bar("process start to first 200, artifact", 0.40, False, VENDOR, _start(starts.PACKED, "200")),
    Bar(
        "memory of each further worker (PSS)",
        20,
        False,
        "MB",
        _scaled(lambda results: of_memory(results, sides.OURS), 1e-6),
    ),
]
"""Where the issue's words fit two measurements, both are held to its bar."""
