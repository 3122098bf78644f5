"""`[tool.flash.env.NAME]`, and the services that an application becomes there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flash_cli.application import Application, DeclaredEndpoint, Function, Place
from flash_cli.deploying.environments import (
    DockerEnvironment,
    KubernetesEnvironment,
    environment_of,
    the_only_one,
)
from flash_cli.deploying.loglines import readable
from flash_cli.deploying.services import Release, left_out, release_of, services_of
from flash_cli.deploying.targets.docker.swarm_service import spec_of
from flash_cli.faults import ConfigFault, SourceFault
from flash_cli.sample_calls import curl, from_source
from runpod_flash import GpuGroup, NetworkVolume
from runpod_flash.hardware import CpuInstanceType
from tests.authoring.projects import discovered

PLACE = Place("main.py", 3)


def config(**tables: dict[str, Any]) -> dict[str, Any]:
    return {"env": tables}


def endpoint(name: str, *routes: tuple[str, str], **options: Any) -> DeclaredEndpoint:
    functions = tuple(Function("f", "main", PLACE, method=method, path=path) for method, path in routes)
    return DeclaredEndpoint(name, PLACE, functions or (Function("f", "main", PLACE),), options)


def service(*, environment: DockerEnvironment | None = None, **options: Any) -> Any:
    application = Application("shop", Path(), (endpoint("api", ("GET", "/"), **options),))
    (only,) = services_of(application, environment or DockerEnvironment(name="test"))
    return only


def test_a_table_is_an_environment_with_safe_defaults():
    docker = environment_of(config(production={"target": "docker", "ports": {"api": 8000}}), "production")
    assert isinstance(docker, DockerEnvironment)
    assert (docker.image, docker.bind, docker.ports["api"]) == ("flash-runtime:cpu", "127.0.0.1", 8000)
    cluster = environment_of(config(k={"target": "kubernetes", "repository": "r/shop"}), "k")
    assert isinstance(cluster, KubernetesEnvironment)
    assert cluster.context is None


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "has no target"),
        ({"target": "mesos"}, "'mesos'"),
        ({"target": "docker", "prot": 1, "namespace": "x"}, "namespace, prot"),
        ({"target": "docker", "bind": 1}, "bind"),
        ({"target": "docker", "gpus": "no"}, "gpus"),
        ({"target": "docker", "ports": {"api": 70000}}, "ports"),
        ({"target": "docker", "ports": {"api": True}}, "ports"),
        ({"target": "docker", "env": {"A": 1}}, "env"),
        ({"target": "docker", "env": {"A-B": "1"}}, "env"),
        ({"target": "docker", "secrets": "KEY"}, "secrets"),
        ({"target": "kubernetes", "repository": "r", "platform": "windows"}, "platform"),
        ({"target": "kubernetes"}, "needs repository"),
        ({"target": "kubernetes", "artifact": "volume"}, "needs volume"),
        ({"target": "kubernetes", "artifact": "volume", "volume": "v", "url": "https://x"}, "url"),
    ],
)
def test_what_a_table_cannot_say_is_refused_with_what_it_can(table, says):
    with pytest.raises(ConfigFault) as fault:
        environment_of(config(production=table), "production")
    assert says in fault.value.what
    assert fault.value.where == "pyproject.toml, [tool.flash.env.production]"
    assert fault.value.remedy
    assert len(str(fault.value).splitlines()) < 10


def test_every_bad_key_of_a_table_is_in_one_report():
    with pytest.raises(ConfigFault) as fault:
        environment_of(config(production={"target": "docker", "bind": 1, "gpus": "no"}), "production")
    assert [line.partition(" ")[0] for line in fault.value.what.splitlines()] == ["gpus", "bind"]
    assert fault.value.remedy == "set gpus to true or false; set bind to a string that is not empty."


def test_for_an_unknown_key_the_nearest_one_is_suggested():
    with pytest.raises(ConfigFault) as fault:
        environment_of(config(production={"target": "docker", "imgae": "x", "zzzz": 1}), "production")
    assert fault.value.what == "Unknown keys: imgae, zzzz."
    assert str(fault.value.remedy).startswith(
        "write image in place of imgae; the keys of a docker target are "
    )


def test_an_unknown_environment_is_refused_with_those_that_there_are():
    tables = config(staging={"target": "docker"}, production={"target": "docker"})
    with pytest.raises(ConfigFault, match=r"'prod'\. The environments are: production, staging"):
        environment_of(tables, "prod")
    with pytest.raises(ConfigFault) as fault:
        environment_of(tables, "stagign")
    assert fault.value.remedy == "use --env staging, or add a table for it."
    with pytest.raises(ConfigFault, match="production, staging"):
        the_only_one(tables)
    assert the_only_one(config(staging={})) == "staging"


@pytest.mark.parametrize("ask", [lambda: environment_of({}, "production"), lambda: the_only_one({})])
def test_without_a_table_the_lines_to_add_are_told(ask):
    with pytest.raises(ConfigFault) as fault:
        ask()
    lines = str(fault.value.remedy).partition("[tool.flash.env.production]")[2]
    assert 'target = "docker"' in lines


def test_a_preview_needs_no_table():
    assert isinstance(environment_of({}, "preview"), DockerEnvironment)


def test_a_service_has_the_machine_that_the_endpoint_asks_for():
    small = service(cpu="cpu3c-1-2")
    assert (small.cpus, small.memory_gb, small.gpus, small.base_image) == (1, 2, 0, "flash-runtime:cpu")
    several = service(cpu=[CpuInstanceType.CPU5C_4_8, CpuInstanceType.CPU3C_1_2])
    assert (several.cpus, several.memory_gb) == (4, 8)
    gpu = service(gpu=GpuGroup.ADA_24, gpu_count=2)
    assert (gpu.cpus, gpu.gpus, gpu.base_image) == (None, 2, "flash-runtime:cuda")
    none = service(gpu=GpuGroup.ADA_24, environment=DockerEnvironment(name="test", gpus=False))
    assert (none.gpus, none.base_image) == (0, "flash-runtime:cpu")


@pytest.mark.parametrize(
    ("workers", "replicas"),
    [(None, (1, 1)), (3, (1, 3)), ((2, 5), (2, 5)), ((0, 0), (1, 1)), ((0, 4), (1, 4))],
)
def test_workers_are_replicas_of_which_there_is_at_least_one(workers, replicas):
    made = service(workers=workers)
    assert (made.replicas, made.max_replicas) == replicas


def test_an_environments_variables_win_over_an_endpoints_and_the_deployments_over_both():
    environment = DockerEnvironment(name="test", env={"A": "environment", "PORT": "9"})
    made = service(
        env={"A": "endpoint", "B": "endpoint", "FLASH_RESOURCE_NAME": "x"}, environment=environment
    )
    assert (made.environ["A"], made.environ["B"]) == ("environment", "endpoint")
    assert (made.environ["PORT"], made.environ["FLASH_RESOURCE_NAME"]) == ("80", "api")


def test_an_endpoints_limits_are_the_workers_settings():
    made = service(execution_timeout_ms=2500, max_concurrency=3)
    assert (made.environ["FLASH_REQUEST_TIMEOUT"], made.environ["FLASH_MAX_CONCURRENCY"]) == ("2.5", "3")


def test_names_that_dns_does_not_allow_are_changed_and_two_that_become_one_are_refused():
    application = Application("My Shop", Path(), (endpoint("User_API"), endpoint("plain")))
    odd, plain = services_of(application, DockerEnvironment(name="test"))
    assert (odd.name, odd.host) == ("my-shop-test-user-api", "user-api")
    assert json.loads(plain.environ["FLASH_PEERS"]) == {"User_API": "http://user-api:80"}
    with pytest.raises(SourceFault, match=r"'user-api'.*'User_API' at main.py:3"):
        services_of(
            Application("shop", Path(), (endpoint("User_API"), endpoint("user-api"))),
            DockerEnvironment(name="test"),
        )
    with pytest.raises(SourceFault, match="would be the service"):
        services_of(Application("shop", Path(), (endpoint("a" * 60),)), DockerEnvironment(name="test"))


def test_a_swarms_service_starts_first_and_is_rolled_back_where_its_tasks_fail(tmp_path):
    made = service(cpu="cpu3c-4-8", workers=(2, 5))
    release = Release((made,), tmp_path, "0" * 64, {"KEY": "k"}, 90)
    told = {"token": "t", "network": "n", "deployment": "d"}
    spec = spec_of(made, release, {"flash.project": "shop"}, port=30001, most_cpus=2, **told)
    update = spec["update_config"]
    assert (update["Order"], update["FailureAction"], update["Parallelism"]) == ("start-first", "rollback", 0)
    assert spec["mode"] == {"replicated": {"Replicas": 2}}
    assert spec["resources"]["Limits"] == {"NanoCPUs": 2 * 10**9, "MemoryBytes": 8 * 2**30}
    assert spec["healthcheck"]["StartPeriod"] == 90 * 10**9
    assert spec["stop_grace_period"] > 31 * 10**9
    assert {"KEY=k", "FLASH_EXECUTE_TOKEN=t", "FLASH_RESOURCE_NAME=api"} <= set(spec["env"])
    assert spec["endpoint_spec"]["Ports"] == [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30001}]
    (network,) = spec["networks"]
    assert network["Aliases"] == ["api", "api"]


def test_a_secret_that_is_not_set_is_refused_and_one_that_is_shows_nowhere(tmp_path):
    artifact = tmp_path / "artifact.tar.gz"
    artifact.write_bytes(b"")
    environment = DockerEnvironment(name="test", secrets=("TOKEN", "OTHER"))
    application = Application("shop", tmp_path, (endpoint("api"),))
    with pytest.raises(ConfigFault, match="not set: OTHER"):
        release_of(application, environment, artifact, {"TOKEN": "s3cret"}, 1)
    release = release_of(application, environment, artifact, {"TOKEN": "s3cret", "OTHER": "x"}, 1)
    assert release.secrets["TOKEN"] == "s3cret"
    assert "s3cret" not in repr(release)


def test_what_no_target_provides_is_told():
    application = Application(
        "shop",
        Path(),
        (endpoint("api", volume=NetworkVolume(name="models"), system_dependencies=["ffmpeg"]),),
        (endpoint("vllm", image="vllm:latest"),),
    )
    told = list(left_out(application))
    assert [line.partition(" ")[0] for line in told] == ["main.py:3:"] * 3
    assert "image=" in told[0]


def test_the_sample_call_is_of_a_route_that_needs_no_value_where_there_is_one():
    api = endpoint("api", ("POST", "/greet"), ("GET", "/users/{user_id}"), ("GET", "/health"))
    assert curl("http://h:1", from_source(api)) == "curl http://h:1/health"
    guarded = curl("http://h:1", from_source(endpoint("api", ("POST", "/greet"))), with_key=True)
    assert guarded.startswith('curl -X POST http://h:1/greet -H "Authorization: Bearer $FLASH_API_KEY" ')
    assert "/runsync" in curl("http://h:1", from_source(endpoint("job")))
    model = DeclaredEndpoint("model", PLACE, (Function("Model", "main", PLACE, is_class=True),), {})
    assert from_source(model) is None


@pytest.mark.parametrize(
    ("signature", "route", "line"),
    [
        ("q: str, n: int, limit: int = 5", "get('/find')", "curl 'http://h/find?q=text&n=1'"),
        ("item: int, deep: bool", "get('/items/{item:int}')", "curl 'http://h/items/1?deep=true'"),
        ("text: str, *, tags: list[str]", "post('/t')", """-d '{"text": "text", "tags": []}'"""),
        ("user: User", "post('/users')", "-d '{}'"),
    ],
)
def test_a_sample_call_by_the_source_has_what_the_handler_requires(tmp_path, signature, route, line):
    source = "from runpod_flash import Endpoint\napi = Endpoint(name='api', cpu='cpu3c-1-2')\n"
    (api,) = discovered(tmp_path, f"{source}@api.{route}\ndef handler({signature}): ...\n").endpoints
    assert curl("http://h", from_source(api)).endswith(line)


def test_a_workers_json_lines_are_text_for_a_person():
    line = json.dumps({"level": "ERROR", "message": "no", "traceback": "Traceback:\n  boom"})
    assert readable([line, "plain", '{"a": 1}']) == ["ERROR no", "Traceback:", "  boom", "plain", '{"a": 1}']


def test_the_command_refuses_on_one_screen_before_it_builds(tmp_path):
    (tmp_path / "main.py").write_text("from runpod_flash import Endpoint\napi = Endpoint(name='api')\n")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flash.env.here]\ntarget = "docker"\nhost = "unix:///no.sock"\n'
    )

    def flash(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "flash_cli.main", *arguments, "-C", str(tmp_path)]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert flash("deploy", "--env", "nowhere")[0] == 78
    code, told = flash("deploy")
    assert (code, "No Docker engine answers" in told, "unix:///no.sock" in told) == (69, True, True)
    assert flash("status")[0] == flash("logs")[0] == 69
    assert flash("undeploy")[0] == 64
    assert not (tmp_path / ".flash").exists()
