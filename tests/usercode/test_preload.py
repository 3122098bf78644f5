"""Preloading: what of it leaves the process unfit to be forked, each case in an interpreter of its own."""

import json
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import json, logging, os, sys
from pathlib import Path
from flash_runtime.errors import UserCodeFault
from flash_runtime.usercode.preload import preload
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
app, names, device = sys.argv[1:4]
path, finders = sys.path[:], sys.meta_path[:]
try:
    preload(tuple(names.split(",")), Path(app), "image", device)
    text = None
except UserCodeFault as fault:
    text = str(fault)
print(json.dumps({"fault": text, "loaded": [name for name in names.split(",") if name in sys.modules],
                  "path": app in sys.path or finders != sys.meta_path}), flush=True)
os._exit(0)
"""


@pytest.fixture
def preload(tmp_path):
    """Writes modules, preloads those named, and says what came of it."""

    def run(modules: dict[str, str], names: str) -> dict:
        app = tmp_path / "app"
        app.mkdir()
        for name, source in modules.items():
            (app / f"{name}.py").write_text(textwrap.dedent(source))
        (tmp_path / "device").touch()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, app, names, tmp_path / "device"],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]) | {"log": done.stderr}

    return run


TORCH = """
    class cuda:
        ready = False
        def is_initialized():
            return cuda.ready
"""


def test_modules_of_the_application_are_imported_and_its_directory_leaves_the_path_again(preload):
    found = preload({"one": "", "two": "import one"}, "two,json.tool")
    assert found == {"fault": None, "loaded": ["two", "json.tool"], "path": False, "log": ""}


def test_a_finder_that_a_module_has_installed_stays(preload):
    module = "import sys\nclass Finder:\n    def find_spec(*_): pass\nsys.meta_path.append(Finder)\n"
    assert preload({"six_like": module}, "six_like")["path"] is True


def test_a_module_that_has_torch_initialise_cuda_is_named_with_the_remedy(preload):
    user = "import torch\ntorch.cuda.ready = True\n"
    found = preload({"torch": TORCH, "fine": "import torch", "greedy": user}, "fine,greedy")
    assert "`greedy`, whose import initialised CUDA" in found["fault"]
    assert "FLASH_PRELOAD" in found["fault"]
    assert "import `greedy` in the handler's module" in found["fault"]


def test_a_module_that_keeps_the_cuda_device_open_is_refused_without_torch(preload, tmp_path):
    found = preload({"greedy": f"file = open({str(tmp_path / 'device')!r})"}, "greedy")
    assert "`greedy`, whose import initialised CUDA" in found["fault"]


def test_a_module_that_only_looks_at_the_device_is_not_refused(preload, tmp_path):
    assert preload({"looks": f"open({str(tmp_path / 'device')!r}).close()"}, "looks")["fault"] is None


THREAD = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux tells of them")
def test_threads_that_an_import_leaves_behind_are_warned_of_with_the_modules_name(preload):
    found = preload({"busy": THREAD, "idle": ""}, "idle,busy")
    assert found["fault"] is None
    assert found["log"].startswith("WARNING FLASH_PRELOAD: the import of `busy` left threads running")


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux tells of them")
def test_threads_that_end_at_a_fork_are_not_warned_of(preload):
    careful = """
        import os, threading
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        os.register_at_fork(before=lambda: (stop.set(), thread.join()))
    """
    assert preload({"careful": careful}, "careful")["log"] == ""
