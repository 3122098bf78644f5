"""Cold starts: what each phase takes, and how long until health says 204 and 200, beside the vendor's worker.

`make bench-cold` runs it; it needs a quiet machine. Each start has the application in a fresh directory, as
a new container has it, while what is installed was compiled by a start before those that count. The vendor's
worker is started as its image does, on an artifact that is unpacked already, which this project's unpacks
itself; once more with the bytecode of the application kept from one start to the next.

Writes results/cold_start.json and, for people, cold_start.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tests import vendor
from tests.serving import environment, free_port

HERE = Path(__file__).parent
HELLO = HERE.parent / "examples" / "hello"
OURS, VENDOR, KEPT = "flash-runtime", "vendor's worker", "vendor's worker, bytecode kept"
BARS = {"first_204": 0.15, "first_200": 0.40}
"""The most of the vendor's time to its first 200 that ours may take."""
_POLL_SECONDS = 0.002
_LIMIT_SECONDS = 60.0
_TOP = 10
_ASK = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_IMPORT = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """An application: what is served of it, and whether it comes as an artifact or as a directory."""

    name: str
    resource: str
    artifact: Path
    directory: Path | None = None


@dataclass
class Start:
    """One start, in milliseconds from before the process was made; `phases` are what the log says."""

    first_200: float
    first_204: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    imports: dict[str, float] = field(default_factory=dict)
    """Milliseconds that the modules of each top-level package took themselves, where that was asked for."""


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="starts of each side and application, by turns")
    parser.add_argument("--import-runs", type=int, default=5, help="more of them, for the times of imports")
    options = parser.parse_args()
    cases = [
        Case("hello", "hello", vendor.build(HELLO), HELLO),
        Case("shop", "shop-api", vendor.build("shop")),
    ]
    names = ("fastapi", "gunicorn", "uvicorn", "pydantic")
    results = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "vendor": vendor.VENDOR,
        "runs": options.runs,
        "import_runs": options.import_runs,
        "starts": {case.name: measure(case, options.runs) for case in cases},
        "imports": {
            case.name: measure(case, options.import_runs, PYTHONPROFILEIMPORTTIME="1") for case in cases
        },
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "cold_start.json").write_text(json.dumps(results, indent=1) + "\n")
    page = report(results)
    (HERE / "cold_start.md").write_text(page)
    sys.stdout.write(page)


def measure(case: Case, runs: int, **variables: str) -> dict[str, list[dict[str, Any]]]:
    """Starts of all sides by turns, so that the machine's moods fall on each of them."""
    found: dict[str, list[dict[str, Any]]] = {OURS: [], VENDOR: [], KEPT: []}
    with tempfile.TemporaryDirectory() as kept:
        for run in range(-1, runs):  # the first one compiles what is installed, and warms the page cache
            for side, starts in found.items():
                with tempfile.TemporaryDirectory() as place:
                    if side == OURS:
                        start = ours(case, Path(place), variables)
                    else:
                        start = theirs(case, Path(kept if side == KEPT else place), variables)
                if run >= 0:
                    starts.append(asdict(start))
    return found


def ours(case: Case, place: Path, variables: dict[str, str]) -> Start:
    """This project: it unpacks the artifact, or serves the directory, a copy without bytecode."""
    app = place / "app"
    settings: dict[str, str | Path] = {
        "FLASH_APP_DIR": app,
        "FLASH_RESOURCE_NAME": case.resource,
        **variables,
    }
    if case.directory is not None:
        shutil.copytree(case.directory, app, ignore=shutil.ignore_patterns("__pycache__"))
        settings["FLASH_DISABLE_UNPACK"] = "1"
    else:
        settings["FLASH_BUILD_ARTIFACT_PATH"] = case.artifact

    def begin(port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flash_runtime", "serve"]
        return subprocess.Popen(command, env=environment(PORT=port, **settings), stdout=log, stderr=log)

    return watch(begin, place / "log.txt", '"started"')


def theirs(case: Case, place: Path, variables: dict[str, str]) -> Start:
    """The vendor's generated handler under plain uvicorn."""
    directory = place / "app"
    if not directory.exists():
        vendor.unpack(case.artifact, directory)
    return watch(
        lambda port, log: vendor.start(directory, case.resource, port, log, **variables), place / "log.txt"
    )


def watch(
    begin: Callable[[int, IO[bytes]], subprocess.Popen[bytes]], log_path: Path, last_line: str = ""
) -> Start:
    """Start a server, ask `/ping` until it says 200, wait for the line that it logs last, and stop it."""
    port = free_port()
    with log_path.open("wb") as log:
        began = time.perf_counter()
        process = begin(port, log)
        first: dict[int, float] = {}
        try:
            for status in answers(process, port, began):
                first.setdefault(status, (time.perf_counter() - began) * 1000)
                if status == 200:
                    break
            while last_line not in log_path.read_text() and time.perf_counter() - began < _LIMIT_SECONDS:
                time.sleep(_POLL_SECONDS)
        finally:
            process.terminate()
            process.wait(30)
    text = log_path.read_text()
    return Start(first[200], first.get(204), phases(text), imports(text))


def answers(process: subprocess.Popen[bytes], port: int, began: float) -> Iterator[int]:
    """The status of every answer of `/ping`, asked again and again."""
    while process.poll() is None and time.perf_counter() - began < _LIMIT_SECONDS:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(_ASK)
            words = peer.recv(4096).split()
            if len(words) > 1:
                yield int(words[1])
        time.sleep(_POLL_SECONDS)
    raise SystemExit(f"{process.args} has ended, or was not ready within {_LIMIT_SECONDS:g} s")


def phases(log: str) -> dict[str, float]:
    """What the runtime's own line says; empty for the vendor's worker, which has none."""
    lines = [json.loads(line) for line in log.splitlines() if '"started"' in line]
    return lines[0]["ms"] if lines else {}


def imports(log: str) -> dict[str, float]:
    """Milliseconds by top-level package, of the lines that PYTHONPROFILEIMPORTTIME makes."""
    spent: Counter[str] = Counter()
    for microseconds, package in _IMPORT.findall(log):
        own = package if package not in sys.stdlib_module_names else "the standard library"
        spent[own] += int(microseconds)
    return {package: microseconds / 1000 for package, microseconds in spent.most_common()}


def report(results: dict[str, Any]) -> str:
    """The results as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Cold starts",
        "",
        "Written by `make bench-cold`, all of it in one run. Each start has the application in a fresh",
        "directory; what is installed is compiled. `hello` is examples/hello, an unpacked directory; `shop`",
        "is an artifact of the vendor's `flash build`, which flash-runtime unpacks within its time, and the",
        "vendor's worker gets unpacked. The times are of this machine; their ratio is what counts.",
        "",
        f"{results['machine']}; CPython {results['python']}; {versions}; {results['vendor']}.",
        f"{results['runs']} starts of each, by turns.",
        "",
        "## From the process's start to the first answer of `/ping`",
        "",
        "Median milliseconds, the middle half of the starts in brackets.",
        "",
        "| Application | Side | first 204 | first 200 |",
        "|---|---|---|---|",
    ]
    for name, sides in results["starts"].items():
        for side, starts in sides.items():
            early, ready = column(starts, "first_204"), column(starts, "first_200")
            lines.append(f"| {name} | {side} | {spread(early) if early else 'none'} | {spread(ready)} |")
    lines += ["", "Against the vendor's first 200:", ""]
    lines += ["| Application | | ratio | bar | ratio, its bytecode kept |", "|---|---|---|---|---|"]
    for name, sides in results["starts"].items():
        for key, bar in BARS.items():
            mine = statistics.median(column(sides[OURS], key))
            fresh, kept = (
                mine / statistics.median(column(sides[side], "first_200")) for side in (VENDOR, KEPT)
            )
            label = key.replace("_", " ")
            lines.append(f"| {name} | {label} | {fresh:.3f} | {bar:.2f} | {kept:.3f} |")
    lines += ["", "## Phases of flash-runtime", ""]
    lines += ["As its log tells them, in milliseconds: median, the middle half in brackets.", ""]
    lines += ["| Phase | " + " | ".join(results["starts"]) + " |", "|---|" + "---|" * len(results["starts"])]
    own = {name: [start["phases"] for start in sides[OURS]] for name, sides in results["starts"].items()}
    for phase in next(iter(own.values()))[0]:
        cells = (spread([each[phase] for each in starts]) for starts in own.values())
        lines.append(f"| {phase} | " + " | ".join(cells) + " |")
    lines += ["", "## Imports", ""]
    lines += ["Milliseconds that the modules of each top-level package took themselves, by `-X importtime`,"]
    lines += [f"which makes imports slower: medians of {results['import_runs']} starts, the first {_TOP}."]
    for name, sides in results["imports"].items():
        for side in (OURS, VENDOR):
            lines += ["", f"{name}, {side}:", "", "| Package | |", "|---|---|"]
            lines += [f"| {package} | {spent:.1f} |" for package, spent in top(sides[side])]
    return "\n".join([*lines, ""])


def top(starts: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The packages whose imports took longest, and the sum of all."""
    names = {name for start in starts for name in start["imports"]}
    spent = {name: statistics.median(start["imports"].get(name, 0) for start in starts) for name in names}
    ranked = sorted(spent.items(), key=lambda pair: -pair[1])
    return [*ranked[:_TOP], (f"all of {len(ranked)}", sum(spent.values()))]


def column(starts: list[dict[str, Any]], key: str) -> list[float]:
    return [start[key] for start in starts if start[key] is not None]


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
