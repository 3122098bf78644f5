"""The authoring side: what a module with handlers needs, as the vendor's has it, and light."""

import asyncio
import importlib
import inspect
import json
import subprocess
import sys

import pytest

import runpod_flash
from flash_runtime.artifact import contract
from runpod_flash import CpuInstanceType, Endpoint, GpuGroup, GpuType, NetworkVolume, paths
from tests import vendor

ENUMS = ["GpuGroup", "GpuType", "CpuInstanceType", "CudaVersion", "DataCenter"]
ENUMS += ["ServerlessScalerType", "ServerlessType"]


def handler():
    return 1


def test_it_imports_nothing_but_the_standard_library():
    code = "import sys; before = set(sys.modules); import runpod_flash; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages - set(sys.stdlib_module_names) == {"runpod_flash"}
    # Each of these costs more than all that is needed here.
    assert not packages & {"asyncio", "inspect", "dataclasses", "logging", "json", "pathlib"}


def test_it_reserves_the_paths_that_the_worker_does():
    assert paths.RESERVED_PATHS == contract.RESERVED_PATHS


@pytest.mark.vendor
def test_the_enums_have_the_vendors_names_and_values():
    code = f"import json, runpod_flash as r; print(json.dumps({{n: {{m: v.value for m, v in getattr(r, n).__members__.items()}} for n in {ENUMS}}}))"  # noqa: E501
    theirs = json.loads(vendor.run_python(code))
    for name in ENUMS:
        ours = {member: value.value for member, value in getattr(runpod_flash, name).__members__.items()}
        assert ours == theirs[name], name


@pytest.mark.vendor
def test_endpoint_takes_the_vendors_parameters_with_their_defaults():
    code = "import inspect, runpod_flash as r; print([(p.name, str(p.default)) for p in inspect.signature(r.Endpoint.__init__).parameters.values()])"  # noqa: E501
    ours = [(p.name, str(p.default)) for p in inspect.signature(Endpoint.__init__).parameters.values()]
    assert str(ours) == vendor.run_python(code).strip()


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "patch"])
def test_a_route_returns_the_function_unchanged(method):
    api = Endpoint(name="api", gpu=GpuGroup.ANY)
    assert getattr(api, method)("/path")(handler) is handler
    assert api.is_load_balanced


def test_an_endpoint_decorates_a_function_and_takes_its_name():
    endpoint = Endpoint(cpu="cpu3c-1-2")
    assert endpoint(handler) is handler
    assert endpoint.name == "handler"
    assert endpoint.is_cpu


@pytest.mark.parametrize("path", ["", "path", "/ping", "/execute"])
def test_a_path_that_cannot_be_is_refused_where_it_is_written(path):
    api = Endpoint(name="api")
    with pytest.raises(ValueError, match=r"test_sdk\.py:\d+"):
        api.get(path)


def test_a_duplicate_route_is_refused_and_names_the_first():
    api = Endpoint(name="api")
    api.get("/a")(handler)
    api.post("/a")(handler)
    with pytest.raises(ValueError, match=r"duplicate route: GET /a .*first registered at .*test_sdk\.py"):
        api.get("/a")(handler)


@pytest.mark.parametrize(
    "options",
    [
        {"gpu": GpuGroup.ANY, "cpu": "cpu3c-1-2"},
        {"id": "x", "image": "y", "name": "z"},
        {"image": "y"},
        {"max_concurrency": 0},
        {"workers": (3, 1)},
        {"workers": -1},
        {"workers": "many"},
        {"cpu": "no such instance"},
        {"gpu": "RTX"},
        {"volume": []},
    ],
)
def test_a_combination_that_cannot_be_meant_is_refused(options):
    with pytest.raises(ValueError, match=r"."):
        Endpoint(**options)


def test_routes_need_a_name_and_do_not_mix_with_decorating():
    with pytest.raises(ValueError, match="name is required"):
        Endpoint().get("/a")
    api = Endpoint(name="api")
    api.get("/a")(handler)
    with pytest.raises(ValueError, match="after registering routes"):
        api(handler)


def test_what_is_given_is_kept():
    volume = NetworkVolume(name="models", size=50)
    api = Endpoint(name="api", gpu=GpuType.NVIDIA_A100_80GB_PCIe, workers=(1, 3), volume=volume)
    assert (api.workers_min, api.workers_max) == (1, 3)
    assert api.gpu == [GpuType.NVIDIA_A100_80GB_PCIe]
    assert api.volume == [volume]
    assert Endpoint(cpu=[CpuInstanceType.CPU3C_1_2]).cpu == [CpuInstanceType.CPU3C_1_2]


def test_what_it_lacks_is_a_fault_with_the_remedy():
    with pytest.raises(AttributeError, match="FLASH_SDK=artifact"):
        _ = runpod_flash.create_resource
    with pytest.raises(ModuleNotFoundError, match="FLASH_SDK=artifact"):
        importlib.import_module("runpod_flash.core.resources")
    with pytest.raises(ImportError, match="FLASH_SDK=artifact"):
        from runpod_flash import create_resource  # noqa: F401
    assert not hasattr(runpod_flash, "create_resource")


@pytest.mark.parametrize("name", ["head", "options", "route", "websocket"])
def test_a_method_that_there_is_not_is_refused_with_those_there_are(name):
    api = Endpoint(name="api")
    assert not hasattr(api, name)
    with pytest.raises(AttributeError, match=rf"no '{name}' at .*test_sdk\.py:\d+.*\.get\(path\), \.post"):
        getattr(api, name)("/x")


async def calculate(operation: str, a: int, b: int) -> int:
    return {"add": a + b, "multiply": a * b}[operation]


def test_a_decorated_function_is_called_as_before():
    decorated = Endpoint(name="test-api", cpu="cpu3c-1-2").post("/calculate")(calculate)
    assert asyncio.run(decorated("add", 5, 3)) == 8


def test_a_value_that_cannot_be_is_refused_with_the_line_and_what_is_allowed():
    with pytest.raises(ValueError, match=r"'zz' is not one of cpu3g-1-4, .* at .*test_sdk\.py:\d+"):
        Endpoint(cpu="zz")
    with pytest.raises(ValueError, match="must be a list of strings, got 'numpy'"):
        Endpoint(dependencies="numpy")


def test_a_refused_environment_is_not_shown():
    with pytest.raises(ValueError, match="env must be") as caught:
        Endpoint(env={"TOKEN": b"secret"})
    assert "secret" not in str(caught.value)
