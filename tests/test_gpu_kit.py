"""The GPU kit's script: results are written whatever happens. With small kits, and a stand-in for torch."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpu_kit import pack, run
from tests.serving import until

PASSES = "def test_passes(): pass\n"
SKIPS = "import pytest\ndef test_skips(): pytest.skip('there is nothing here')\n"
FAILS = """
def test_fails(tmp_path):
    (tmp_path / "log-1.txt").write_text("what the server said")
    assert 1 == 2, "one is not two"
"""
HANGS = """
import pathlib, subprocess, time
def test_hangs():
    # In a group of its own, as a worker is.
    child = subprocess.Popen(["sleep", "600"], process_group=0)
    pathlib.Path("child").write_text(str(child.pid))
    time.sleep(600)
"""
IS_BROKEN = "import nothing_that_there_is\n"
ENDS = "import os\ndef test_ends_its_process(): os._exit(0)\n"
TORCH = """
__version__ = "9"
class version:
    cuda = "99"
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda number: "a device")
"""
BENCHMARKS = """
import json, pathlib, sys
if sys.argv[1] == "--list":
    print("fast\\nbroken" if pathlib.Path("broken").exists() else "fast")
elif sys.argv[1] == "fast":
    found = {"fast": {"about": "How fast.", "rows": [{"s": 0.5}], "table": "| s |\\n|---|\\n| 0.5 |"}}
    pathlib.Path(sys.argv[3]).write_text(json.dumps(found))
else:
    sys.exit("it measured nothing")
"""


@dataclass
class Kit:
    """A kit with the script as it is, and what it runs made up."""

    folder: Path
    results: Path

    def start(self, *options: str, own_environment: bool = False) -> subprocess.Popen[str]:
        environment = [] if own_environment else ["--environment", sys.prefix]
        command = [sys.executable, self.folder / "run.py", self.results, *environment, *options]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *options: str, own_environment: bool = False) -> int:
        """Its exit code, which the results must have too."""
        process = self.start(*options, own_environment=own_environment)
        output, _ = process.communicate(timeout=60)
        assert self.read()["exit_code"] == process.returncode, output
        return process.returncode

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.results / "gpu-kit.json").read_text())
        return found

    def page(self) -> str:
        return (self.results / "gpu-kit.md").read_text()

    def child_is_gone(self) -> None:
        """What a test that hangs has started must end with it."""
        child = Path("/proc") / (self.folder / "child").read_text()
        until(lambda: not child.exists(), "the test's child is gone")

    def outcomes(self) -> dict[str, str]:
        steps = [*self.read()["tests"], *self.read()["benchmarks"]]
        return {each["name"].rpartition("::")[2]: each["outcome"] for each in steps}


@pytest.fixture
def kit(tmp_path):
    def make(*tests: str, torch: str = TORCH) -> Kit:
        folder = tmp_path / "kit"
        (folder / "tests/gpu").mkdir(parents=True)
        (folder / "benchmarks").mkdir()
        shutil.copyfile(Path(run.__file__), folder / "run.py")
        (folder / "torch.py").write_text(torch)
        (folder / "benchmarks/gpu.py").write_text(BENCHMARKS)
        for number, source in enumerate(tests):
            (folder / f"tests/gpu/test_{number}.py").write_text(source)
        return Kit(folder, tmp_path / "results")

    return make


def test_where_all_passes_the_code_is_0_and_both_files_have_outcomes_figures_and_device(kit):
    made = kit(PASSES)
    assert made.run() == 0
    assert made.outcomes() == {"test_passes": "passed", "fast": "passed"}
    found = made.read()
    assert found["figures"]["fast"]["rows"] == [{"s": 0.5}]
    assert (found["machine"]["torch"], found["machine"]["devices"]) == ("9", ["a device"])
    for text in ("**2 passed**", "a device", "test_passes", "| 0.5 |"):
        assert text in made.page()
    assert sorted(path.name for path in made.results.iterdir()) == ["gpu-kit.json", "gpu-kit.md"]


def test_results_are_written_where_tests_fail_hang_or_end_their_process_and_the_rest_is_run(kit):
    made = kit(FAILS, HANGS, IS_BROKEN, ENDS, PASSES)
    (made.folder / "broken").touch()
    assert made.run("--test-seconds", "5") == 1
    assert made.outcomes() == {
        "test_fails": "failed",
        "test_hangs": "out of time",
        "test_ends_its_process": "failed",
        "test_passes": "passed",
        "fast": "passed",
        "broken": "failed",
    }
    for text in (
        "one is not two",
        "what the server said",
        "pytest left no report",
        "it measured nothing",
        "nothing_that",
    ):
        assert text in made.page()
    made.child_is_gone()


def test_what_the_runs_time_does_not_reach_is_not_run_and_is_named(kit):
    made = kit(HANGS, PASSES)
    began = time.monotonic()
    assert made.run("--deadline", "8") == 1
    assert time.monotonic() - began < 20
    assert made.outcomes() == {"test_hangs": "out of time", "test_passes": "not run", "fast": "not run"}
    assert "the time of the whole run was over" in made.page()


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        ("raise ImportError('it is broken')", "torch cannot be imported: it is broken"),
        (TORCH.replace("True", "False"), "torch finds no GPU that it can use"),
    ],
    ids=["no torch", "no device"],
)
def test_without_torch_or_a_device_the_code_is_69_and_the_results_say_why(kit, torch, why):
    made = kit(SKIPS, torch=torch)
    assert made.run() == 69
    assert made.outcomes() == {"test_skips": "skipped", "fast": "skipped"}
    assert why in made.read()["verdict"]
    assert "there is nothing here" in made.page()


def test_a_test_that_is_skipped_although_there_is_a_device_is_not_success(kit):
    made = kit(PASSES, SKIPS)
    assert made.run() == 1
    assert "although there is a GPU" in made.read()["verdict"]


def test_a_kit_for_another_python_is_70_and_says_for_which(kit):
    made = kit(PASSES)
    (made.folder / "kit.json").write_text('{"python": "3.9", "revision": "1"}')
    assert made.run() == 70
    assert "the kit is for Python 3.9" in made.page()


def test_wheels_that_cannot_be_installed_are_70_with_the_end_of_what_was_printed(kit):
    made = kit(PASSES)
    (made.folder / "wheels").mkdir()
    (made.folder / "wheels/pip-1-py3-none-any.whl").write_text("no archive")
    assert made.run(own_environment=True) == 70
    assert "install the kit's wheels: failed" in made.read()["verdict"]
    assert "no archive" in made.page() or "pip-1-py3-none-any.whl" in made.page()


def test_a_kit_that_is_stopped_writes_what_it_has_and_leaves_no_process(kit):
    made = kit(PASSES, HANGS)
    process = made.start()
    child = made.folder / "child"
    until(lambda: child.exists() and child.read_text(), "the second test runs")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == made.read()["exit_code"] == 1
    assert made.read()["verdict"] == "was stopped"
    assert made.outcomes()["test_passes"] == "passed"
    made.child_is_gone()


def test_packages_of_a_virtual_environment_that_runs_the_kit_are_the_machines_too(tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    other = tmp_path / "on PYTHONPATH"
    other.mkdir()
    code = f"import sys; sys.path.append({os.fspath(Path(run.__file__).parent)!r})\n"
    code += "import run; print(run.machine_packages())"
    command = [tmp_path / "venv/bin/python", "-c", code]
    environ = {**os.environ, "PYTHONPATH": str(other)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert repr(str(packages)) in done.stdout
    assert repr(str(other)) in done.stdout
    assert "lib-dynload" not in done.stdout


def test_the_wheels_are_those_that_hold_for_the_kits_python_on_linux():
    locked = """
# made by uv
always==1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
older==2 ; python_full_version < '3.12' \\
    --hash=sha256:cc
newer==3 ; python_full_version >= '3.12' and sys_platform != 'win32' \\
    --hash=sha256:dd
windows==4 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""
    assert pack.chosen(locked, "3.12").splitlines() == [
        "always==1 --hash=sha256:aa --hash=sha256:bb",
        "newer==3 --hash=sha256:dd",
    ]
    assert "older==2 --hash=sha256:cc" in pack.chosen(locked, "3.11")


def test_the_kit_has_every_module_that_its_tests_and_benchmarks_import():
    found = pack.needed(pack.SOURCES)
    assert {"benchmarks/gpu.py", "tests/gpu/conftest.py", "tests/serving.py"} < set(found)
    for source in found:
        text = (pack.ROOT / source).read_text()
        assert not re.search(r"^\s*(from|import) flash_runtime", text, re.MULTILINE), source
