"""This project beside an earlier revision of itself: is it as fast, and does it start as quickly?

Both serve the application of the present tree, built once, with default settings. They differ in their
environments: the revision has one of its own, with the dependencies that it locks. They take turns, there and
back, and another one is first in each round. Ratios are taken within a turn, so that what slows the machine
down for longer falls out.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.speed import environments, report, revisions, sides, starts, throughput
from benchmarks.speed.cases import Case, all_cases
from benchmarks.speed.figures import Bar, Results, Spread
from benchmarks.speed.processes import Cores
from benchmarks.speed.progress import announced, say
from benchmarks.speed.sides import Side

ROUNDS, SECONDS = 7, 1
AT_LEAST = 0.97
"""Of the baseline's requests a second."""
AT_MOST = 1.03
"""Of the time that a start takes the baseline: the same allowance."""
_CASES = ("add-16", "sync")
_STARTS = "starts"
_LOAD_TURNS, _START_TURNS = 8, 12
_QUIET = 0.5
"""A load average above it says that others use the cores, too."""
_WIDTH = 120

Turn = dict[str, Any]
"""What one side's turn found: figures by their key, or an `error`."""


def measure(revision: str, rounds: int, seconds: int, cores: Cores) -> Results:
    """Install both, and measure them by turns: in `measured`, by round, by figure and side, every turn."""
    load_average = os.getloadavg()[0]
    if load_average > _QUIET:
        say(f"the machine is busy (load average {load_average:.1f}), so the ratios will vary")
    commit = revisions.commit_of(revision)
    present = revisions.commit_of("HEAD") + ("-dirty" if revisions.is_dirty() else "")
    say(f"installing the baseline, {commit[:12]}")
    compared = [sides.side(sides.OURS), sides.baseline(environments.install_commit(commit))]
    say(f"installing {sides.OURS}")
    environments.install(environments.OURS)
    say("building the application with the vendor's flash build")
    artifact = sides.build()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        start = partial(starts.measure, way=starts.UNPACKED, artifact=artifact, cores=cores, place=place)
        _by_turns(compared, 1, start)  # warms the page cache, and compiles the application
        measured = []
        for number in announced("beside the baseline", rounds):
            order = compared if number % 2 == 0 else compared[::-1]
            found = _load(order, seconds, cores, place)
            measured.append({**found, _STARTS: _by_turns(order, _START_TURNS, start)})
    return {
        "rounds": rounds,
        "seconds": seconds,
        "load_average": load_average,
        "revisions": {sides.OURS: present, sides.BASELINE: commit},
        "versions": {side.name: environments.versions(side.environment) for side in compared},
        "measured": measured,
    }


def _load(order: list[Side], seconds: int, cores: Cores, place: Path) -> dict[str, dict[str, list[Turn]]]:
    """Start both anew, and ask them by turns: by case and side, what each turn found."""
    cases = [case for case in all_cases() if case.name in _CASES]
    with contextlib.ExitStack() as stack:
        servers = {
            side.name: stack.enter_context(throughput.serving(side, cases, cores, place)) for side in order
        }

        def turn(case: Case, side: Side) -> Turn:
            group, port = servers[side.name]
            return throughput.measure(side, case, seconds, group, port, cores, place)

        return {case.name: _by_turns(order, _LOAD_TURNS, partial(turn, case)) for case in cases}


def _by_turns(order: list[Side], turns: int, measure: Callable[[Side], Turn]) -> dict[str, list[Turn]]:
    """By side, what was measured in each turn; they go there and back: A B, B A, A B, …"""
    found: dict[str, list[Turn]] = {side.name: [] for side in order}
    for turn in range(turns):
        for side in order if turn % 2 == 0 else reversed(order):
            found[side.name].append(measure(side))
    return found


@dataclass(frozen=True)
class Comparison:
    """A figure that both sides have, and what is asked of the present one's over the baseline's."""

    title: str
    asked: float
    at_least: bool
    write: Callable[[float], str]
    """How people read the figure."""
    part: str
    """What is measured for it: a case, or the starts."""
    key: str
    """What it is in a turn's findings."""

    @property
    def bar(self) -> Bar:
        return Bar(self.title, self.asked, self.at_least, "x the baseline", self.ratio)

    def figure(self, results: Results, side: str) -> Spread | None:
        """A side's medians of the rounds; `None` where a turn has no such figure."""
        rounds = self._turns(results, side)
        return Spread(tuple(map(statistics.median, rounds))) if rounds else None

    def ratio(self, results: Results) -> Spread | None:
        """The rounds' medians of the turns' ratios."""
        present, baseline = (self._turns(results, side) for side in (sides.OURS, sides.BASELINE))
        if present is None or baseline is None:
            return None
        return Spread(
            tuple(
                statistics.median(over / under for over, under in zip(*turns, strict=True))
                for turns in zip(present, baseline, strict=True)
            )
        )

    def missed(self, results: Results) -> str | None:
        """Why the bar is not met, in a line; a figure that is missing meets no bar."""
        ratio = self.ratio(results)
        if ratio is None:
            reached = "; ".join(["has no figure", *self._errors(results)])
        elif self.bar.met(ratio):
            return None
        else:
            reached = f"reached {report.spread(ratio, _thousandths)}"
        return f"missed: {self.title}: asked {report.asked(self.bar)}, {reached}"

    def _turns(self, results: Results, side: str) -> list[list[float]] | None:
        """By round, the figure in every turn."""
        rounds = [found[self.part][side] for found in results["measured"]]
        if any(self.key not in turn for turns in rounds for turn in turns):
            return None
        return [[turn[self.key] for turn in turns] for turns in rounds]

    def _errors(self, results: Results) -> list[str]:
        """The first error of each side."""
        first: dict[str, str] = {}
        for number, found in enumerate(results["measured"], 1):
            for side, turns in found[self.part].items():
                for error in (turn["error"] for turn in turns if "error" in turn):
                    first.setdefault(side, f"{side} failed in round {number}: {error}")
        return list(first.values())


COMPARISONS = [
    Comparison("small POST, async, requests/s", AT_LEAST, True, report.significant, "add-16", "rate"),
    Comparison("small POST, sync, requests/s", AT_LEAST, True, report.significant, "sync", "rate"),
    Comparison("start to first 204, ms", AT_MOST, False, report.milliseconds, _STARTS, "204"),
    Comparison("start to first 200, ms", AT_MOST, False, report.milliseconds, _STARTS, "200"),
]


def conclude(results: Results, file: Path) -> None:
    """Write the results, print their table, and end with 1 where the present side misses a bar."""
    file.parent.mkdir(parents=True, exist_ok=True)
    comparisons = [_entry(each, results) for each in COMPARISONS]
    file.write_text(json.dumps({"comparisons": comparisons, **results}, indent=1) + "\n")
    Console(width=_WIDTH).print(table(results))
    print(f"rounds: {results['rounds']}; medians, with the lowest and the highest in brackets", flush=True)
    say(f"written: {file}")
    if missed := [line for each in COMPARISONS if (line := each.missed(results))]:
        raise SystemExit("\n".join(missed))


def table(results: Results) -> Table:
    """A row for each comparison: medians, and the spread of the ratio."""
    rows = Table("", "baseline", "present", "ratio", "asked", "", box=box.SIMPLE)
    for each in COMPARISONS:
        baseline, present, ratio = _spreads(each, results)
        rows.add_row(
            each.title,
            *(each.write(found.median) if found else "n/a" for found in (baseline, present)),
            report.spread(ratio, _thousandths) if ratio else "n/a",
            report.asked(each.bar),
            "missed" if each.missed(results) else "met",
        )
    return rows


def _thousandths(ratio: float) -> str:
    """Fine enough to see on which side of a bar it is."""
    return f"{ratio:.3f}"


def _entry(comparison: Comparison, results: Results) -> dict[str, Any]:
    entry: dict[str, Any] = {"title": comparison.title}
    for name, found in zip(("baseline", "present", "ratio"), _spreads(comparison, results), strict=True):
        entry[name] = found and {"median": found.median, "low": found.low, "high": found.high}
    return {**entry, "asked": report.asked(comparison.bar), "met": not comparison.missed(results)}


def _spreads(comparison: Comparison, results: Results) -> tuple[Spread | None, Spread | None, Spread | None]:
    """The baseline's figure, the present one's, and the ratio."""
    baseline, present = (comparison.figure(results, side) for side in (sides.BASELINE, sides.OURS))
    return baseline, present, comparison.ratio(results)
