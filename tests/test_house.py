"""The house: nothing grows past its room, and what is said in several places is the same."""

import ast
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


def test_no_module_but_settings_reads_the_environment():
    readers = {RUNTIME / "config/settings.py", RUNTIME / "cli.py"}
    assert readers < set(modules_of(RUNTIME))
    for path in set(modules_of(RUNTIME)) - readers:
        text = path.read_text()
        assert "environ[" not in text, path
        assert not re.search(r"environ\.get\(|getenv\(", text), path


def test_nothing_outgrows_its_room():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert len((ROOT / "entrypoint.sh").read_text().splitlines()) <= 40
    for path in OURS:
        assert len(path.read_text().splitlines()) <= 400, path


FOREIGN = {
    "runtime/flash_runtime/artifact/tarball.py": {"tar.members"},
    "runtime/flash_runtime/dispatch/threads.py": {"raised.__cause__"},
    "runtime/flash_runtime/handlers/signature.py": {
        f"endpoint.__{name}__" for name in ("name", "doc", "module", "signature")
    },
    "runtime/flash_runtime/logs/prints.py": {"sys.stdout", "sys.stderr"},
    "runtime/flash_runtime/worker/loading.py": {"Endpoint.__call__", "Endpoint.stand_in"},
    "runtime/flash_runtime/rpc/stub_classes.py": {f"Stub.__{name}__" for name in ("name", "qualname", "doc")},
    "runtime/flash_runtime/logs/setup.py": {
        "own.handlers",
        "own.propagate",
        "logging.getLogger(name).disabled",
    },
}
"""Attributes of others' objects that have no method for it: Python's, and the vendor's SDK's."""


def assigned_in(node: ast.AST, *names: str) -> list[ast.Attribute]:
    """The attributes of these names' objects that the code below the node assigns."""
    return [
        each
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id in names
    ]


def declared_by(class_: ast.ClassDef) -> set[str]:
    """The attributes that a class declares in its body, or assigns in `__init__`."""
    found: set[str] = set()
    for each in class_.body:
        if isinstance(each, ast.AnnAssign):
            found.add(ast.unparse(each.target))
        elif isinstance(each, ast.Assign):
            found |= {ast.unparse(target) for target in each.targets}
        elif isinstance(each, ast.FunctionDef) and each.name == "__init__":
            found |= {attribute.attr for attribute in assigned_in(each, "self")}
        elif isinstance(each, ast.FunctionDef) and each.decorator_list:
            found.add(each.name)  # a property may have a setter
    return found


def test_no_attribute_appears_after_the_constructor():
    classes = [
        (path, each)
        for path in OURS
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.ClassDef)
    ]
    assert len(classes) > 100
    for path, class_ in classes:
        late = {each.attr for each in assigned_in(class_, "self")} - declared_by(class_)
        assert not late, f"{path}: {class_.name}: {late}"


def test_no_module_of_the_worker_assigns_attributes_of_others_objects():
    """An object's own methods change it. The scoreboard alone writes to structures of shared memory."""
    for path in modules_of(RUNTIME):
        name = str(path.relative_to(ROOT))
        if name == "runtime/flash_runtime/monitoring/scoreboard.py":
            continue
        foreign = {
            ast.unparse(each)
            for each in ast.walk(ast.parse(path.read_text()))
            if isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and ast.unparse(each.value) not in ("self", "cls", "self._board")
        }
        assert foreign <= FOREIGN.get(name, set()), name


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
