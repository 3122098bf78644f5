"""Vendor keys: the manifest's keys for the vendor's platform, which say where a resource runs.

The values are those of the vendor's own build. This project's worker does not read these keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from runpod_flash import (
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    Endpoint,
    GpuGroup,
    GpuType,
    NetworkVolume,
    PodTemplate,
)

_POOLS: dict[GpuGroup, tuple[GpuType, ...]] = {
    GpuGroup.ADA_24: (GpuType.NVIDIA_GEFORCE_RTX_4090,),
    GpuGroup.ADA_32_PRO: (GpuType.NVIDIA_GEFORCE_RTX_5090,),
    GpuGroup.ADA_48_PRO: (GpuType.NVIDIA_RTX_6000_ADA_GENERATION,),
    GpuGroup.ADA_80_PRO: (GpuType.NVIDIA_H100_80GB_HBM3,),
    GpuGroup.AMPERE_16: (
        GpuType.NVIDIA_RTX_A4000,
        GpuType.NVIDIA_RTX_A4500,
        GpuType.NVIDIA_RTX_4000_ADA_GENERATION,
        GpuType.NVIDIA_RTX_2000_ADA_GENERATION,
    ),
    GpuGroup.AMPERE_24: (GpuType.NVIDIA_RTX_A5000, GpuType.NVIDIA_L4, GpuType.NVIDIA_GEFORCE_RTX_3090),
    GpuGroup.AMPERE_48: (GpuType.NVIDIA_A40, GpuType.NVIDIA_RTX_A6000),
    GpuGroup.AMPERE_80: (GpuType.NVIDIA_A100_80GB_PCIe, GpuType.NVIDIA_A100_SXM4_80GB),
    GpuGroup.HOPPER_141: (GpuType.NVIDIA_H200,),
    GpuGroup.BLACKWELL_96: (
        GpuType.NVIDIA_RTX_PRO_6000_BLACKWELL_SERVER_EDITION,
        GpuType.NVIDIA_RTX_PRO_6000_BLACKWELL_WORKSTATION_EDITION,
        GpuType.NVIDIA_RTX_PRO_6000_BLACKWELL_MAX_Q_WORKSTATION_EDITION,
    ),
    GpuGroup.BLACKWELL_180: (GpuType.NVIDIA_B200,),
}
"""The GPU models in each pool."""

_IMAGES = {
    (True, True): "runpod/flash-lb-cpu",
    (True, False): "runpod/flash-lb",
    (False, True): "runpod/flash-cpu",
    (False, False): "runpod/flash",
}
"""The vendor's worker images, by whether a resource is load-balanced and whether it has no GPU."""

_TYPES = {
    (True, True): "CpuLiveLoadBalancer",
    (True, False): "LiveLoadBalancer",
    (False, True): "CpuLiveServerless",
    (False, False): "LiveServerless",
}

_DISK_PER_CPU = {"cpu3g": 10, "cpu3c": 10, "cpu5c": 15}
"""How many GB of container disk the platform grants for each virtual CPU."""


def resource_type(endpoint: Endpoint, is_load_balanced: bool) -> str:
    """The vendor's class for a resource of this kind."""
    return _TYPES[is_load_balanced, endpoint.is_cpu]


def placement_of(endpoint: Endpoint, is_load_balanced: bool, python: str) -> Iterator[tuple[str, Any]]:
    """The keys and values, in the vendor's order. `python` is the version in its worker image.

    Raises `ValueError`, `TypeError` or `AttributeError` if a value of the endpoint has the wrong type.
    """
    if endpoint.max_concurrency > 1 and not is_load_balanced:
        yield "max_concurrency", endpoint.max_concurrency
    yield "imageName", endpoint.image or f"{_IMAGES[is_load_balanced, endpoint.is_cpu]}:py{python}-latest"
    if endpoint.cpu is not None:
        yield "instanceIds", [each.value for each in endpoint.cpu]
    elif endpoint.gpu and (gpus := gpu_ids(endpoint.gpu)):
        yield "gpuIds", gpus
    yield "workersMin", endpoint.workers_min
    yield "workersMax", endpoint.workers_max
    yield "idleTimeout", endpoint.idle_timeout
    yield "scalerType", _value(endpoint.scaler_type)
    yield "scalerValue", endpoint.scaler_value
    if endpoint.datacenter:
        yield "locations", ",".join(each.value for each in datacenters(endpoint.datacenter))
    if not endpoint.is_cpu:
        cuda = endpoint.min_cuda_version
        yield "minCudaVersion", "12.8" if cuda is None else CudaVersion(_value(cuda)).value
    if endpoint.env is not None:
        yield "env", dict(endpoint.env)
    if endpoint.volume:
        yield "networkVolumes", [_volume(each) for each in endpoint.volume]
    yield "template", _template(endpoint.template or PodTemplate(), endpoint.cpu)


def gpu_ids(gpus: Iterable[GpuGroup | GpuType]) -> str:
    """The pools, and with a minus the unwanted models in them, sorted and separated by commas."""
    wanted = list(gpus)
    if any(each.value == GpuGroup.ANY.value for each in wanted):
        return ",".join(sorted(group.value for group in set(GpuGroup.all())))
    models = {each for each in wanted if isinstance(each, GpuType)}
    groups = {each for each in wanted if isinstance(each, GpuGroup)}
    pools = {pool for pool, types in _POOLS.items() if models & set(types)}
    unwanted = {model.value for pool in pools - groups for model in _POOLS[pool] if model not in models}
    named = sorted(pool.value for pool in pools | groups)
    return ",".join([*named, *(f"-{model}" for model in sorted(unwanted, key=str.lower))])


def datacenters(given: DataCenter | str | Iterable[DataCenter | str]) -> list[DataCenter]:
    """The value of `Endpoint(datacenter=…)` as a list. Raises `ValueError` for an unknown name."""
    several = [given] if isinstance(given, str) else list(given)
    return [each if isinstance(each, DataCenter) else DataCenter.from_string(each) for each in several]


def _value(given: Any) -> Any:
    """An enum's value, or the given value itself."""
    return getattr(given, "value", given)


def _volume(volume: NetworkVolume) -> dict[str, Any]:
    fields = {"name": volume.name, "id": volume.id, "size": volume.size}
    known = {name: value for name, value in fields.items() if value is not None}
    return {**known, "dataCenterId": volume.dataCenterId.value}


def _template(template: PodTemplate, cpus: list[CpuInstanceType] | None) -> dict[str, Any]:
    disk = template.containerDiskInGb
    if cpus and disk == PodTemplate().containerDiskInGb:
        disk = min(_disk(each) for each in cpus)
    return {
        "containerDiskInGb": disk,
        "dockerArgs": template.dockerArgs,
        "startScript": template.startScript,
        "advancedStart": template.advancedStart,
        "containerRegistryAuthId": template.containerRegistryAuthId,
    }


def _disk(instance: CpuInstanceType) -> int:
    family, cpus, _ = instance.value.split("-")
    return _DISK_PER_CPU[family] * int(cpus)
