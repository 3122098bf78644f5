"""The manifest is the vendor's but for a few keys, each with its reason."""

import json
import re
from pathlib import Path

import pytest

from flash_cli.building.manifest import encode, manifest_of
from flash_cli.discovery.discover import discover
from flash_cli.project import Project
from tests import vendor
from tests.authoring.projects import write

ROOT = Path(__file__).parents[2]
# The vendor's build imports every module, so the examples that need a model are not among these.
EXAMPLES = [path.parent for path in ROOT.glob("examples/*/flash_manifest.json")]
APPLICATIONS = [*EXAMPLES, *(ROOT / "tests" / "user_code").glob("*")]

DIFFERENT = {
    "generated_at": "the same source gives the same bytes",
    "source_fingerprint": "the artifact's own digest says as much",
}
"""Keys of the vendor's that are not in ours."""

VARIETY = """
    from runpod_flash import (
        CpuInstanceType, DataCenter, Endpoint, GpuGroup, GpuType, NetworkVolume, PodTemplate,
        ServerlessScalerType,
    )

    g1 = Endpoint(
        name="g1", gpu=[GpuGroup.ADA_24, GpuGroup.AMPERE_80], workers=5, env={"A": "b"}, datacenter="EU-RO-1",
        volume=NetworkVolume(name="vol", size=50), execution_timeout_ms=5000, flashboot=False, scaler_value=7,
        gpu_count=2, idle_timeout=9,
    )
    @g1.get("/g1")
    def g1f(): ...

    g2 = Endpoint(
        name="g2", gpu=GpuType.NVIDIA_A40, min_cuda_version=None, datacenter=[DataCenter.US_CA_2, "EU-CZ-1"],
        template=PodTemplate(containerDiskInGb=77, dockerArgs="x"),
    )
    @g2.get("/g2")
    def g2f(): ...

    g3 = Endpoint(
        name="g3", gpu=[GpuType.NVIDIA_GEFORCE_RTX_4090, GpuGroup.AMPERE_16], min_cuda_version="12.4",
        volume=[NetworkVolume(id="abc"), NetworkVolume(name="w", datacenter=DataCenter.US_CA_2)],
        max_concurrency=4,
    )
    @g3.get("/g3")
    def g3f(): ...

    g4 = Endpoint(name="g4", gpu=[GpuType.NVIDIA_L4, GpuType.NVIDIA_RTX_A4500, GpuGroup.ANY])
    @g4.get("/g4")
    def g4f(): ...

    g5 = Endpoint(name="g5", gpu=[GpuType.NVIDIA_L4, GpuType.NVIDIA_RTX_A4500, GpuType.NVIDIA_RTX_A6000])
    @g5.get("/g5")
    def g5f(): ...

    c1 = Endpoint(
        name="c1", cpu=["cpu3g-2-8", CpuInstanceType.CPU5C_8_16], volume=NetworkVolume(id="zz"),
        scaler_type=ServerlessScalerType.QUEUE_DELAY, datacenter=DataCenter.EU_RO_1,
    )
    @c1.get("/c1")
    def c1f(): ...

    @Endpoint(name="q1", max_concurrency=3, cpu=CpuInstanceType.CPU5C_2_4)
    class Q1:
        def run(self, x): ...
        async def go(self): ...
        @property
        def p(self): ...
        @staticmethod
        def s(): ...
        @classmethod
        def k(cls): ...

    @Endpoint(name="q2", gpu=GpuGroup.ANY, env={}, template=PodTemplate(name="t", imageName="i"))
    async def q2(x): ...

    @Endpoint(gpu=GpuType.ANY, flashboot=True)
    async def q3(x):
        return q2(x)

    cl = Endpoint(name="cl", image="vllm/vllm-openai:latest", gpu=GpuGroup.ADA_24, max_concurrency=2)
    clc = Endpoint(name="clc", image="nginx", cpu="cpu3c-1-2")
    idle = Endpoint(name="idle", cpu="cpu3c-1-2")
"""


def compared(manifest):
    """A manifest as it is compared: without what is known to be different."""
    kept = {name: value for name, value in manifest.items() if name not in DIFFERENT}
    for resource in kept["resources"].values():
        # Theirs are sorted by name; ours are in the order of the source, in which routes are matched.
        resource["functions"].sort(key=lambda function: function["name"])
        # Theirs names the image of Python 3.12, whatever the artifact is built for.
        resource["imageName"] = re.sub(r":py3\.\d+-", ":py-", resource["imageName"])
        for function in resource["functions"]:
            # Theirs is of what the SDK puts in a function's place: true of every queue-based one, and false
            # of asynchronous generators. The worker reads neither.
            del function["is_async"]
    return kept


def manifests(source):
    theirs = json.loads((vendor.build(source).parent / "flash_manifest.json").read_text())
    return manifest_of(discover(Project.find(source)), theirs["python_version"]), theirs


@pytest.mark.vendor
@pytest.mark.parametrize("source", APPLICATIONS, ids=lambda path: path.name)
def test_the_manifest_of_every_application_here_is_the_vendors(source):
    ours, theirs = manifests(source)
    assert compared(ours) == compared(theirs)


@pytest.mark.vendor
def test_every_kind_of_endpoint_is_placed_as_the_vendor_places_it(tmp_path):
    write(tmp_path / "variety", {"main.py": VARIETY, "pyproject.toml": '[project]\nname = "variety"\n'})
    ours, theirs = manifests(tmp_path / "variety")
    assert compared(ours) == compared(theirs)


def test_the_order_of_a_module_is_that_of_its_routes(tmp_path):
    source = """
        from runpod_flash import Endpoint
        api = Endpoint(name="a", cpu="cpu3c-1-2")
        @api.get("/z")
        def z(): ...
        @api.get("/a")
        def a(): ...
    """
    manifest = manifest_of(discover(write(tmp_path, {"main.py": source})), "3.12")
    assert list(manifest["routes"]["a"]) == ["GET /z", "GET /a"]
    assert encode(manifest) == encode(json.loads(encode(manifest)))


def test_the_image_that_is_named_has_the_artifacts_python(tmp_path):
    application = discover(write(tmp_path, {"main.py": VARIETY}))
    for version in ("3.11", "3.12"):
        manifest = manifest_of(application, version)
        assert manifest["python_version"] == version
        assert manifest["resources"]["c1"]["imageName"].endswith(f":py{version}-latest")
        assert manifest["resources"]["cl"]["imageName"] == "vllm/vllm-openai:latest"
