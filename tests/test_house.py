"""The house: what the documents say is what the code does, and nothing grows past its room."""

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import hcl2
import pytest

from flash_cli import faults
from flash_runtime import __version__, errors
from flash_runtime.config import fields
from flash_runtime.config.settings import Settings

ROOT = Path(__file__).parent.parent
RUNTIME = ROOT / "runtime/flash_runtime"


def modules_of(package: Path) -> list[Path]:
    """Its modules, those of its packages too; a package's own `__init__.py` only where it has text."""
    found = sorted(
        path for path in package.rglob("*.py") if path.name != "__init__.py" or path.stat().st_size
    )
    assert len(found) > 5, package
    return found


OURS = [
    path
    for package in (RUNTIME, ROOT / "sdk/flash_cli", ROOT / "sdk/runpod_flash")
    for path in modules_of(package)
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
USERS = ("flash_manifest.json", "main.py", "/openapi.json")
"""What pages name that is not this project's."""
VARIABLE = r"`((?:FLASH|LOG|PORT|HEALTH|WEB|CUDA|NVIDIA|RUNPOD)(?:_[A-Z0-9]+)*)`"


def documented() -> dict[str, str]:
    """Each variable of docs/settings.md and its default there."""
    return {
        name: default.strip().strip("`")
        for name, default in re.findall(rf"^\| {VARIABLE} \|([^|]*)\|", SETTINGS, re.MULTILINE)
    }


def test_every_setting_is_documented_and_no_other():
    variables = fields.names(Settings)
    assert len(variables) > 40
    assert set(documented()) == set(variables)


def test_the_documented_defaults_are_the_codes():
    literal = {
        name: default
        for name, default in documented().items()
        if default and "$" not in default and " " not in default
    }
    literal["FLASH_MANIFEST_PATH"] = "/app/flash_manifest.json"
    defaults = Settings.from_environ({})
    spelled = Settings.from_environ(literal)
    assert dataclasses.replace(spelled, log_format=defaults.log_format) == defaults
    assert len(literal) > 15


def test_no_module_but_settings_reads_the_environment():
    readers = {RUNTIME / "config/settings.py", RUNTIME / "cli.py"}
    assert readers < set(modules_of(RUNTIME))
    for path in set(modules_of(RUNTIME)) - readers:
        text = path.read_text()
        assert "environ[" not in text, path
        assert not re.search(r"environ\.get\(|getenv\(", text), path


def test_every_exit_code_is_in_the_readme():
    table = (ROOT / "README.md").read_text()
    named = {**vars(errors), **vars(faults)}
    codes = {value for name, value in named.items() if name.startswith("EXIT_")}
    assert set(map(int, re.findall(r"^\| (\d\d?) \|", table, re.MULTILINE))) == codes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    for name in re.findall(r"`([\w./]+\.(?:py|json|md))`", page.read_text()):
        places = [ROOT / name, ROOT / "runtime/flash_runtime" / name]
        assert name in USERS or any(place.exists() for place in (*places, *(ROOT / "sdk").rglob(name))), name


def test_every_fault_in_the_operations_page_has_its_test():
    rows = re.findall(r"^\| .*\|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    faults = [row for row in rows if "`test_" in row]
    tests = "".join(path.read_text() for path in ROOT.glob("tests/server/test_*.py"))
    assert len(faults) > 25
    for row in faults:
        (name,) = re.findall(r"`(test_\w+)` \|$", row)
        assert f"def {name}(" in tests, name


def test_every_difference_from_the_vendors_package_has_its_test():
    text = (ROOT / "docs/moving-from-runpod-flash.md").read_text()
    rows = re.findall(r"^\| (?!There|-).*\|$", text, re.MULTILINE)
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    assert len(rows) > 40
    for row in rows:
        assert re.search(r"\| `test_\w+` \|$", row), row
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


def test_the_architecture_page_names_every_module():
    text = (ROOT / "docs/architecture.md").read_text()
    for path in modules_of(RUNTIME):
        assert path.name in text or path.name in ("__main__.py", "cli.py"), path.name


def test_nothing_outgrows_its_room():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert len((ROOT / "entrypoint.sh").read_text().splitlines()) <= 40
    for path in OURS:
        assert len(path.read_text().splitlines()) <= 400, path


def test_no_constructor_takes_more_than_six_arguments():
    """Frozen records carry as many fields as they need; `Endpoint` has the vendor's parameters."""
    seen = 0
    for path in OURS:
        for each in ast.walk(ast.parse(path.read_text())):
            if not isinstance(each, ast.ClassDef) or each.name == "Endpoint":
                continue
            for method in each.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    seen += 1
                    given = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
                    assert len(given) <= 7, f"{path}:{method.lineno}: {each.name}"  # with `self`
    assert seen > 50


def test_a_package_imports_only_from_those_below_it():
    """The contracts are in pyproject.toml; import-linter reads them, and finds cycles too."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout
    assert " 0 kept" not in done.stdout


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
    names = [dotted(path) for path in modules_of(RUNTIME) if path.stem != "__main__"]
    assert len(names) > 60
    code = "import importlib, os, sys\nbefore = sorted(os.environ), sys.path[:], sys.stdout\n"
    code += f"for name in {names}: importlib.import_module(name)\n"
    code += "assert before == (sorted(os.environ), sys.path[:], sys.stdout)\n"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_health_and_the_first_steps_of_serving_import_only_the_standard_library():
    code = "import sys; before = set(sys.modules)\n"
    code += "import flash_runtime.cli, flash_runtime.commands.health, flash_runtime.commands.serve\n"
    code += "print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages - set(sys.stdlib_module_names) == {"flash_runtime"}


def test_the_command_knows_the_worker_by_its_contract():
    allowed = {
        *("flash_runtime", "flash_runtime.cli", "flash_runtime.errors", "flash_runtime.artifact.contract"),
        *("flash_runtime.config.settings", "flash_runtime.config.fields"),
    }
    needed = set().union(*(imported_by(path) for path in modules_of(ROOT / "sdk/flash_cli")))
    assert {name for name in needed if name.startswith("flash_runtime")} <= allowed
    assert "flash_runtime.artifact.contract" in needed


def test_modules_import_each_other_in_one_direction():
    """No module is imported by one that it imports, however deep, also not inside of a function."""
    imports = {dotted(path): imported_by(path) for path in OURS}
    assert sum(map(len, imports.values())) > 300
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for each in imports.get(name, ()):
                follow(each, (*way, name))
            done.add(name)

    for name in imports:
        follow(name, ())


def dotted(path: Path) -> str:
    """The module's name, as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    """The modules of ours that the file imports, anywhere in it, but for type checkers alone."""
    names = set(map(dotted, OURS))
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{each.name}" for each in node.names}
            found |= whole & names or {node.module}
    return found & names - {dotted(path)}
