"""`flash build`: an artifact that says nothing of who made it, and that the worker serves."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jsonschema
import pytest

from flash_cli.building.build import BuildOptions, build
from flash_cli.faults import ConfigFault, DependencyFault, OutputFault, SourceFault
from flash_cli.project import Project
from tests.authoring.projects import HELLO, write
from tests.serving import USER_CODE, run, serve

ROOT = Path(__file__).parents[2]
FLASH = Path(sys.executable).parent / "flash"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def flash(*arguments, directory, **variables):
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [FLASH, *arguments],
        cwd=directory,
        env={**environ, "UV_PYTHON_DOWNLOADS": "never", **variables},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def names(artifact):
    with tarfile.open(artifact) as tar:
        return tar.getnames()


def test_the_same_project_gives_the_same_bytes_wherever_and_whenever_it_is_built(tmp_path):
    files = {"main.py": HELLO, "data/b.txt": "b", "data/a.txt": "a" * 100_000, "run.sh": "#!/bin/sh\n"}
    files["pyproject.toml"] = '[project]\nname = "hello"\n'
    first = write(tmp_path / "first", files)
    (tmp_path / "first" / "run.sh").chmod(0o755)
    one = build(first).artifact.read_bytes()
    old = os.umask(0o077)
    try:
        second = write(tmp_path / "elsewhere" / "second", dict(reversed(files.items())))
        (second.root / "run.sh").chmod(0o700)
        for file in second.files():
            os.utime(second.root / file, (time.time() - 1e7, 1e9))
        two = build(second, BuildOptions(output="other.tar.gz")).artifact
    finally:
        os.umask(old)
    assert two.read_bytes() == one
    assert build(second).artifact.read_bytes() == one


def test_the_artifact_has_no_trace_of_its_maker(tmp_path):
    project = write(tmp_path, {"main.py": HELLO, "pkg/__init__.py": "", "run.sh": ""})
    (tmp_path / "run.sh").chmod(0o700)
    artifact = build(project).artifact
    with tarfile.open(artifact) as tar:
        members = tar.getmembers()
    assert [each.name for each in members] == [
        "flash_manifest.json",
        "main.py",
        "pkg",
        "pkg/__init__.py",
        "run.sh",
    ]
    assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members} == {
        (0, 0, "", "", 0)
    }
    assert [oct(each.mode) for each in members] == ["0o644", "0o644", "0o755", "0o644", "0o755"]
    head = artifact.read_bytes()[:10]
    assert head[3] == 0  # no name
    assert head[4:8] == bytes(4)  # no time
    assert str(tmp_path).encode() not in gzip.decompress(artifact.read_bytes())


def test_source_date_epoch_is_the_time_of_every_file(tmp_path):
    write(tmp_path, {"main.py": HELLO})
    done = flash("build", directory=tmp_path, SOURCE_DATE_EPOCH="1700000000")
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / ".flash" / "artifact.tar.gz") as tar:
        assert {each.mtime for each in tar.getmembers()} == {1_700_000_000}
    done = flash("build", directory=tmp_path, SOURCE_DATE_EPOCH="yesterday")
    assert (done.returncode, "Traceback" in done.stderr) == (78, False)


def test_the_worker_serves_what_was_built(tmp_path):
    write(tmp_path / "project", {"main.py": HELLO, "pyproject.toml": '[project]\nname = "hello"\n'})
    done = flash("build", "--python-version", PYTHON, directory=tmp_path / "project")
    assert done.returncode == 0, done.stderr
    artifact = tmp_path / "project" / ".flash" / "artifact.tar.gz"
    settings = {"FLASH_BUILD_ARTIFACT_PATH": artifact, "FLASH_APP_DIR": tmp_path / "app"}
    with serve(tmp_path, FLASH_WORKERS=1, **settings) as server:
        assert server.client.get("/hello").json() == {"hello": "world"}
    checked = run("check", FLASH_APP_DIR=tmp_path / "project" / ".flash" / ".build")
    assert (checked.returncode, "/hello" in checked.stdout) == (0, True), checked.stderr


@pytest.mark.parametrize(
    "source", [*ROOT.glob("examples/*"), *USER_CODE.glob("*")], ids=lambda path: path.name
)
def test_the_manifest_is_what_the_published_schema_accepts(tmp_path, source):
    from flash_cli.building.manifest import manifest_of
    from flash_cli.discovery.discover import discover

    manifest = manifest_of(discover(Project.find(source)), "3.12")
    jsonschema.validate(manifest, json.loads((ROOT / "manifest_schema.json").read_text()))


def test_dependencies_are_installed_for_the_image_and_what_it_has_is_left_out(tmp_path):
    main = HELLO.replace('cpu3c-1-2"', 'cpu3c-1-2", dependencies=["markupsafe==3.0.2", "fastapi", "torch"]')
    project = write(tmp_path, {"main.py": main})
    steps = []
    built = build(project, BuildOptions(python="3.12", platform="linux/arm64"), steps.append)
    assert built.packages == ("markupsafe==3.0.2",)
    assert "markupsafe/_speedups.cpython-312-aarch64-linux-gnu.so" in names(built.artifact)
    assert not [name for name in names(built.artifact) if name.startswith(("fastapi", "torch", "starlette"))]
    assert built.notes == ("left out, since the image provides them: fastapi, torch",)
    assert steps == [
        "resolving 3 dependencies for Python 3.12 on linux/arm64",
        "installing 1 package",
        "packing",
    ]


def test_packages_bring_nothing_of_this_machine_into_the_artifact(tmp_path):
    # It has a script in bin/, which begins with the path of this Python.
    files = {"main.py": HELLO, "requirements.txt": "# the parser\ntabulate==0.9.0  # small\n-e .\n"}
    one, two = (build(write(tmp_path / each / "app", files)).artifact for each in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    found = names(one)
    assert "tabulate/__init__.py" in found
    assert not {".lock", "bin"} & set(found)
    with tarfile.open(one) as tar:
        record = tar.extractfile("tabulate-0.9.0.dist-info/RECORD").read().decode()
    assert {line.partition(",")[0] for line in record.splitlines()} <= set(found)


def test_the_projects_dependencies_and_every_other_place_are_asked_for(tmp_path):
    from flash_cli.building.dependencies import wanted
    from flash_cli.discovery.discover import discover

    files = {
        "main.py": HELLO.replace('cpu3c-1-2"', 'cpu3c-1-2", dependencies=["b"]'),
        "pyproject.toml": '[project]\nname = "a"\ndependencies = ["a>=1"]\n',
        "requirements.txt": "c\n\n# d\n--index-url https://example.invalid/simple\ne[x]>=1  # why\n",
    }
    project = write(tmp_path, files)
    found = [(each.text, each.origin) for each in wanted(project, discover(project))]
    assert found == [
        *(("a>=1", "pyproject.toml"), ("b", "main.py:3"), ("c", "requirements.txt:1")),
        ("--index-url https://example.invalid/simple", "requirements.txt:4"),
        ("e[x]>=1", "requirements.txt:5"),
    ]


@pytest.mark.parametrize(
    ("requirements", "where", "reason"),
    [
        ("markupsafe==3.0.2\nno-such-package-by-us\n", "requirements.txt:2", "was not found"),
        ("docopt==0.6.2\n", "requirements.txt:1", "no usable wheels"),
        ("markupsafe==3.0.2\nmarkupsafe==3.0.1\n", "requirements.txt:1, requirements.txt:2", "unsatisfiable"),
        ("not a requirement\n", "requirements.txt:1", "Couldn't parse"),
        ("../library\n", "requirements.txt:1", "The directory ../library cannot be installed"),
    ],
)
def test_a_dependency_that_cannot_be_had_is_a_fault_with_its_place_and_uvs_reason(
    tmp_path, requirements, where, reason
):
    (tmp_path / "library").mkdir()
    project = write(tmp_path / "project", {"main.py": HELLO, "requirements.txt": requirements})
    with pytest.raises(DependencyFault) as caught:
        build(project)
    assert caught.value.where == where
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 24
    assert not (project.root / ".flash" / "artifact.tar.gz").exists()


def test_a_module_with_the_name_of_a_package_is_a_fault(tmp_path):
    project = write(
        tmp_path, {"main.py": HELLO, "markupsafe.py": "", "requirements.txt": "markupsafe==3.0.2"}
    )
    with pytest.raises(DependencyFault, match="have the same name: markupsafe"):
        build(project)


def test_a_failed_build_leaves_the_last_one_as_it_was(tmp_path):
    project = write(tmp_path, {"main.py": HELLO})
    before = build(project).artifact.read_bytes()
    (tmp_path / "main.py").write_text("(")
    with pytest.raises(SourceFault):
        build(Project.find(tmp_path))
    assert (tmp_path / ".flash" / "artifact.tar.gz").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / ".flash").iterdir()) == [
        ".build",
        ".gitignore",
        "artifact.tar.gz",
    ]


def test_a_place_that_cannot_be_written_to_is_a_fault(tmp_path):
    (tmp_path / ".flash").write_text("a file where the directory should be")
    with pytest.raises(OutputFault) as caught:
        build(write(tmp_path, {"main.py": HELLO}))
    assert caught.value.where == f"{tmp_path}/.flash"
    with pytest.raises(OutputFault):
        build(write(tmp_path / "b", {"main.py": HELLO}), BuildOptions(output="/proc/no/a.tar.gz"))


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (BuildOptions(python="3.9"), "--python-version"),
        (BuildOptions(platform="windows/amd64"), "--platform"),
        (BuildOptions(output=".."), "--output"),
    ],
)
def test_an_option_that_no_image_fits_is_a_fault_that_lists_what_does(tmp_path, options, where):
    with pytest.raises(ConfigFault) as caught:
        build(write(tmp_path, {"main.py": HELLO}), options)
    assert (caught.value.where, bool(caught.value.remedy)) == (where, True)


def test_links_and_system_packages_are_noted(tmp_path):
    main = HELLO.replace('cpu3c-1-2"', 'cpu3c-1-2", system_dependencies=["ffmpeg"]')
    project = write(tmp_path / "p", {"main.py": main})
    (tmp_path / "p" / "weights").symlink_to("/etc")
    assert build(project).notes == (
        "hello needs system packages, which only an image can provide: ffmpeg",
        "left out, since these links lead out of the project: weights",
    )


def test_the_command_ends_with_the_endpoints_their_routes_the_size_and_what_to_do_next(tmp_path):
    write(tmp_path, {"main.py": HELLO})
    done = flash("build", directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert ["hello", "load-balanced,", "CPU", "GET", "/hello", "main.hello"] in lines
    assert any(line[0] == ".flash/artifact.tar.gz" for line in lines)
    assert lines[-1][:3] == ["next:", "docker", "run"]
    configured = '[tool.flash.env.production]\ntarget = "docker"\n'
    (tmp_path / "pyproject.toml").write_text(configured)
    assert flash("build", directory=tmp_path).stdout.endswith("next: flash deploy --env production\n")


def test_the_command_tells_a_fault_without_a_traceback_and_with_its_code(tmp_path):
    done = flash("build", directory=tmp_path)
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith("flash: No endpoint was found in 0 Python files.\n  where: ")


WATCHED_BUILD = """
import sys

parsed, started = [], []

def watch(event, arguments):
    if event == "compile" and isinstance(arguments[0], bytes) and arguments[0].startswith(b"raise"):
        parsed.append(arguments[0])
    elif event == "subprocess.Popen":
        started.append(arguments[0])

sys.addaudithook(watch)
sys.argv = ["flash", "build"]
from flash_cli.main import main
try:
    main()
except SystemExit as end:
    code = end.code
names = {name.partition(".")[0] for name in sys.modules}
print(code, len(parsed), len(started), *sorted(names & {"httpx", "docker", "fastapi", "package"}))
"""


def test_a_build_parses_each_file_once_imports_none_and_starts_no_process(tmp_path):
    """What lets it build hundreds of files in a moment; `make bench-authoring` has the moment."""
    files = {f"package/module_{n}.py": f"raise RuntimeError\nnumber = {n}\n" for n in range(20)}
    write(tmp_path, {"main.py": HELLO, **files})
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_BUILD],
        cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0 20 0"
