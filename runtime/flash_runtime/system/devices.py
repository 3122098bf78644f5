"""Finds the GPUs, and assigns them to worker slots.

Never initialises CUDA: after that, a process cannot fork workers that use CUDA. If the environment does not
say which devices to use, NVML does: the driver's management library, which changes nothing in the process.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flash_runtime.errors import SettingFault

log = logging.getLogger("flash_runtime.devices")

_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+", re.ASCII)
_NOTHING = ("", "none", "nodevfiles")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a MIG instance. `id` is what CUDA_VISIBLE_DEVICES takes: an index or a UUID."""

    id: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place. A replacement takes its predecessor's."""

    number: int
    device: Device | None

    def environ(self) -> dict[str, str]:
        """The variables that a worker of this slot needs. Empty without a device: the environment stays."""
        return {"CUDA_VISIBLE_DEVICES": self.device.id} if self.device else {}


def slots(devices: tuple[Device, ...], workers: int | None) -> tuple[Slot, ...]:
    """The slots, from 0 up: one for each device, or one without a device.

    With a number of `workers`, that many slots take the devices in turn. Fewer workers than devices use the
    first ones. More workers share them.
    """
    count = workers or len(devices) or 1
    return tuple(Slot(number, devices[number % len(devices)] if devices else None) for number in range(count))


def _load_nvml() -> Any:
    """The module of the driver's library. Raises `OSError` without a driver, before that large import."""
    ctypes.CDLL("libnvidia-ml.so.1")
    return importlib.import_module("pynvml")


def discover(
    cuda_visible: str | None,
    nvidia_visible: str | None,
    load_nvml: Callable[[], Any] = _load_nvml,
) -> tuple[Device, ...]:
    """The devices that this container may use, given CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES.

    If CUDA_VISIBLE_DEVICES is set, it decides. NVIDIA_VISIBLE_DEVICES is for the container's runtime, which
    mounts those GPUs and renumbers them from 0. Here it only says whether there are any, and NVML says which.
    Raises `SettingFault` for a list that names a device twice, or has something in it that is not a device.
    """
    if cuda_visible is not None:
        if cuda_visible.strip().lower() == "all":
            return _flat(_ask_nvml(load_nvml))
        return tuple(Device(token) for token in _tokens("CUDA_VISIBLE_DEVICES", cuda_visible))
    if nvidia_visible is None or _left_to_nvml(nvidia_visible):
        return _flat(_ask_nvml(load_nvml))
    tokens = _tokens("NVIDIA_VISIBLE_DEVICES", nvidia_visible)
    if all(_UUID.fullmatch(token) for token in tokens):
        return tuple(Device(token) for token in tokens)
    gpus = _ask_nvml(load_nvml)
    if gpus is None:
        return tuple(
            Device(token if _UUID.fullmatch(token) else str(index)) for index, token in enumerate(tokens)
        )
    if len(gpus) > len(tokens):
        # A privileged container sees all of the host's GPUs, under the host's numbers.
        gpus = [gpu for gpu in gpus if gpu.index in tokens or gpu.uuid in tokens]
    return _flat(gpus)


def _left_to_nvml(nvidia_visible: str) -> bool:
    # `void` is set in containers whose GPUs were injected by CDI, and in those without any. A path, a CDI
    # name (`nvidia.com/gpu=0`) or a MIG position (`0:1`) says what to inject, not its name in the container.
    text = nvidia_visible.strip().lower()
    return text in ("all", "void") or any(mark in text for mark in ("=", ":")) or text.startswith("/")


def _tokens(name: str, value: str) -> list[str]:
    """The list's members as CUDA reads them: the list ends at the first negative number."""
    if value.strip().lower() in _NOTHING:
        return []
    tokens: list[str] = []
    for part in value.split(","):
        token = part.strip()
        if re.fullmatch(r"-[0-9]+", token):
            break
        if re.fullmatch(r"[0-9]{1,4}", token):
            token = str(int(token))  # so that 0 and 00 count as the same
        elif not _UUID.fullmatch(token):
            raise SettingFault(
                f"{name}={value!r} is not allowed: {token!r} is not a device.",
                where=name,
                remedy="list indexes (0,1) or UUIDs (GPU-…, MIG-…) as `nvidia-smi -L` prints them.",
            )
        if token in tokens:
            raise SettingFault(
                f"{name}={value!r} is not allowed: it names {token} twice.",
                where=name,
                remedy="name each device once. FLASH_WORKERS puts several workers on one device.",
            )
        tokens.append(token)
    return tokens


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A whole GPU, by NVML. Work can run on its `units`: itself, or its MIG instances."""

    index: str
    uuid: str
    units: tuple[str, ...]


def _flat(gpus: list[_Gpu] | None) -> tuple[Device, ...]:
    return tuple(Device(unit) for gpu in gpus or () for unit in gpu.units)


def _ask_nvml(load_nvml: Callable[[], Any]) -> list[_Gpu] | None:
    """Every GPU in the driver's order, or `None` if there is no driver."""
    try:
        nvml = load_nvml()
    except (ModuleNotFoundError, OSError):
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if error.value not in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            log.warning("there is an NVIDIA driver, but it does not respond: %s", error)
        return None
    try:
        found = [_read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()
    return [gpu for gpu in found if gpu is not None]


def _read_gpu(nvml: Any, index: int) -> _Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = nvml.nvmlDeviceGetUUID(handle)
        units = _mig_instances(nvml, handle) if _in_mig_mode(nvml, handle) else (uuid,)
    except nvml.NVMLError as error:
        # A GPU that fell off the bus must not take the others out of service.
        log.error("GPU %d is not used: %s", index, error)
        return None
    return _Gpu(str(index), uuid, units)


def _in_mig_mode(nvml: Any, handle: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return False
        raise
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _mig_instances(nvml: Any, handle: Any) -> tuple[str, ...]:
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:
                raise
            continue  # the numbers of instances may have gaps
        found.append(nvml.nvmlDeviceGetUUID(instance))
    return tuple(found)
