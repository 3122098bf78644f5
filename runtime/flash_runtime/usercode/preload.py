"""Preloading: what FLASH_PRELOAD names is imported before the fork, so that all workers share its memory.

The process must stay fit to be forked: CUDA that was initialised in it would fail in every worker, and
threads that a library has started are in none of them.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Literal

from flash_runtime.errors import UserCodeFault
from flash_runtime.usercode import importer

log = logging.getLogger("flash_runtime.preload")

_WHERE = "the environment (FLASH_PRELOAD)"
_CUDA_DEVICE = "/dev/nvidia-uvm"
"""What the CUDA driver keeps open once it is initialised; NVML, which only looks, does without."""


def preload(
    names: tuple[str, ...],
    app_dir: Path,
    sdk: Literal["image", "artifact"],
    cuda_device: str = _CUDA_DEVICE,
) -> None:
    """Import the modules `names`, of the application in `app_dir` or of the image, in this process.

    Raises `UserCodeFault` naming the module that cannot be imported, or that used the GPU. Warns of threads
    that a fork would leave behind. `sys.path` is the image's again afterwards: the application may have files
    that are named like what the supervisor imports later.
    """
    threads, suspects = _threads(), []
    importer.enter(app_dir, sdk)
    try:
        for name in names:
            _import(name)
            _refuse_gpu_use(name, cuda_device)
            if _threads() > threads:
                suspects.append(name)
                threads = _threads()
    finally:
        importer.leave()
    if suspects:
        _warn_of_threads(suspects)


def late_fault(names: tuple[str, ...], seconds: float, frame: FrameType | None) -> UserCodeFault:
    """The modules were still importing, in `frame`, at the boot deadline."""
    return UserCodeFault(
        f"FLASH_PRELOAD={','.join(names)} was not imported within FLASH_BOOT_TIMEOUT={seconds:g} seconds.",
        where=_WHERE,
        remedy="leave out the module that the stack shows, let it load less at import, or allow more time.",
        traceback="".join(["Stack (innermost last):\n", *traceback.format_stack(frame)]),
    )


def _import(name: str) -> None:
    try:
        importer.import_module(name)
    except UserCodeFault as fault:
        leave_out = f"leave `{name}` out of FLASH_PRELOAD where no handler needs it"
        raise UserCodeFault(
            f"FLASH_PRELOAD names `{name}`: {fault.what}",
            where=fault.where or _WHERE,
            remedy=f"{leave_out}; else {fault.remedy}" if fault.remedy else f"{leave_out}.",
            traceback=fault.traceback,
        ) from fault


def _refuse_gpu_use(name: str, cuda_device: str) -> None:
    sign = _gpu_use(cuda_device)
    if sign is not None:
        raise UserCodeFault(
            f"FLASH_PRELOAD names `{name}`, whose import initialised CUDA ({sign}): no worker that is forked "
            "after that could use its GPU.",
            where=_WHERE,
            remedy=f"leave `{name}` out and import it in the handler's module instead, which every worker "
            "does; or keep from its import what touches the GPU (as torch.cuda.is_available() does, unless "
            "PYTORCH_NVML_BASED_CUDA_CHECK=1 is set).",
        )


def _gpu_use(cuda_device: str) -> str | None:
    """The sign that CUDA is initialised in this process, or `None`."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return "torch.cuda.is_initialized() is true"
    return f"it holds {cuda_device} open" if cuda_device in _open_files() else None


def _open_files() -> list[str]:
    """What this process has open (only on Linux; elsewhere nothing is told)."""
    found = []
    for number in _entries("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115  a Path would be made for each
        except OSError:
            pass  # the descriptor by which the directory was read
    return found


def _warn_of_threads(suspects: list[str]) -> None:
    # Libraries that mind forks, as OpenBLAS does, end their threads at one and start them again at need.
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if _threads() > 1:
        log.warning(
            "FLASH_PRELOAD: the import of %s left threads running, which no worker has: a lock that one of "
            "them holds at the fork is never released. Import it in the handler's module instead.",
            " and of ".join(f"`{name}`" for name in suspects),
        )


def _threads() -> int:
    """How many threads this process has (only on Linux; elsewhere 1)."""
    return len(_entries("/proc/self/task")) or 1


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  names are all that is wanted
    except FileNotFoundError:
        return []
