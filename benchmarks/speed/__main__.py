"""Measures everything and writes results/speed.json, results/speed.png and, for people, speed.md.

`make bench` runs it; it needs a quiet machine with two cores, wrk, and PyPI the first time. A part of it
(`--sides`, `--cases`, `--only`) is written to `.cache/bench/part/` instead. With `--baseline REV` it compares
this project with an earlier revision of itself (`baseline.py`), and with nobody else.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed import (
    baseline,
    blocking,
    chart,
    environments,
    memory,
    report,
    sides,
    starts,
    throughput,
)
from benchmarks.speed.cases import all_cases
from benchmarks.speed.conditions import conditions
from benchmarks.speed.processes import Cores
from benchmarks.speed.progress import announced, say

HERE = Path(__file__).parent.parent
PARTS = ("throughput", "ping", "starts", "memory")
_MOST_PING_ROUNDS = 3
_MOST_MEMORY_ROUNDS = 2
_ROUNDS, _SECONDS = 5, 2


def main() -> None:
    """Install, measure, write."""
    options = arguments()
    found = conditions()
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    if options.baseline is None:
        against_peers(options, found, cores)
    else:
        rounds, seconds = options.rounds or baseline.ROUNDS, options.seconds or baseline.SECONDS
        results = found | baseline.measure(options.baseline, rounds, seconds, cores)
        baseline.conclude(results, HERE / "results" / "baseline.json")


def against_peers(options: argparse.Namespace, found: dict[str, str], cores: Cores) -> None:
    """Measure all sides, write the results and the page for people."""
    rounds, seconds = options.rounds or _ROUNDS, options.seconds or _SECONDS
    parts = options.only or PARTS
    compared = [side for side in sides.SIDES if not options.sides or side.name in options.sides]
    cases = [case for case in all_cases() if not options.cases or case.name in options.cases]
    for name in dict.fromkeys(side.environment for side in sides.SIDES):
        say(f"installing {name}")
        environments.install(name)
    say("building the application with the vendor's flash build")
    artifact = sides.build()
    throughput.prepare(all_cases())
    results: dict[str, Any] = {
        **found,
        "rounds": rounds,
        "seconds": seconds,
        "versions": {
            name: environments.versions(name) for name in dict.fromkeys(s.environment for s in sides.SIDES)
        },
        "cases": [{"name": case.name, "title": case.title, "large": case.large} for case in cases],
        "sides": [side.name for side in compared],
        "missing": missing(compared, cases),
        "notes": {
            side.name: {case.name: side.notes[case.needs] for case in cases if case.needs in side.notes}
            for side in compared
        },
    }
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        if "throughput" in parts:
            results["throughput"] = [
                throughput.measure_round(compared, cases, seconds, number, cores, place)
                for number in announced("requests a second", rounds)
            ]
        if "ping" in parts:
            results["ping"] = measure_ping(min(rounds, _MOST_PING_ROUNDS), cores, place)
        if "starts" in parts:
            results["starts"] = measure_starts(2 * rounds, artifact, cores, place)
        if "memory" in parts:
            results["memory"] = measure_memory(min(rounds, _MOST_MEMORY_ROUNDS), cores, place)
    whole = set(parts) == set(PARTS) and not options.sides and not options.cases
    write(results, HERE if whole else environments.CACHE / "part")


def measure_ping(rounds: int, cores: Cores, place: Path) -> dict[str, dict[str, list[Any]]]:
    """By path of the handler that blocks, and side, what blocking.measure found in each round."""
    found: dict[str, dict[str, list[Any]]] = {"/sleep": {}, "/spin": {}}
    for _ in announced("/ping while a handler blocks", rounds):
        for name in (sides.OURS, sides.VENDOR, sides.FASTAPI):
            with throughput.serving(sides.side(name), all_cases(), cores, place) as (_, port):
                for path, its in found.items():
                    its.setdefault(name, []).append(blocking.measure(path, port))
    return found


def measure_starts(rounds: int, artifact: Path, cores: Cores, place: Path) -> dict[str, dict[str, list[Any]]]:
    """By way and side, the seconds to the first answers of each start."""
    found: dict[str, dict[str, list[Any]]] = {starts.UNPACKED: {}, starts.PACKED: {}}
    for number in announced("cold starts", rounds + 1):
        for name, way in starts.STARTS:
            start = starts.measure(sides.side(name), way, artifact, cores, place)
            if number > 0:  # the first one warms the page cache, and compiles what lies unpacked
                found[way].setdefault(name, []).append(start)
    return found


def measure_memory(rounds: int, cores: Cores, place: Path) -> dict[str, list[Any]]:
    """By side, what memory.measure found in each round."""
    case = all_cases()[0]
    found: dict[str, list[Any]] = {}
    for _ in announced("memory of further workers", rounds):
        for name in (sides.OURS, sides.VENDOR, sides.FASTAPI):
            found.setdefault(name, []).append(memory.measure(name, case, cores, place))
    return found


def missing(compared: list[sides.Side], cases: list[Any]) -> dict[str, dict[str, str]]:
    """By side and case, why there is no figure; not for sides that are there for some cases only."""
    return {
        side.name: {case.name: side.lacks[case.needs] for case in cases if case.needs in side.lacks}
        for side in compared
    }


def write(results: dict[str, Any], place: Path) -> None:
    (place / "results").mkdir(parents=True, exist_ok=True)
    (place / "results" / "speed.json").write_text(json.dumps(results, indent=1) + "\n")
    (place / "speed.md").write_text(report.page(results))
    chart.draw(results, place / "results" / "speed.png")
    say(f"written: {place / 'speed.md'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument(
        "--baseline", metavar="REV", help="compare with an earlier revision of this project, and nobody else"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"of everything, by turns; {_ROUNDS}, or {baseline.ROUNDS} beside a baseline",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        help=f"of load, a side, case and turn; {_SECONDS}, or {baseline.SECONDS} beside a baseline",
    )
    parser.add_argument(
        "--sides", nargs="+", choices=[side.name for side in sides.SIDES], help="some of them"
    )
    parser.add_argument(
        "--cases", nargs="+", choices=[case.name for case in all_cases()], help="some of them"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts of it")
    options = parser.parse_args()
    if options.baseline is not None and (options.sides or options.cases or options.only):
        parser.error("--baseline goes without --sides, --cases and --only")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


if __name__ == "__main__":
    main()
