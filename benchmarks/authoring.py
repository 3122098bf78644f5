"""How long an author waits: for the import, the command, a build of 200 files and a save, all in one run.

`make bench-authoring` runs it and prints a table. Each is a process of its own, started and ended; the bare
interpreter, parsing alone and the vendor's package are measured beside it, in turns.
"""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests import vendor
from tests.serving import environment, free_port, until

ROUNDS = 11
FLASH = Path(sys.executable).parent / "flash"
MAIN = """
from runpod_flash import Endpoint

api = Endpoint(name="hello", cpu="cpu3c-1-2")

@api.get("/hello")
def hello():
    return 0
"""
BODY = "".join(f"def function_{n}(x, y=None):\n    return [x, y, {n}]\n\n\n" for n in range(12))
PARSE = "import ast, pathlib; [ast.parse(each.read_bytes()) for each in pathlib.Path().rglob('*.py')]"
IMPORT = "from runpod_flash import Endpoint"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        _write(place)
        theirs = Path(vendor.run_python("import sys; print(sys.executable)").strip())
        commands: dict[str, list[str | Path]] = {
            "python": [sys.executable, "-c", "pass"],
            "import": [sys.executable, "-c", IMPORT],
            "vendor's import": [theirs, "-c", IMPORT],
            "help": [FLASH, "--help"],
            "vendor's help": [theirs.parent / "flash", "--help"],
            "parse": [sys.executable, "-c", PARSE],
            "build": [FLASH, "build"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(ROUNDS + 1):
            for name, command in commands.items():
                seconds = _seconds(lambda command=command: _run(command, place))
                if number:  # the first one compiles
                    taken[name].append(seconds)
        saves = _saves(place)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    python = medians["python"]
    print(f"{os.cpu_count()} cores, CPython {platform.python_version()}, medians of {ROUNDS} rounds\n")
    print("| | ms | beside it | ms | ratio |\n|---|---|---|---|---|")
    _row("`python -c pass`", python)
    _row(f"`{IMPORT}`, over the interpreter's start", medians["import"] - python)
    _row("the same, in all", medians["import"], "the vendor's", medians["vendor's import"])
    _row("`flash --help`", medians["help"], "the vendor's", medians["vendor's help"])
    _row("`flash build` of 201 files", medians["build"], "parsing them", medians["parse"])
    _row("a save, until `flash run` serves it", statistics.median(saves))


def _row(what: str, seconds: float, other: str = "", others: float = 0) -> None:
    beside = f"{other} | {others * 1000:.0f} | {seconds / others:.2f}" if others else " | | "
    print(f"| {what} | {seconds * 1000:.0f} | {beside} |")


def _write(place: Path) -> None:
    (place / "main.py").write_text(MAIN)
    for number in range(200):
        file = place / f"package_{number % 10}" / f"module_{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(BODY)


def _seconds(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _run(command: list[str | Path], place: Path) -> None:
    environ = {
        **environment(),
        "RUNPOD_FLASH_SILENCE_DEPRECATION": "1",
        "RUNPOD_FLASH_DISABLE_TELEMETRY": "1",
    }
    subprocess.run(command, cwd=place, env=environ, check=True, capture_output=True, timeout=120)


def _saves(place: Path) -> list[float]:
    """Seconds from a save to the first answer of what was saved."""
    port = free_port()
    process = subprocess.Popen(
        [FLASH, "run", "--port", str(port)],
        cwd=place, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers(number: int) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/hello/hello", timeout=5).text == str(number)
        except httpx.TransportError:
            return False

    def save(number: int) -> None:
        (place / "main.py").write_text(MAIN.replace("return 0", f"return {number}"))
        until(lambda: answers(number), "a save is served", 60)

    try:
        until(lambda: answers(0), "flash run", 60)
        time.sleep(1)  # it watches for saves once it has said what it serves
        return [_seconds(lambda number=number: save(number)) for number in range(1, 6)]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


if __name__ == "__main__":
    main()
