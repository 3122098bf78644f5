"""Preloading: imports the modules of FLASH_PRELOAD before the fork, so that all workers share their memory.

The process must be safe to fork. If it initialises CUDA, every worker's CUDA fails. Threads that a library
starts do not exist in the workers.
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
"""The CUDA driver keeps it open once it is initialised. NVML, which only looks, does not open it."""


def preload(
    names: tuple[str, ...],
    app_dir: Path,
    sdk: Literal["image", "artifact"],
    cuda_device: str = _CUDA_DEVICE,
) -> None:
    """Import the modules `names`, of the application in `app_dir` or of the image, in this process.

    Raises `UserCodeFault` naming the module that cannot be imported, or that used the GPU. Warns of threads
    that a fork would leave behind. Restores the image's `sys.path`: the application may have files with the
    names of modules that the supervisor imports later.
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
    """At the boot deadline, the modules were still being imported, in `frame`."""
    return UserCodeFault(
        f"FLASH_PRELOAD={','.join(names)} was not imported within FLASH_BOOT_TIMEOUT={seconds:g} seconds.",
        where=_WHERE,
        remedy="remove the module that the stack shows, load less in its import, or allow more time.",
        traceback="".join(["Stack (innermost last):\n", *traceback.format_stack(frame)]),
    )


def _import(name: str) -> None:
    try:
        importer.import_module(name)
    except UserCodeFault as fault:
        leave_out = f"remove `{name}` from FLASH_PRELOAD if no handler needs it"
        raise UserCodeFault(
            f"FLASH_PRELOAD names `{name}`: {fault.what}",
            where=fault.where or _WHERE,
            remedy=f"{leave_out}. Otherwise, {fault.remedy}" if fault.remedy else f"{leave_out}.",
            traceback=fault.traceback,
        ) from fault


def _refuse_gpu_use(name: str, cuda_device: str) -> None:
    sign = _gpu_use(cuda_device)
    if sign is not None:
        raise UserCodeFault(
            f"FLASH_PRELOAD names `{name}`, whose import initialised CUDA ({sign}). Workers that are forked "
            "after that cannot use their GPUs.",
            where=_WHERE,
            remedy=f"import `{name}` in the handler's module instead, in every worker. Or do not touch "
            "the GPU in its import (torch.cuda.is_available() does, unless PYTORCH_NVML_BASED_CUDA_CHECK=1 "
            "is set).",
        )


def _gpu_use(cuda_device: str) -> str | None:
    """The evidence that CUDA is initialised in this process, or `None`."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return "torch.cuda.is_initialized() is true"
    return f"it holds {cuda_device} open" if cuda_device in _open_files() else None


def _open_files() -> list[str]:
    """The files that this process has open (only on Linux; elsewhere none)."""
    found = []
    for number in _entries("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115  without a Path for each
        except OSError:
            pass  # the descriptor that the directory was read with
    return found


def _warn_of_threads(suspects: list[str]) -> None:
    # Libraries that are prepared for forks, such as OpenBLAS, end their threads first and restart them.
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if _threads() > 1:
        log.warning(
            "FLASH_PRELOAD: the import of %s left threads running, which do not exist in the workers. A lock "
            "that one of them holds at the fork is never released. Import it in the handler's module.",
            " and of ".join(f"`{name}`" for name in suspects),
        )


def _threads() -> int:
    """How many threads this process has (only on Linux; elsewhere 1)."""
    return len(_entries("/proc/self/task")) or 1


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  only names are needed
    except FileNotFoundError:
        return []
