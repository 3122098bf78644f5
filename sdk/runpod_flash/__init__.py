"""A light replacement for the vendor's `runpod_flash`: declares endpoints and calls them.

It has `Endpoint`, the names of hardware, two records, and the errors of calls. It imports in milliseconds,
while the vendor's takes seconds. Using a name that it does not have raises an error that says what to do.
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

# The vendor's release that this replaces, and a local label (PEP 440): code that compares versions works as
# usual, and people see that it is not the vendor's package.
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


def _missing(name: str) -> str:
    return (
        f"flash-runtime's runpod_flash has no {name!r}. It has {', '.join(__all__)}. "
        "In a worker, FLASH_SDK=artifact uses the runpod_flash that the artifact carries."
    )


def __getattr__(name: str) -> NoReturn:
    # AttributeError, so that hasattr() and getattr() with a default work. `from runpod_flash import name`
    # would hide its text, but looks for a submodule of that name next, and `_Submodules` refuses that.
    raise AttributeError(_missing(name))


class _Submodules:
    """The last finder: raises an error with a remedy for a submodule that only the vendor's package has."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        package, _, rest = name.partition(".")
        if package == __name__ and not (rest.startswith("__") and rest.endswith("__")):
            # The error has the package's name: `from` hides errors with the name that it looks for.
            raise ModuleNotFoundError(_missing(rest), name=__name__)


sys.meta_path.append(_Submodules)
