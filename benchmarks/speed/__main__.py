"""Measures everything and writes results/speed.json, results/speed.png and, for people, speed.md.

`make bench` runs it; it needs a quiet machine with two cores, wrk, and PyPI the first time. A part of it
(`--sides`, `--cases`, `--only`) is written to `.cache/bench/part/` instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.speed import blocking, chart, environments, load, memory, report, sides, starts, throughput
from benchmarks.speed.cases import all_cases
from benchmarks.speed.processes import Cores

HERE = Path(__file__).parent.parent
PARTS = ("throughput", "ping", "starts", "memory")
_MOST_PING_ROUNDS = 3
_MOST_MEMORY_ROUNDS = 2
_BEGAN = time.monotonic()


def main() -> None:
    """Install, measure, write."""
    options = arguments()
    wrk = load.wrk_version()
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    compared = [side for side in sides.SIDES if not options.sides or side.name in options.sides]
    cases = [case for case in all_cases() if not options.cases or case.name in options.cases]
    for name in dict.fromkeys(side.environment for side in sides.SIDES):
        say(f"installing {name}")
        environments.install(name)
    say("building the application with the vendor's flash build")
    artifact = sides.build()
    throughput.prepare(all_cases())
    results: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores ({processor()}), {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "wrk": wrk,
        "rounds": options.rounds,
        "seconds": options.seconds,
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
        if "throughput" in options.only:
            results["throughput"] = [
                throughput.measure_round(compared, cases, options.seconds, number, cores, place, say)
                for number in announced("requests a second", options.rounds)
            ]
        if "ping" in options.only:
            results["ping"] = measure_ping(min(options.rounds, _MOST_PING_ROUNDS), cores, place)
        if "starts" in options.only:
            results["starts"] = measure_starts(2 * options.rounds, artifact, cores, place)
        if "memory" in options.only:
            results["memory"] = measure_memory(min(options.rounds, _MOST_MEMORY_ROUNDS), cores, place)
    whole = set(options.only) == set(PARTS) and not options.sides and not options.cases
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
            start = starts.measure(name, way, artifact, cores, place)
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


def announced(what: str, rounds: int) -> Any:
    for number in range(rounds):
        say(f"{what}: {number + 1} of {rounds}")
        yield number


def say(text: str) -> None:
    passed = round(time.monotonic() - _BEGAN)
    print(f"{passed // 60:3d}:{passed % 60:02d}  {text}", flush=True)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(results: dict[str, Any], place: Path) -> None:
    (place / "results").mkdir(parents=True, exist_ok=True)
    (place / "results" / "speed.json").write_text(json.dumps(results, indent=1) + "\n")
    (place / "speed.md").write_text(report.page(results))
    chart.draw(results, place / "results" / "speed.png")
    say(f"written: {place / 'speed.md'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of everything, by turns")
    parser.add_argument("--seconds", type=int, default=2, help="of load, for each side and case in a round")
    parser.add_argument(
        "--sides", nargs="+", choices=[side.name for side in sides.SIDES], help="some of them"
    )
    parser.add_argument(
        "--cases", nargs="+", choices=[case.name for case in all_cases()], help="some of them"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts of it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
