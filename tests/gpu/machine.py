"""The GPU that this machine has, and an application that uses it.

Nothing here imports torch or initialises CUDA: only the workers that the tests start do.
"""

from __future__ import annotations

import os
import runpy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pynvml

from tests.serving import Server, until

MEBIBYTE = 2**20
START_SECONDS = 120
"""torch comes from a cold disk, and the device may have to be woken."""
APPLICATION = """
import os

import torch

held = []
# As a model: on the device before the worker is ready.
weights = torch.ones(256, 256, device="cuda")
torch.cuda.synchronize()


def where():
    # Runs a kernel; cuBLAS is kept out of it, whose workspace would count as memory in use.
    return {
        "pid": os.getpid(),
        "visible": os.environ["CUDA_VISIBLE_DEVICES"],
        "devices": torch.cuda.device_count(),
        "uuid": str(torch.cuda.get_device_properties(0).uuid),
        "sum": int(weights.sum().item()),
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
    }


def allocate(number):
    return torch.empty(number, dtype=torch.uint8, device="cuda")


def hold(mebibytes: int):
    held.append(allocate(mebibytes << 20))
    torch.cuda.synchronize()
    return where()


def hold_most(on: int):
    # 60% of the device: there is no room for this twice.
    if os.getpid() == on:
        held.append(allocate(torch.cuda.mem_get_info()[1] * 6 // 10))
        torch.cuda.synchronize()
    return where()


def want_too_much():
    kept = allocate(256 << 20)
    return [len(kept), len(allocate(2 * torch.cuda.mem_get_info()[1]))]


def reach_too_far():
    values = torch.zeros(4, device="cuda")
    values[torch.tensor([9], device="cuda")]
    torch.cuda.synchronize()


def lose(on: int):
    if os.getpid() == on:
        reach_too_far()
    return where()


def swallow_and_go_on():
    try:
        reach_too_far()
    except RuntimeError:
        pass
    return (torch.ones(4, device="cuda") + 1).cpu().tolist()
"""
ROUTES = [
    ("GET", "/where", "where"),
    ("GET", "/hold", "hold"),
    ("GET", "/hold_most", "hold_most"),
    ("GET", "/want_too_much", "want_too_much"),
    ("GET", "/reach_too_far", "reach_too_far"),
    ("GET", "/lose", "lose"),
    ("GET", "/swallow_and_go_on", "swallow_and_go_on"),
]


@dataclass(frozen=True)
class Gpu:
    """A device; `id` is what CUDA_VISIBLE_DEVICES takes: an index, or a UUID of a GPU or a MIG instance."""

    id: str

    def used(self) -> int:
        """Bytes in use on the device, by whatever process."""
        pynvml.nvmlInit()
        try:
            if self.id.isdigit():
                handle = pynvml.nvmlDeviceGetHandleByIndex(int(self.id))
            else:
                handle = pynvml.nvmlDeviceGetHandleByUUID(self.id)
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        finally:
            pynvml.nvmlShutdown()


def gpus() -> list[Gpu]:
    """The devices of CUDA_VISIBLE_DEVICES where it is set, or all that the driver knows; none without one.

    Where a GPU is divided (MIG), CUDA_VISIBLE_DEVICES must name its instances.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        count = pynvml.nvmlDeviceGetCount()
        known = [pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(each)) for each in range(count)]
    finally:
        pynvml.nvmlShutdown()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not known:
        return [Gpu(uuid) for uuid in known]
    return [Gpu(each.strip()) for each in chosen.split(",") if each.strip()]


def what_is_missing() -> str | None:
    """Why nothing can be tested here; `None` where there is a GPU, and a torch that is built for CUDA."""
    if not gpus():
        return "there is no GPU here"
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return "there is no torch here"
    # By its file: the import takes seconds.
    if not runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda"):
        return "the torch here is not built for CUDA"
    return None


def driver_environment() -> dict[str, str]:
    """What a process may need to find the driver and torch here, and `serve` would leave out."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}


def wait_until_ready(server: Server) -> None:
    until(lambda: server.ping() == 200 or server.process.poll() is not None, "ready", START_SECONDS)
    assert server.process.poll() is None, server.log


def ask(server: Server, path: str, **parameters: int) -> httpx.Response:
    """A GET on a connection of its own, so that any of the workers may answer."""
    return httpx.get(f"{server.url}{path}", params=parameters, timeout=60)


def where(server: Server) -> dict[str, Any]:
    """What a worker says of itself, and of its device."""
    response = ask(server, "/where")
    assert response.status_code == 200, server.log
    found: dict[str, Any] = response.json()
    return found


def workers(server: Server, count: int) -> dict[int, dict[str, Any]]:
    """What each of `count` workers says of itself, by its pid."""
    found: dict[int, dict[str, Any]] = {}

    def all_have_answered() -> bool:
        told = where(server)
        found[told["pid"]] = told
        return len(found) == count

    until(all_have_answered, f"{count} workers answer", START_SECONDS)
    return found
