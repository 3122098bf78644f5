"""What differs from the vendor's package and no other test claims: docs/how-to/move-from-runpod-flash.md."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

import runpod_flash
from flash_cli.building.build import BuildOptions, build
from flash_cli.faults import ConfigFault
from runpod_flash import Endpoint, EndpointJob, EndpointStatusError, NetworkVolume, PodTemplate, addresses
from tests import vendor
from tests.authoring.projects import HELLO, write
from tests.serving import environment, free_port

# The package.

NOT_HERE = {
    "remote", "FlashApp", "ResourceManager", "LiveServerless", "CpuLiveServerless", "LiveLoadBalancer",
    "CpuLiveLoadBalancer", "ServerlessEndpoint", "CpuServerlessEndpoint", "LoadBalancerSlsResource",
    "CpuLoadBalancerSlsResource",
}  # fmt: skip
ONLY_HERE = {
    "EndpointAddressError", "EndpointError", "EndpointStatusError", "EndpointTimeout", "EndpointUnreachable",
}  # fmt: skip


@pytest.mark.vendor
def test_the_names_that_one_package_has_and_the_other_lacks_are_these():
    theirs = set(
        json.loads(vendor.run_python("import json, runpod_flash as r; print(json.dumps(r.__all__))"))
    )
    assert theirs - set(runpod_flash.__all__) == NOT_HERE
    assert set(runpod_flash.__all__) - theirs == ONLY_HERE


@pytest.mark.vendor
def test_endpoints_and_jobs_have_all_that_the_vendors_have():
    endpoint = Endpoint(name="a")
    for name, ours in (("Endpoint", endpoint), ("EndpointJob", EndpointJob({}, endpoint))):
        code = f"import runpod_flash as r; print(*[m for m in dir(r.{name}) if m[0] != '_'])"
        assert set(vendor.run_python(code).split()) <= set(dir(ours))


def test_importing_it_reads_no_dotenv_sets_up_no_logging_and_prints_nothing(tmp_path):
    (tmp_path / ".env").write_text("RUNPOD_API_KEY=from-dotenv\n")
    code = "import runpod_flash, os, logging; assert 'RUNPOD_API_KEY' not in os.environ; "
    code += "assert not logging.root.handlers"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment(), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_volumes_and_templates_are_plain_objects():
    for record in (NetworkVolume(name="models"), PodTemplate(name="t")):
        assert not hasattr(record, "model_dump")
        assert vars(record)["name"] == record.name


AT_ONCE = (
    'gpu=["x"]',
    "idle_timeout=0",
    'datacenter="zz"',
    'env={"A": 1}',
    'cpu="cpu3c-1-2", datacenter="US-CA-2"',
    'dependencies="numpy"',
)


def refused(arguments: tuple[str, ...], names: Mapping[str, object]) -> list[bool]:
    """Of each, whether `Endpoint(...)` refuses it by itself, before it has a route."""
    found = []
    for each in arguments:
        try:
            eval(f"Endpoint(name='a', {each})", dict(names))
        except ValueError:
            found.append(True)
        else:
            found.append(False)
    return found


@pytest.mark.vendor
def test_what_the_vendor_refuses_with_the_first_route_is_refused_where_it_is_written():
    code = f"from runpod_flash import Endpoint\nfound = []\nfor each in {AT_ONCE!r}:\n"
    code += "    eval(f\"Endpoint(name='a', {each})\")"
    vendor.run_python(code)  # it takes them all
    assert all(refused(AT_ONCE, vars(runpod_flash)))


# The command.

COMMANDS_NOT_HERE = {
    "login", "update", "env list", "env create", "env get", "env delete", "app create", "app get", "app list",
    "app delete",
}  # fmt: skip
COMMANDS_ONLY_HERE = {"status", "logs"}
OPTIONS_NOT_HERE = {
    "init": {"--force", "-f"},
    "run": {"--auto-provision"},
    "dev": {"--auto-provision"},
    "build": set(),
    "deploy": {"--app", "-a", "--output", "-o", "--python-version"},
    "undeploy": {"--interactive", "-i", "--cleanup-stale"},
}
COMMANDS = """
import json
import typer

def commands(group, prefix=""):
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, prefix + name + " ")
        else:
            options = [each for one in command.params for each in (*one.opts, *one.secondary_opts)]
            found[prefix + name] = [each for each in options if each[0] == "-" and each != "--help"]
    return found

print(json.dumps(commands(typer.main.get_command(app))))
"""


@pytest.mark.vendor
def test_the_commands_and_options_that_one_has_and_the_other_lacks_are_these():
    theirs = json.loads(vendor.run_python(f"from runpod_flash.cli.main import app\n{COMMANDS}"))
    code = f"from flash_cli.main import app\n{COMMANDS}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours = json.loads(done.stdout)
    assert set(theirs) - set(ours) == COMMANDS_NOT_HERE
    assert set(ours) - set(theirs) == COMMANDS_ONLY_HERE
    assert {name: set(theirs[name]) - set(ours[name]) for name in theirs if name in ours} == OPTIONS_NOT_HERE


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_a_python_that_no_image_has_is_refused(tmp_path, version):
    with pytest.raises(ConfigFault, match=rf"no image for {version}") as caught:
        build(write(tmp_path, {"main.py": HELLO}), BuildOptions(python=version))
    assert "3.11" in str(caught.value.remedy)


def test_a_build_has_the_variables_of_dotenv_where_none_are_given(tmp_path):
    source = HELLO.replace('cpu3c-1-2"', 'cpu3c-1-2", env={"TOKEN": __import__("os").environ["TOKEN"]}')
    write(tmp_path, {"main.py": source, ".env": "TOKEN=from-dotenv\n"})
    for given, token in (({}, "from-dotenv"), ({"TOKEN": "given"}, "given")):
        done = subprocess.run(
            [Path(sys.executable).parent / "flash", "build"],
            cwd=tmp_path, env=environment(**given), check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        manifest = json.loads((tmp_path / ".flash" / ".build" / "flash_manifest.json").read_text())
        assert manifest["resources"]["hello"]["env"] == {"TOKEN": token}


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("typer", ["--help"], "cli"), ("watchfiles", ["run"], "cli"), ("docker", ["deploy"], "docker")],
)
def test_a_command_whose_extra_is_not_installed_says_which(tmp_path, module, arguments, extra):
    table = '[tool.flash.env.production]\ntarget = "docker"\n'
    write(tmp_path, {"main.py": HELLO, "pyproject.toml": table})
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = {arguments}; "
    code += "from flash_cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 64, done.stderr
    assert f"needs `{module}`, which is not installed" in done.stderr
    assert f"extra `{extra}`" in done.stderr
    assert "Traceback" not in done.stderr


# Calls.


def test_no_other_variable_or_file_of_the_vendors_leads_a_call_elsewhere(tmp_path, monkeypatch):
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod" / "config.toml").write_text('[default]\napi_key = "saved"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("FLASH_", "RUNPOD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", "https://elsewhere.example/v2")
    assert addresses.resolve("abc") == "https://abc.api.runpod.ai"
    assert addresses.resolve("abc", jobs=True) == "https://api.runpod.ai/v2/abc"
    assert addresses.key_for("https://abc.api.runpod.ai") is None


def test_an_option_that_no_call_has_is_refused():
    async def ask() -> None:
        await Endpoint(id=f"http://127.0.0.1:{free_port()}").get("/x", tmeout=5)

    with pytest.raises(TypeError, match="tmeout"):
        asyncio.run(ask())


class Failing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        pass


def test_no_timeout_is_for_ever():
    with HTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()

        async def ask() -> None:
            await Endpoint(id=f"http://127.0.0.1:{server.server_port}").get("/x", timeout=None)

        with pytest.raises(EndpointStatusError) as caught:
            asyncio.run(ask())
        thread.join()
    assert isinstance(caught.value, httpx.HTTPStatusError)
    assert set(caught.value.request.extensions["timeout"].values()) == {None}
