"""The importer: user modules of every kind of name, and faults that say what is wrong with them.

Each case runs in an interpreter of its own, since entering an application is for good.
"""

import json
import subprocess
import sys
import textwrap
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from flash_runtime.usercode.importer import SHARED

pytestmark = pytest.mark.smoke

PROGRAM = """
import json, logging, sys
from pathlib import Path
from flash_runtime.usercode import importer
from flash_runtime.errors import UserCodeFault
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
app, module, function, sdk = sys.argv[1:5]
try:
    importer.enter(Path(app), sdk)
    print(json.dumps({"result": importer.load(module, function)()}))
except UserCodeFault as fault:
    print(json.dumps({"what": fault.what, "where": fault.where, "remedy": fault.remedy,
                      "traceback": fault.traceback, "text": str(fault)}))
"""


@pytest.fixture
def load(tmp_path):
    """Writes files, loads a handler from them in another interpreter, and says what came of it."""

    def run(files: dict[str, str], module="main", function="handler", sdk="image") -> dict:
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path, module, function, sdk],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]) | {"log": done.stderr}

    return run


HANDLER = "def handler():\n    return __name__\n"


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("main.py", "main"),
        ("01_first.py", "01_first"),
        ("services/users.py", "services.users"),
        ("services/2fa/login.py", "services.2fa.login"),
        ("pkg/__init__.py", "pkg"),
        ("ünïcode.py", "ünïcode"),
    ],
)
def test_a_module_is_found_by_the_manifests_name(load, file, module):
    assert load({file: HANDLER}, module)["result"] == module


TEMPTING = "logger app runtime constants worker settings manifest artifact errors health server handler utils"


@pytest.mark.parametrize("name", [*TEMPTING.split(), "config", "test", "tests", "main"])
def test_a_user_module_may_have_the_names_that_a_runtime_likes(load, name):
    assert load({f"{name}.py": HANDLER}, name)["result"] == name


def test_siblings_and_vendored_packages_are_imported(load):
    files = {
        "main.py": "import vendored, helpers.text\ndef handler():\n    return [vendored.A, helpers.text.B]\n",
        "vendored/__init__.py": "A = 1\n",
        "helpers/text.py": "B = 2\n",
    }
    assert load(files)["result"] == [1, 2]


def test_a_missing_module_is_named_with_what_there_is(load):
    fault = load({"mani.py": HANDLER, "other/x.py": ""})
    assert fault["what"].startswith("There is no module `main`.")
    assert "`mani`" in fault["what"]
    assert not fault["traceback"]


def test_a_module_that_needs_a_missing_one_is_another_fault_with_the_users_traceback(load):
    fault = load({"main.py": "import helper\n" + HANDLER, "helper.py": "import numpyy\n"})
    assert fault["what"] == "Module `main` needs `numpyy`, which cannot be found."
    assert fault["where"].endswith("helper.py:1")
    assert "dependencies=['numpyy'" in fault["remedy"]
    assert ".gitignore" in fault["remedy"]  # what builds honour
    assert "main.py" in fault["traceback"]
    assert "importlib" not in fault["traceback"]
    assert fault["text"].endswith("No module named 'numpyy'")


def test_a_missing_sibling_of_the_modules_own_package_is_not_taken_for_the_module(load):
    fault = load({"pkg/__init__.py": "", "pkg/main.py": "import pkg.other\n"}, "pkg.main")
    assert fault["what"] == "Module `pkg.main` needs `pkg.other`, which cannot be found."


@pytest.mark.parametrize(
    ("source", "what", "last"),
    [
        ("def handler(:\n", "cannot be read", "SyntaxError: invalid syntax"),
        ("x = 1\n1 / 0\n", "raised ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\n", "called sys.exit('bye')", "SystemExit: bye"),
        ("raise BaseException('odd')\n", "raised BaseException", "BaseException: odd"),
        ("import json\njson.loads('{')\n", "raised JSONDecodeError", ""),
        ("def f():\n    f()\nf()\n", "raised RecursionError", ""),
    ],
)
def test_a_module_that_raises_keeps_its_traceback(load, source, what, last):
    fault = load({"main.py": source})
    assert what in fault["what"]
    assert "main.py" in fault["traceback"]
    assert last in fault["traceback"].splitlines()[-1]
    assert fault["where"].split("/")[-1].startswith("main.py:")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def handle():\n    pass\n", "Module `main` has no function `handler`. It has `handle`."),
        ("handler = 3\n", "`handler` of module `main` is not a function, but of type int."),
        ("", "It has no functions."),
    ],
)
def test_a_handler_that_is_none_is_named_with_what_the_module_has(load, source, what):
    assert what in load({"main.py": source})["what"]


def test_a_name_that_python_has_taken_is_a_fault_and_no_mystery(load):
    fault = load({"json.py": HANDLER}, "json")
    assert "taken" in fault["what"]
    assert fault["where"].endswith("json.py")


def test_the_images_sdk_wins_unless_the_artifacts_is_asked_for(load):
    files = {"runpod_flash/__init__.py": "WHOSE = 'artifact'\n"}
    files["main.py"] = (
        "import runpod_flash\ndef handler():\n    return getattr(runpod_flash, 'WHOSE', 'image')\n"
    )
    assert load(files)["result"] == "image"
    assert load(files, sdk="artifact")["result"] == "artifact"


def test_asking_for_the_artifacts_sdk_where_it_has_none_is_a_fault(load):
    assert "the artifact has none" in load({"main.py": HANDLER}, sdk="artifact")["what"]


def test_what_the_images_sdk_lacks_is_a_fault_with_the_remedy(load):
    fault = load({"main.py": "from runpod_flash import create_resource\n"})
    assert "FLASH_SDK=artifact" in fault["traceback"]


def test_the_runtimes_packages_stay_the_images_with_one_warning(load):
    files = {
        "fastapi/__init__.py": "raise RuntimeError('the artifact was imported')\n",
        "fastapi-0.1.0.dist-info/METADATA": "Name: fastapi\nVersion: 0.1.0\n",
        "starlette-0.2.0.dist-info/METADATA": "Name: starlette\nVersion: 0.2.0\n",
        "main.py": "import fastapi\ndef handler():\n    return fastapi.__version__\n",
    }
    done = load(files)
    assert done["result"] != "0.1.0"
    (warning,) = [line for line in done["log"].splitlines() if line.startswith("WARNING")]
    assert "fastapi" in warning
    assert "0.1.0" in warning
    assert "0.2.0" in warning


def test_other_packages_are_the_artifacts(load):
    files = {
        "httpx/__init__.py": "A = 'artifact'\n",
        "main.py": "import httpx\ndef handler(): return httpx.A\n",
    }
    assert load(files)["result"] == "artifact"


def test_what_the_runtime_depends_on_is_all_in_the_list():
    """Follows the requirements of the installed distributions, from this project's on."""
    found: set[str] = set()
    todo = ["flash-runtime"]
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            requirements = map(Requirement, metadata.requires(name) or [])
            todo += [each.name for each in requirements if not each.marker or each.marker.evaluate()]
    assert found == set(SHARED)
