"""The house: nothing grows past its room, and what is said in several places is the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import hcl2
import pytest

from flash_runtime import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_no_module_but_settings_reads_the_environment():
    for path in ROOT.glob("runtime/flash_runtime/*.py"):
        text = path.read_text()
        if path.name not in ("settings.py", "variables.py", "cli.py"):
            assert "environ[" not in text, path
            assert not re.search(r"environ\.get\(|getenv\(", text), path


def test_nothing_outgrows_its_room():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert len((ROOT / "entrypoint.sh").read_text().splitlines()) <= 40
    for path in [*ROOT.glob("runtime/**/*.py"), *ROOT.glob("sdk/**/*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_versions_agree():
    assert PROJECT["project"]["version"] == __version__
    pinned = re.search(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    locked = re.search(r'name = "uv"\nversion = "([^"]+)"', (ROOT / "uv.lock").read_text())
    assert pinned
    assert locked
    assert pinned[1] == locked[1]
    for name in ("Dockerfile", "Dockerfile.cpu"):
        arguments = arguments_of(name)
        assert arguments["UV_VERSION"] == locked[1], name
        assert arguments["VERSION"] == __version__, name
    assert hcl("docker-bake.hcl", "variable", "VERSION")["default"].strip('"') == __version__


def arguments_of(dockerfile: str) -> dict[str, str]:
    """A Dockerfile's ARGs that have a default."""
    return dict(re.findall(r"^ARG (\w+)=(.*)$", (ROOT / dockerfile).read_text(), re.MULTILINE))


def hcl(name: str, kind: str, label: str) -> dict[str, Any]:
    """One block of an HCL file."""
    blocks = hcl2.loads((ROOT / name).read_text())[kind]
    found: dict[str, Any] = next(block[f'"{label}"'] for block in blocks if f'"{label}"' in block)
    return found


def test_the_images_support_the_pythons_that_the_project_does():
    classified = {line.rsplit(" ", 1)[1] for line in PROJECT["project"]["classifiers"] if ":: 3." in line}
    supported = re.search(r'^SUPPORTED="(.+)"$', (ROOT / "image/check-build.sh").read_text(), re.MULTILINE)
    assert supported
    assert set(supported[1].split()) == classified


def test_both_dockerfiles_have_the_same_body():
    first = "# From here on, the same"
    bodies = [(ROOT / name).read_text().partition(first)[2] for name in ("Dockerfile", "Dockerfile.cpu")]
    assert bodies[0] == bodies[1]
    assert "ENTRYPOINT" in bodies[0]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_what_bake_builds_is_what_make_builds(target):
    baked = hcl("docker-bake.hcl", "target", target)
    given = {**hcl("docker-bake.hcl", "target", "runtime")["args"], **baked["args"]}
    dockerfile = baked["dockerfile"].strip('"')
    makefile = (ROOT / "Makefile").read_text()
    assert f"$(call build,{target},{dockerfile})" in makefile
    recipe = makefile.partition("define build")[2].partition("endef")[0]
    assert set(re.findall(r"--build-arg (\w+)=", recipe)) == set(given)
    assert set(given) <= set(re.findall(r"^ARG (\w+)", (ROOT / dockerfile).read_text(), re.MULTILINE))
    assert baked["tags"] == [f'"${{IMAGE}}:{target}"', f'"${{IMAGE}}:${{VERSION}}-{target}"']


def test_importing_a_module_of_ours_does_nothing():
    names = [path.stem for path in ROOT.glob("runtime/flash_runtime/*.py") if path.stem != "__main__"]
    code = "import importlib, os, sys\nbefore = sorted(os.environ), sys.path[:], sys.stdout\n"
    code += f"for name in {names}: importlib.import_module(f'flash_runtime.{{name}}')\n"
    code += "assert before == (sorted(os.environ), sys.path[:], sys.stdout)\n"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_health_and_the_first_steps_of_serving_import_only_the_standard_library():
    code = "import sys; before = set(sys.modules)\n"
    code += "import flash_runtime.cli, flash_runtime.probe, flash_runtime.serve\n"
    code += "print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages - set(sys.stdlib_module_names) == {"flash_runtime"}


def test_modules_import_each_other_in_one_direction():
    """No module is imported by one that it imports, however deep."""
    imports = {
        path.stem: set(re.findall(r"^\s*from flash_runtime\.(\w+) import", path.read_text(), re.MULTILINE))
        | {
            name.split(" as ")[0].strip()
            for line in re.findall(r"^\s*from flash_runtime import (.+)$", path.read_text(), re.MULTILINE)
            for name in line.split(",")
        }
        for path in ROOT.glob("runtime/flash_runtime/*.py")
    }

    def reaches(name: str, seen: tuple[str, ...]) -> None:
        assert name not in seen, " -> ".join((*seen, name))
        for each in imports.get(name, ()):
            reaches(each, (*seen, name))

    for name in imports:
        reaches(name, ())
