"""The project: where it is, what it is called, and which files are the application's."""

import os

import pytest

from flash_cli.faults import ConfigFault
from flash_cli.project import Project
from tests.authoring.projects import write


def test_its_name_is_that_of_pyproject_and_else_the_directorys(tmp_path):
    assert write(tmp_path / "shop", {"pyproject.toml": '[project]\nname = "till"\n'}).name == "till"
    assert write(tmp_path / "hello", {"main.py": ""}).name == "hello"


def test_its_configuration_is_tool_flash(tmp_path):
    project = write(tmp_path, {"pyproject.toml": '[tool.flash.env.production]\ntarget = "docker"\n'})
    assert project.config == {"env": {"production": {"target": "docker"}}}


def test_it_is_the_directory_that_is_given_and_none_above(tmp_path):
    write(tmp_path, {"pyproject.toml": '[project]\nname = "monorepo"\n', "apps/a/main.py": ""})
    assert Project.find(tmp_path / "apps" / "a").name == "a"


def test_toml_that_is_none_is_a_fault_with_its_line(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        write(tmp_path, {"pyproject.toml": '[project]\nname = "a"\nversion = \n'})
    assert caught.value.where == f"{tmp_path}/pyproject.toml:3"


@pytest.mark.parametrize(
    "text",
    [
        "project = 1",
        "[project]\nname = 3",
        "[tool]\nflash = 1",
        "tool = []",
        "[project]\ndependencies = 'numpy'",
        b"\xff",
    ],
)
def test_a_pyproject_of_the_wrong_shape_is_a_fault_that_names_the_file(tmp_path, text):
    with pytest.raises(ConfigFault) as caught:
        write(tmp_path, {"pyproject.toml": text})
    assert caught.value.where == f"{tmp_path}/pyproject.toml"
    assert caught.value.remedy


def test_a_directory_that_is_none_is_a_fault(tmp_path):
    with pytest.raises(ConfigFault, match="no such directory"):
        Project.find(tmp_path / "nowhere")


def test_every_gitignore_counts_and_the_nearest_most(tmp_path):
    names = ["main.py", "data.bin", "keep.bin", "sub/other.bin", "sub/wanted.bin", "sub/deep/wanted.bin"]
    names += ["build_output/x.py", "sub/only_here.txt", "only_here.txt"]
    ignores = {
        ".gitignore": "*.bin\n!/keep.bin\nbuild_output/\n",
        "sub/.gitignore": "!wanted.bin\n/only_here.txt\n",
    }
    project = write(tmp_path, dict.fromkeys(names, "") | ignores)
    assert project.files() == (
        "keep.bin",
        "main.py",
        "only_here.txt",
        "sub/deep/wanted.bin",
        "sub/wanted.bin",
    )


def test_an_ignored_directory_is_not_looked_into(tmp_path):
    project = write(
        tmp_path, {".gitignore": "secret/\n", "secret/.gitignore": "!*\n", "secret/a.py": "", "b.py": ""}
    )
    assert project.files() == ("b.py",)


def test_what_no_worker_needs_is_left_out(tmp_path):
    out = [
        ".git/config",
        "vendored/.git",
        ".flash/artifact.tar.gz",
        "flash_manifest.json",
        ".env",
        ".env.production",
        "a.pyc",
    ]
    out += [
        "__pycache__/a.cpython-312.pyc",
        ".venv/x.py",
        "myenv/pyvenv.cfg",
        "myenv/lib/x.py",
        "node_modules/x.js",
    ]
    out += [
        "tests/test_a.py",
        "test_a.py",
        "a_test.py",
        "docs/a.txt",
        "NOTES.md",
        ".pytest_cache/x",
        "a.tar.gz",
    ]
    kept = ["README.md", "main.py", "data/flash_manifest.json", "environment.py"]
    assert write(tmp_path, dict.fromkeys(out + kept, "")).files() == tuple(sorted(kept))


def test_a_gitignore_can_bring_back_what_is_seldom_wanted_and_never_a_secret(tmp_path):
    ignore = {".gitignore": "!docs/\n!.env\n!.git/\n"}
    project = write(tmp_path, {"docs/a.txt": "", ".env": "KEY=1", ".git/config": "", "main.py": "", **ignore})
    assert project.files() == ("docs/a.txt", "main.py")


def test_a_link_is_followed_within_the_project_and_never_out_of_it(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "key.pem").write_text("secret")
    root = tmp_path / "project"
    write(root, {"main.py": "", "data/a.txt": ""})
    (root / "copy.py").symlink_to("main.py")
    (root / "mirror").symlink_to("data")
    (root / "data" / "loop").symlink_to("..")
    (root / "stolen").symlink_to(tmp_path / "outside")
    (root / "key.pem").symlink_to(tmp_path / "outside" / "key.pem")
    (root / "gone").symlink_to("nothing")
    project = Project.find(root)
    assert {"copy.py", "data/a.txt", "main.py", "mirror/a.txt"} == {
        file for file in project.files() if "loop" not in file
    }
    assert len(project.files()) < 10
    assert {"gone", "key.pem", "stolen"} <= set(project.strays())


def test_a_pipe_is_no_file_of_the_application(tmp_path):
    project = write(tmp_path, {"main.py": ""})
    os.mkfifo(tmp_path / "pipe")
    assert project.files() == ("main.py",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_directory_that_cannot_be_read_is_a_fault(tmp_path):
    project = write(tmp_path, {"main.py": "", "closed/a.py": ""})
    (tmp_path / "closed").chmod(0)
    with pytest.raises(ConfigFault, match="cannot be read"):
        project.files()


def test_a_gitignore_that_is_no_text_is_a_fault(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        write(tmp_path, {"main.py": "", ".gitignore": b"\xff\xfe\x00"}).files()
    assert str(caught.value.where).endswith(".gitignore")
