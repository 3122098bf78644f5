"""Run the GPU tests and benchmarks of flash-runtime on this machine: offline, in one call, within 10 minutes.

    python3 dist/gpu-kit/run.py [FOLDER]

The machine needs a GPU, its driver, and torch with CUDA in a Python of the version that the kit was made for.
Nothing is fetched, and nothing is left behind but two files in FOLDER (or else in $OUT, or else here):

    gpu-kit.json    everything: machine, versions, each step's outcome, seconds and, where it failed, its log
    gpu-kit.md      the same for people

They are written anew after each step, so they also tell of a run that was killed. The exit code:

    0     every test passed, and every benchmark has figures
    1     something failed, was skipped although there is a GPU, or ran out of time
    69    there is no GPU here, or no torch that can use it: tests were skipped, nothing was measured
    70    the kit cannot be set up here: another Python, or wheels that cannot be installed
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

KIT = Path(__file__).resolve().parent
EXIT_OK, EXIT_FAILED, EXIT_NO_DEVICE, EXIT_SET_UP = 0, 1, 69, 70
PASSED, FAILED, SKIPPED, OUT_OF_TIME, NOT_RUN = "passed", "failed", "skipped", "out of time", "not run"
_SET_UP_SECONDS = 120
_BENCHMARK_SECONDS = 150
_KILL_SECONDS = 5
"""For processes to be gone once they are killed: one that hangs in the driver never is."""
_TAIL_LINES = 60
_INSTALL_OPTIONS = (
    *("--no-index", "--no-deps", "--ignore-installed", "--no-cache-dir"),
    *("--disable-pip-version-check", "--quiet"),
)

_PROBE = """
import json, platform
from importlib.metadata import version, PackageNotFoundError

def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None

found = {"python": platform.python_version(), "torch": None, "cuda": None, "devices": [], "missing": None}
names = ("flash-runtime", "fastapi", "gunicorn", "uvicorn", "uvloop", "httptools", "nvidia-ml-py", "pytest")
found["packages"] = {name: of(name) for name in names}
try:
    import torch
except Exception as error:  # where a library of its own is missing, not only ImportError
    found["missing"] = f"torch cannot be imported: {error}"
else:
    found["torch"], found["cuda"] = torch.__version__, torch.version.cuda
    if torch.cuda.is_available():
        found["devices"] = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
    else:
        found["missing"] = "torch finds no GPU that it can use"
print(json.dumps(found))
"""


@dataclass
class Step:
    """One test or benchmark; `log` has the end of what it printed, where it did not pass."""

    name: str
    outcome: str = NOT_RUN
    seconds: float = 0.0
    why: str = ""
    log: str = ""


@dataclass
class Results:
    """All that is known so far; `verdict` says how the run ended."""

    started: str
    verdict: str = "did not end"
    exit_code: int | None = None
    seconds: float = 0.0
    kit: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    set_up: list[Step] = field(default_factory=list)
    tests: list[Step] = field(default_factory=list)
    benchmarks: list[Step] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command ended; `code` is None where its time ran out."""

    code: int | None
    output: str
    seconds: float


class CannotSetUp(Exception):
    """The tests cannot even be started."""


class Run:
    """One run of the kit, from set-up to verdict."""

    def __init__(self, folder: Path, deadline: float, test_seconds: float, environment: Path | None) -> None:
        self._folder = folder
        self._began = time.monotonic()
        self._ends = self._began + deadline
        self._test_seconds = test_seconds
        self._environment = environment
        self._work = Path()
        self._python = ""
        self.results = Results(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def run(self) -> int:
        """Do all of it; returns the exit code. Results are written whatever happens."""
        results = self.results
        self._folder.mkdir(parents=True, exist_ok=True)
        self.write()
        try:
            with tempfile.TemporaryDirectory(prefix="gpu-kit-", ignore_cleanup_errors=True) as work:
                self._work = Path(work)
                self._set_up()
                self._test()
                self._measure()
            results.exit_code, results.verdict = self._judge()
        except CannotSetUp as error:
            results.exit_code, results.verdict = EXIT_SET_UP, f"cannot be set up: {error}"
        except (KeyboardInterrupt, SystemExit):
            results.exit_code, results.verdict = EXIT_FAILED, "was stopped"
        except BaseException as error:
            results.exit_code, results.verdict = EXIT_FAILED, f"the kit's own fault: {error!r}"
            raise
        finally:
            self.write()
        return results.exit_code

    def write(self) -> None:
        """Write both files, each in one move: a reader never sees half of one."""
        self.results.seconds = round(time.monotonic() - self._began, 2)
        contents = {"gpu-kit.json": json.dumps(asdict(self.results), indent=1) + "\n"}
        contents["gpu-kit.md"] = page(self.results)
        for name, content in contents.items():
            temporary = self._folder / f"{name}.new"
            temporary.write_text(content)
            temporary.replace(self._folder / name)

    def _set_up(self) -> None:
        results = self.results
        results.machine = {
            "system": f"{platform.system()} {platform.release()}",
            "processors": len(os.sched_getaffinity(0)),
            "nvidia-smi": self._nvidia_smi(),
        }
        self.write()
        with contextlib.suppress(FileNotFoundError):  # absent in a checkout, whose environment is given
            results.kit = json.loads((KIT / "kit.json").read_text())
        made_for = results.kit.get("python")
        if made_for and made_for != sysconfig.get_python_version():
            raise CannotSetUp(f"the kit is for Python {made_for}, and this is {platform.python_version()}")
        if self._environment is None:
            self._environment = self._work / "environment"
            self._make_environment(self._environment)
        self._python = str(self._environment / "bin" / "python")
        probe = self._do("look at torch and the devices", [self._python, "-c", _PROBE])
        results.machine |= json.loads(probe.output.strip().splitlines()[-1])

    def _nvidia_smi(self) -> list[str]:
        query = "--query-gpu=name,uuid,driver_version,memory.total,memory.used"
        try:
            ended = self._bounded(["nvidia-smi", query, "--format=csv,noheader"], 20)
        except FileNotFoundError:
            return ["there is no nvidia-smi"]
        return ended.output.strip().splitlines()

    def _make_environment(self, environment: Path) -> None:
        make = [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(environment)]
        self._do("make a virtual environment", make)
        [packages] = environment.glob("lib/python*/site-packages")
        lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in machine_packages())
        (packages / "machine.pth").write_text(lines)
        pip = next(KIT.glob("wheels/pip-*.whl"), None)
        if pip is None:
            raise CannotSetUp(f"{KIT} has no wheels: `make gpu-kit` makes a kit that does")
        wheels = [str(wheel) for wheel in sorted(KIT.glob("wheels/*.whl")) if wheel != pip]
        # A wheel of pip's can be run: the machine may have none, nor what venv would make one of.
        install = [str(environment / "bin" / "python"), str(pip / "pip"), "install", *_INSTALL_OPTIONS]
        self._do("install the kit's wheels", [*install, *wheels])

    def _do(self, name: str, command: list[str], *, needed: bool = True) -> Ended:
        """A step of the set-up; raises `CannotSetUp` where it fails and nothing can be done without it."""
        step = Step(name)
        self.results.set_up.append(step)
        ended = self._bounded(command, _SET_UP_SECONDS)
        step.seconds = ended.seconds
        step.outcome = {0: PASSED, None: OUT_OF_TIME}.get(ended.code, FAILED)
        if ended.code != 0:
            step.log = tail(ended.output)
        self._note(step)
        if needed and ended.code != 0:
            raise CannotSetUp(f"{step.name}: {step.outcome}")
        return ended

    def _note(self, step: Step) -> None:
        """The step is over: keep what is known of it, also if the whole run is killed now."""
        passed = time.monotonic() - self._began
        print(f"{passed:5.0f} s  {step.outcome:8}  {step.name}", flush=True)
        self.write()

    def _test(self) -> None:
        collect = [*self._pytest(), "--collect-only", "--quiet", "tests/gpu"]
        # A module that cannot be collected leaves the others.
        ended = self._do("collect the tests", collect, needed=False)
        names = [line for line in ended.output.splitlines() if re.match(r"tests/gpu/[\w./]+::", line)]
        self.results.tests = [Step(name) for name in names]
        if not self.results.tests:
            raise CannotSetUp("no test could be collected")
        for number, step in enumerate(self.results.tests):
            self._run_test(step, self._work / f"test-{number}")
            self._note(step)

    def _run_test(self, step: Step, place: Path) -> None:
        place.mkdir()
        report = place / "junit.xml"
        options = ["--junitxml", str(report), "--basetemp", str(place / "files"), step.name]
        ended = self._bounded_if_time_is_left(step, [*self._pytest(), *options], self._test_seconds)
        if ended is None:
            return
        if ended.code is not None:
            step.outcome, step.why = read_report(report)
        if step.outcome == PASSED and ended.code != 0:
            step.outcome, step.why = FAILED, f"pytest ended with {ended.code}"
        if step.outcome not in (PASSED, SKIPPED):
            logs = [log.read_text(errors="replace") for log in sorted(place.rglob("log-*.txt"))]
            step.log = "\n\nThe server's log:\n".join(map(tail, [ended.output, *logs]))
        shutil.rmtree(place, ignore_errors=True)

    def _pytest(self) -> list[str]:
        # Neither this project's options nor the machine's plugins, which may be for another pytest.
        command = [self._python, "-m", "pytest", "-c", os.devnull, "--rootdir", str(KIT)]
        return [*command, "--import-mode=importlib", "-p", "no:cacheprovider", "-o", "markers=gpu"]

    def _measure(self) -> None:
        listed = self._do(
            "list the benchmarks", [self._python, "-m", "benchmarks.gpu", "--list"], needed=False
        )
        if listed.code == 0:
            self.results.benchmarks = [Step(name) for name in listed.output.split()]
        for step in self.results.benchmarks:
            if self.results.machine["missing"]:
                step.outcome, step.why = SKIPPED, self.results.machine["missing"]
            else:
                self._run_benchmark(step, self._work / f"{step.name}.json")
            self._note(step)

    def _run_benchmark(self, step: Step, figures: Path) -> None:
        command = [self._python, "-m", "benchmarks.gpu", step.name, "--json", str(figures)]
        ended = self._bounded_if_time_is_left(step, command, _BENCHMARK_SECONDS)
        if ended is not None and ended.code == 0:
            step.outcome = PASSED
            self.results.figures |= json.loads(figures.read_text())
        elif ended is not None:
            step.why = "" if ended.code is None else f"it ended with {ended.code}"
            step.log = tail(ended.output)

    def _judge(self) -> tuple[int, str]:
        steps = [*self.results.tests, *self.results.benchmarks]
        steps += [each for each in self.results.set_up if each.outcome != PASSED]
        counts = {
            name: sum(step.outcome == name for step in steps)
            for name in (PASSED, FAILED, SKIPPED, OUT_OF_TIME, NOT_RUN)
        }
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        if counts[FAILED] or counts[OUT_OF_TIME] or counts[NOT_RUN]:
            return EXIT_FAILED, told
        if self.results.machine["missing"]:
            return EXIT_NO_DEVICE, f"{self.results.machine['missing']}: {told}"
        if counts[SKIPPED]:
            return EXIT_FAILED, f"{told}, although there is a GPU"
        return EXIT_OK, told

    def _bounded_if_time_is_left(self, step: Step, command: list[str], seconds: float) -> Ended | None:
        if time.monotonic() >= self._ends:
            step.why = "the time of the whole run was over"
            return None
        ended = self._bounded(command, seconds)
        step.seconds = ended.seconds
        step.outcome = OUT_OF_TIME if ended.code is None else FAILED
        return ended

    def _bounded(self, command: list[str], seconds: float) -> Ended:
        """Run the command; it and all that it started are gone afterwards."""
        began = time.monotonic()
        seconds = min(seconds, max(1.0, self._ends - began))
        output = self._work / "output"
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        # It would come before the kit's wheels; `machine_packages` has what is in it.
        env.pop("PYTHONPATH", None)
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command,
                cwd=KIT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
            finally:
                end_session(process.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_KILL_SECONDS)
        return Ended(code, output.read_text(errors="replace"), round(time.monotonic() - began, 2))


def machine_packages() -> list[str]:
    """Where this interpreter finds packages that are not the standard library's.

    An environment made from a virtual environment sees the packages of its base alone: torch is not there.
    """
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    standard |= {f"{each}/lib-dynload" for each in standard}
    return [each for each in sys.path if Path(each).is_dir() and each not in standard and Path(each) != KIT]


def end_session(session: int) -> None:
    """Kill every process of the session, also in groups of their own, as workers are."""
    ends = time.monotonic() + _KILL_SECONDS
    while (members := session_members(session)) and time.monotonic() < ends:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def session_members(session: int) -> list[int]:
    """The pids of the session's processes that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, _group, of, *_ = path.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue  # it has just ended
        if int(of) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def read_report(path: Path) -> tuple[str, str]:
    """The outcome of the one test of a JUnit report, and why it is so."""
    try:
        case = ElementTree.parse(path).find(".//testcase")
    except (OSError, ElementTree.ParseError):
        return FAILED, "pytest left no report"
    if case is None:
        return FAILED, "pytest ran no test"
    for found in case:
        if found.tag in ("failure", "error"):
            return FAILED, found.get("message", "")[:500]
        if found.tag == "skipped":
            return SKIPPED, found.get("message", "")
    return PASSED, ""


def tail(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-_TAIL_LINES:])


def page(results: Results) -> str:
    """The results for people."""
    machine, kit = results.machine, results.kit
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    devices = ", ".join(machine.get("devices", [])) or "none"
    lines = [
        "# GPU kit",
        "",
        f"**{results.verdict}** (exit code {results.exit_code}), in {results.seconds:.0f} s.",
        "",
        f"- Started {results.started}; the kit is of flash-runtime {kit.get('revision', '(a checkout)')}",
        f"- Devices: {devices}",
        f"- torch: {machine.get('torch')}, CUDA {machine.get('cuda')}",
        f"- Python {machine.get('python', platform.python_version())}; {packages}",
        f"- {machine.get('system')}, {machine.get('processors')} processors",
        *(f"- nvidia-smi: {line}" for line in machine.get("nvidia-smi", [])),
    ]
    for title, steps in (
        ("Set-up", results.set_up),
        ("Tests", results.tests),
        ("Benchmarks", results.benchmarks),
    ):
        if steps:
            lines += ["", f"## {title}", "", "| | outcome | s | |", "|---|---|---|---|"]
            lines += [
                f"| {cell(each.name)} | {each.outcome} | {each.seconds:.1f} | {cell(each.why)} |"
                for each in steps
            ]
    for name, found in results.figures.items():
        lines += ["", f"## Figures: {name}", "", found["about"], "", found["table"]]
    for each in [*results.set_up, *results.tests, *results.benchmarks]:
        if each.log:
            lines += ["", f"## {each.outcome}: {each.name}", "", "````", each.log, "````"]
    return "\n".join([*lines, ""])


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main() -> int:
    """Run the kit as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("OUT") or "."))
    parser.add_argument("--deadline", type=float, default=540, help="seconds for all of it (default: 540)")
    parser.add_argument("--test-seconds", type=float, default=90, help="the most for one test (default: 90)")
    parser.add_argument("--environment", type=Path, help="a virtual environment to use as it is")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_FAILED))
    run = Run(options.folder.resolve(), options.deadline, options.test_seconds, options.environment)
    code = run.run()
    print(f"{run.results.verdict} (exit code {code}): see {options.folder / 'gpu-kit.md'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
