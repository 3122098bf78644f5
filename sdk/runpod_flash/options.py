"""Options: checks the arguments of `Endpoint(...)` and brings each into one form.

Each function raises `ValueError` that says what is allowed. The vendor's package refuses some arguments only
when it deploys the endpoint. Here all of them are refused where they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from runpod_flash.hardware import (
    CPU_DATACENTERS,
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    GpuGroup,
    GpuType,
    ServerlessScalerType,
)
from runpod_flash.records import NetworkVolume, PodTemplate

DEFAULT_WORKERS_MIN = 0
DEFAULT_WORKERS_MAX = 1
_IDLE_SECONDS_MAX = 3600

Member = TypeVar("Member", bound=Enum)


def check_together(name: object, id_: object, image: object, gpu: object, cpu: object) -> None:
    """Check which arguments exclude each other, and which need each other."""
    if gpu is not None and cpu is not None:
        raise ValueError("gpu and cpu are mutually exclusive: give one of them, or neither")
    if id_ is not None and image is not None:
        raise ValueError(
            "id and image are mutually exclusive: id= is an existing endpoint, and image= a new one"
        )
    if image is not None and name is None:
        raise ValueError("name is required when image= is set")


def workers_of(workers: int | tuple[int, int] | None) -> tuple[int, int]:
    """The minimum and maximum number of workers. A single number is the maximum."""
    if workers is None:
        return DEFAULT_WORKERS_MIN, DEFAULT_WORKERS_MAX
    if isinstance(workers, int):
        low, high = DEFAULT_WORKERS_MIN, workers
    elif isinstance(workers, tuple | list) and len(workers) == 2:
        low, high = int(workers[0]), int(workers[1])
    else:
        raise ValueError(f"workers must be an int or a (min, max) tuple, got {workers!r}")
    if low < 0 or high < 0:
        raise ValueError(f"workers cannot be negative: ({low}, {high})")
    if low > high:
        raise ValueError(f"workers min ({low}) cannot exceed max ({high})")
    return low, high


def gpus_of(gpu: GpuGroup | GpuType | list[GpuGroup | GpuType] | None) -> list[GpuGroup | GpuType] | None:
    """The GPUs to choose from, as a list, or `None`."""
    if gpu is None:
        return None
    gpus = gpu if isinstance(gpu, list) else [gpu]
    if not all(isinstance(each, GpuGroup | GpuType) for each in gpus):
        raise ValueError(f"gpu must be a GpuGroup, a GpuType or a list of them, got {gpu!r}")
    return gpus


def cpus_of(cpu: str | Sequence[str] | None) -> list[CpuInstanceType] | None:
    """The CPU machines to choose from, as a list, or `None`."""
    if cpu is None:
        return None
    if not isinstance(cpu, str | list):
        raise ValueError(f"cpu must be a CpuInstanceType, a string or a list of them, got {cpu!r}")
    return [_member(CpuInstanceType, "cpu", each) for each in ([cpu] if isinstance(cpu, str) else cpu)]


def volumes_of(volume: NetworkVolume | list[NetworkVolume] | None) -> list[NetworkVolume] | None:
    """The volumes as a list, or `None`. A data centre can have one of them."""
    if volume is None:
        return None
    volumes = volume if isinstance(volume, list) else [volume]
    if not volumes or not all(isinstance(each, NetworkVolume) for each in volumes):
        raise ValueError(f"volume must be a NetworkVolume or a list of them, got {volume!r}")
    places = [each.dataCenterId for each in volumes]
    if len(set(places)) < len(places):
        raise ValueError(
            "volume: several volumes are in the same data center, and an endpoint takes one for each"
        )
    return volumes


def check_datacenter(datacenter: Any, volumes: list[NetworkVolume] | None, *, is_cpu: bool) -> None:
    """Check that the data centres exist, have the volumes, and have CPU endpoints if `is_cpu`."""
    given = datacenter if isinstance(datacenter, list | tuple) else [datacenter] if datacenter else []
    centers = [each if isinstance(each, DataCenter) else DataCenter.from_string(str(each)) for each in given]
    without = [center.value for center in centers if center not in CPU_DATACENTERS]
    if is_cpu and without:
        raise ValueError(
            f"CPU endpoints are not available in {', '.join(without)}. They are available in "
            f"{', '.join(sorted(center.value for center in CPU_DATACENTERS))}"
        )
    for volume in volumes or ():
        if centers and volume.datacenter not in centers:
            raise ValueError(
                f"volume: {volume!r} is not in any of the endpoint's data centers: "
                f"{', '.join(center.value for center in centers)}"
            )


def check_numbers(idle_timeout: int | None, max_concurrency: int) -> None:
    """Check the numbers' limits. `idle_timeout` is in seconds."""
    if idle_timeout is not None and not 1 <= idle_timeout <= _IDLE_SECONDS_MAX:
        raise ValueError(f"idle_timeout must be from 1 to {_IDLE_SECONDS_MAX} seconds, got {idle_timeout}")
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be >= 1, got {max_concurrency}")


def check_kinds(
    dependencies: Any, system_dependencies: Any, env: Any, scaler_type: Any, template: Any, cuda: Any
) -> None:
    """Check the arguments' types."""
    for name, value in (("dependencies", dependencies), ("system_dependencies", system_dependencies)):
        if value is not None and (isinstance(value, str) or not _all_strings(value)):
            raise ValueError(f"{name} must be a list of strings, got {value!r}")
    if env is not None and not (
        isinstance(env, Mapping) and _all_strings(env) and _all_strings(env.values())
    ):
        # The values may be secrets, so they are not shown.
        raise ValueError("env must be a dict of strings to strings. Use str(value) for a number")
    if scaler_type is not None:
        _member(ServerlessScalerType, "scaler_type", scaler_type)
    if template is not None and not isinstance(template, PodTemplate):
        raise ValueError(f"template must be a PodTemplate, got {template!r}")
    if cuda is not None:
        _member(CudaVersion, "min_cuda_version", cuda)


def _all_strings(values: Any) -> bool:
    return isinstance(values, Iterable) and all(isinstance(each, str) for each in values)


def _member(kind: type[Member], name: str, value: Any) -> Member:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"{name}: {value!r} is not one of {known}") from None
