"""What is in the image, and what is not."""

import re

import httpx

from flash_runtime import __version__

MEBIBYTE = 1024 * 1024


def test_the_image_says_what_it_is(engine, image):
    config = engine.images.get(image).attrs["Config"]
    assert config["User"] == "1000:1000"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "flash-runtime", "health"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert set(labels) >= {f"org.opencontainers.image.{name}" for name in ("source", "version", "revision")}
    assert labels["org.opencontainers.image.version"] not in ("", "unknown")


def test_only_the_cuda_image_asks_for_gpus(engine, image):
    environ = dict(pair.split("=", 1) for pair in engine.images.get(image).attrs["Config"]["Env"])
    nvidia = {name: value for name, value in environ.items() if name.startswith("NVIDIA_")}
    if "cuda" in image:
        assert nvidia["NVIDIA_VISIBLE_DEVICES"] == "all"
        assert nvidia["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
        assert nvidia["NVIDIA_REQUIRE_CUDA"] == "cuda>=13.0"
    else:
        assert nvidia == {}


def test_it_serves(containers):
    artifact = containers.artifact("def hello():\n    return 'hello'\n", [("GET", "/hello", "hello")])
    container = containers.start(artifact=artifact).until_ready()
    assert httpx.get(f"{container.url}/hello").json() == "hello"


def test_the_runtime_is_this_trees(containers):
    assert containers.finish("version")[1].split() == ["flash-runtime", __version__]


def test_no_compiler_and_nothing_that_building_left_behind_is_there(containers):
    code, found = containers.finish("sh", "-c", "command -v cc gcc g++ clang make ld; true", user="root")
    assert (code, found) == (0, "")
    places = "/var/lib/apt/lists /var/cache/apt/archives /var/log /root/.cache /tmp"
    left = f"find {places} -type f -not -name lock 2>/dev/null; true"
    code, found = containers.finish("sh", "-c", left, user="root")
    assert (code, found) == (0, "")


def test_nothing_is_compiled_at_a_start(containers):
    """`python -v` names the file that each module's code came from: a .pyc, or a source that was compiled."""
    modules = "flash_runtime.commands.serve, flash_runtime.supervisor.supervisor, runpod_flash"
    users = "email.mime.text, xml.dom.minidom, sqlite3, unittest.mock"
    code, log = containers.finish(
        "python3", "-v", "-c", f"import {modules}, {users}; flash_runtime.commands.serve.import_framework()"
    )
    assert code == 0
    files = re.findall(r"^# code object from '(.*)'$", log, re.MULTILINE)
    assert [file for file in files if not file.endswith(".pyc")] == []
    assert len(files) > 300


def test_nothing_but_scratch_belongs_to_the_user_that_serves(containers):
    """So a handler that is broken into changes neither the runtime nor what other commands run."""
    find = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o -type d -writable -print"
    code, found = containers.finish("sh", "-c", f"{find} 2>/dev/null; true")
    assert code == 0
    assert set(found.split()) <= {"/app", "/tmp", "/var/tmp", "/run/lock", "/var/lock"}


def test_the_image_adds_at_most_120_mb_to_its_base(engine, image):
    own = []
    for layer in engine.images.get(image).history():  # newest first
        own.append(layer["Size"])
        if "tini" in layer["CreatedBy"] and "COPY" in layer["CreatedBy"]:
            break
    assert 20 * MEBIBYTE < sum(own) <= 120_000_000


def test_the_command_for_authors_is_not_there(containers):
    tells = "import importlib.util as u; print(u.find_spec('flash_cli'), u.find_spec('runpod_flash') is None)"
    code, told = containers.finish("sh", "-c", f'command -v flash; python3 -c "{tells}"')
    assert (code, told.split()) == (0, ["None", "False"])
