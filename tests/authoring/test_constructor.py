"""`Endpoint(...)` takes what the vendor's takes, refuses what it refuses, and comes out the same."""

from __future__ import annotations

import inspect
import itertools
import json

import pytest

from tests import vendor

SINGLE = """
id="abc"
image="nginx"
name=None
gpu=GpuGroup.ANY
gpu=GpuType.NVIDIA_L4
gpu=[GpuGroup.ADA_24, GpuType.NVIDIA_A40]
gpu=[]
gpu="ADA_24"
gpu=["x"]
cpu="cpu3c-1-2"
cpu=CpuInstanceType.CPU5C_2_4
cpu=["cpu3c-1-2", CpuInstanceType.CPU3G_1_4]
cpu=("cpu3c-1-2",)
cpu=[]
cpu="cpu9"
workers=0
workers=3
workers=(1, 3)
workers=[0, 2]
workers=(3, 1)
workers=(1, 2, 3)
workers=-1
workers=(-1, 1)
workers=True
workers="3"
workers=2.5
idle_timeout=1
idle_timeout=0
idle_timeout=3601
dependencies=["numpy"]
dependencies="numpy"
system_dependencies=["ffmpeg"]
accelerate_downloads=False
volume=NetworkVolume(name="v")
volume=[NetworkVolume(name="v"), NetworkVolume(name="w", datacenter="US-CA-2")]
volume=[NetworkVolume(name="v"), NetworkVolume(name="w")]
volume=[]
volume="v"
volume=NetworkVolume()
volume=NetworkVolume(name="v", size=5)
volume=NetworkVolume(name="v", datacenter="MOON-1")
datacenter="eu-ro-1"
datacenter=DataCenter.US_CA_2
datacenter=["EU-RO-1", DataCenter.EU_CZ_1]
datacenter=[]
datacenter="zz"
env={"A": "1"}
env={"A": 1}
env={}
gpu_count=2
gpu_count=0
execution_timeout_ms=1000
flashboot=False
scaler_type=ServerlessScalerType.QUEUE_DELAY
scaler_type=ServerlessScalerType.REQUEST_COUNT
scaler_type="x"
scaler_value=9
template=PodTemplate(name="t")
min_cuda_version="12.4"
min_cuda_version=CudaVersion.V11_8
min_cuda_version="99"
min_cuda_version=None
max_concurrency=3
max_concurrency=0
scaler_type="REQUEST_COUNT"
scaler_value=0
execution_timeout_ms=-1
cpu=5
env=5
volume=3
volume=[1]
idle_timeout=3600
no_such=1
"""
ARGUMENTS = SINGLE.split("\n")[1:-1]
PAIRS = [
    f"{one}, {other}"
    for one, other in itertools.combinations(ARGUMENTS, 2)
    if one.partition("=")[0] != other.partition("=")[0]
]


def outcomes(arguments: list[str]) -> list[object]:
    """Of each endpoint, with a route where it can have one: the kind of its refusal, or what it is."""
    import runpod_flash

    names = {name: getattr(runpod_flash, name) for name in (
        "CpuInstanceType", "CudaVersion", "DataCenter", "Endpoint", "GpuGroup", "GpuType", "NetworkVolume",
        "PodTemplate", "ServerlessScalerType",
    )}  # fmt: skip
    shown = (
        "name", "id", "image", "is_cpu", "is_client", "is_load_balanced", "workers_min", "workers_max",
        "idle_timeout", "dependencies", "system_dependencies", "accelerate_downloads", "env", "gpu_count",
        "execution_timeout_ms", "flashboot", "scaler_type", "scaler_value", "min_cuda_version", "datacenter",
    )  # fmt: skip
    found: list[object] = []
    for each in arguments:
        given = each if "name=" in each.replace("(name=", "") else f'name="api", {each}'
        try:
            endpoint = eval(f"Endpoint({given})", names)
            if not endpoint.is_client:
                endpoint.get("/x")(lambda: None)
            found.append([repr(getattr(endpoint, attribute)) for attribute in shown])
        except ValueError:  # pydantic's is one
            found.append("ValueError")
        except TypeError:
            found.append("TypeError")
    return found


LETTERS = 'dependencies="numpy"'
"""The vendor's takes each letter for a package, and fails at the install."""


@pytest.mark.vendor
def test_every_argument_and_every_pair_of_them_is_taken_or_refused_as_the_vendor_does():
    given = [each for each in [*ARGUMENTS, *PAIRS] if LETTERS not in each]
    program = vendor.CACHE / "constructor.py"
    program.write_text(f"import json\n{inspect.getsource(outcomes)}\nprint(json.dumps(outcomes({given!r})))")
    theirs = dict(zip(given, json.loads(vendor.run_file(program).splitlines()[-1]), strict=True))
    for each in given:
        client, _, other = each.partition(", ")
        is_client = client.startswith(("id=", "image=")) and other != "name=None"
        if is_client and theirs.get(other) == "ValueError":
            # The vendor's looks at it when the endpoint is provisioned, which one with an id never is.
            theirs[each] = "ValueError"
    ours = dict(zip(given, outcomes(given), strict=True))
    assert {each: ours[each] for each in given if ours[each] != theirs[each]} == {}


def test_what_the_vendor_would_install_letter_by_letter_is_refused():
    assert outcomes([LETTERS]) == ["ValueError"]
