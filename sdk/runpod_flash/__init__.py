"""A light drop-in for the vendor's `runpod_flash`: for declaring endpoints and calling them, anywhere.

It has `Endpoint`, the hardware's names, two records, and the errors of calls. It imports in milliseconds
where the vendor's takes seconds. Whatever it lacks is refused with the remedy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from runpod_flash.endpoint import Endpoint
from runpod_flash.errors import (
    EndpointAddressError,
    EndpointError,
    EndpointStatusError,
    EndpointTimeout,
    EndpointUnreachable,
)
from runpod_flash.hardware import (
    CPU_DATACENTERS,
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    GpuGroup,
    GpuType,
    ServerlessScalerType,
    ServerlessType,
)
from runpod_flash.jobs import EndpointJob
from runpod_flash.options import DEFAULT_WORKERS_MAX, DEFAULT_WORKERS_MIN
from runpod_flash.records import NetworkVolume, PodTemplate

# The vendor's release that this stands in for, then a local label (PEP 440): code that compares versions
# takes its usual way, and whoever reads it sees that it is not the vendor's.
__version__ = "1.21.0+flash.runtime"

__all__ = [
    "CPU_DATACENTERS",
    "DEFAULT_WORKERS_MAX",
    "DEFAULT_WORKERS_MIN",
    "CpuInstanceType",
    "CudaVersion",
    "DataCenter",
    "Endpoint",
    "EndpointAddressError",
    "EndpointError",
    "EndpointJob",
    "EndpointStatusError",
    "EndpointTimeout",
    "EndpointUnreachable",
    "GpuGroup",
    "GpuType",
    "NetworkVolume",
    "PodTemplate",
    "ServerlessScalerType",
    "ServerlessType",
]


def _lacks(name: str) -> str:
    return (
        f"flash-runtime's runpod_flash has no {name!r}: it has {', '.join(__all__)}. "
        "In a worker, FLASH_SDK=artifact uses the runpod_flash that the artifact carries."
    )


def __getattr__(name: str) -> NoReturn:
    # AttributeError, so that hasattr() and getattr() with a default work. `from runpod_flash import name`
    # would swallow its text, but tries a submodule of that name next, which `_Submodules` refuses.
    raise AttributeError(_lacks(name))


class _Submodules:
    """The last finder: says what to do about a submodule that only the vendor's package has."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        package, _, rest = name.partition(".")
        if package == __name__ and not (rest.startswith("__") and rest.endswith("__")):
            # Named after the package: `from` swallows an error that is named after what it looks for.
            raise ModuleNotFoundError(_lacks(rest), name=__name__)


sys.meta_path.append(_Submodules)
