"""`flash init`: what it writes is served, built and tested as it is."""

import subprocess
import sys

import pytest

from flash_cli.building.build import BuildOptions, build
from flash_cli.faults import ConfigFault, OutputFault
from flash_cli.init import write_project
from flash_cli.project import Project
from tests.authoring.projects import routes
from tests.serving import serve

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_new_project_is_built_and_served(tmp_path):
    assert write_project(tmp_path, "my-app").endswith("flash run")
    built = build(Project.find(tmp_path / "my-app"), BuildOptions(python=PYTHON))
    api, summary = built.application.endpoints
    assert routes(api) == [
        "GET /hello main.hello",
        "POST /words main.words",
        "GET /items/{item_id} main.item",
    ]
    assert (summary.name, summary.is_load_balanced) == ("my-app-summary", False)
    settings = {"FLASH_BUILD_ARTIFACT_PATH": built.artifact, "FLASH_APP_DIR": tmp_path / "app"}
    with serve(tmp_path, FLASH_WORKERS=1, FLASH_RESOURCE_NAME="*", **settings) as server:
        get = server.client.get("/my-app/hello", params={"name": "Alice"})
        assert get.json() == {"message": "Hello, Alice!"}
        assert server.client.post("/my-app/words", json={"text": "one two"}).json() == {"count": 2}
        assert server.client.get("/my-app/items/7").json() == {"id": 7}
        lines = (tmp_path / "my-app" / "README.md").read_text().splitlines()
        calls = [number for number, line in enumerate(lines) if line.startswith("$ curl ")]
        assert len(calls) == 2
        for number in calls:
            call = lines[number][2:].replace("http://localhost:8888", str(server.client.base_url).rstrip("/"))
            done = subprocess.run(
                f"{call} --noproxy '*' -sS",
                shell=True,
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            assert done.stdout == lines[number + 1]


def test_a_dot_is_this_directory_and_its_name_the_projects(tmp_path):
    (tmp_path / "here").mkdir()
    write_project(tmp_path / "here", ".")
    assert Project.find(tmp_path / "here").name == "here"


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "my-app").mkdir()
    (tmp_path / "my-app" / "README.md").write_text("mine")
    with pytest.raises(OutputFault, match=r"There is a README\.md already") as caught:
        write_project(tmp_path, "my-app")
    assert caught.value.where == f"{tmp_path}/my-app/README.md"
    assert [path.name for path in (tmp_path / "my-app").iterdir()] == ["README.md"]


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "my-app").mkdir()
    (tmp_path / "my-app" / "main.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(OutputFault):
        write_project(tmp_path, "my-app")
    assert not (tmp_path / "elsewhere.py").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp/a", "My App", "a_b", "-a", "a" * 51, "a\nb", "é"])
def test_a_name_that_no_container_can_have_is_a_fault(tmp_path, name):
    with pytest.raises(ConfigFault, match="cannot be a project's name"):
        write_project(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_a_fault(tmp_path):
    (tmp_path / "my-app").write_text("a file")
    with pytest.raises(OutputFault):
        write_project(tmp_path, "my-app")
