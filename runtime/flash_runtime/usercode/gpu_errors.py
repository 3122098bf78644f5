"""GPU errors: recognises exceptions of torch that mean out of memory, or that the device is lost.

This module never imports torch: if user code has not imported it, there is nothing to recognise.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Iterator
from enum import Enum
from typing import Any

from flash_runtime.usercode.tracebacks import kind_of

_STICKY_CODES = frozenset(
    {46, 100, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999}
)
"""cudaError_t after which every further call of the process fails, or that indicate broken hardware.

From the CUDA runtime's reference, enum cudaError: "the process must be terminated and relaunched", or
"uncorrectable": devices unavailable (46), no device (100), ECC, NVLink and contained errors (214, 220, 226),
illegal address (700), launch timeout (702), context destroyed (709), device-side assert (710),
hardware stack error, illegal instruction, misaligned address, invalid address space, invalid program counter,
launch failure (714 to 719), tensor memory leak (721), unknown (999).
"""
_STICKY_WORDS = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "illegal instruction",
    "misaligned address",
    "hardware stack error",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "the launch timed out and was terminated",
    "context is destroyed",
    "uncorrectable",
    "all cuda-capable devices are busy or unavailable",
    "no cuda-capable device is detected",
    "gpu is lost",
    "unknown error",
)
"""The texts of these errors, for versions of torch whose exceptions have no code."""


class GpuError(Enum):
    """What an exception says about the device."""

    OUT_OF_MEMORY = "out of memory"
    """The request needed more memory than is free. The next one may need less."""
    LOST = "lost"
    """No request of this process can use the device any more."""


class GpuFailure(Exception):
    """Stands in for an exception of a handler that says something about the device."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(f"the handler raised {kind_of(raised)}")
        self.raised = raised


def classify(error: BaseException) -> GpuError | None:
    """What `error`, or an exception that led to it, says about the device. `None` if nothing."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    chain = list(_chain(error))
    if any(_is_lost(torch, each) for each in chain):
        return GpuError.LOST
    # Only if it left the handler, as it is or wrapped: user code may have handled one that it caught.
    causes = [each for each in chain if each is error or each in _causes(error)]
    # Absent while torch is still being imported, and before torch 2.5.
    out_of_memory = getattr(torch, "OutOfMemoryError", ())
    if any(isinstance(each, out_of_memory) for each in causes):
        return GpuError.OUT_OF_MEMORY
    return None


def release_memory(error: BaseException) -> None:
    """Free the memory that the failed request holds, and that torch has cached."""
    for each in _chain(error):
        # The frames of the traceback hold tensors that were made before memory ran out.
        traceback.clear_frames(each.__traceback__)
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()


def _is_lost(torch: Any, error: BaseException) -> bool:
    accelerator = getattr(torch, "AcceleratorError", None)  # from torch 2.8 on; before, a RuntimeError
    if accelerator is not None and isinstance(error, accelerator):
        code = getattr(error, "error_code", None)
        if code is not None:
            return code in _STICKY_CODES
    elif type(error) is not RuntimeError:
        return False
    text = str(error).lower()
    return text.startswith("cuda") and any(words in text for words in _STICKY_WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and all exceptions that led to it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__, *_members(each)]


def _causes(error: BaseException) -> list[BaseException]:
    """What the exception was explicitly raised from, or consists of."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error.__cause__, *_members(error)]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in found:
            found.append(each)
            waiting += [each.__cause__, *_members(each)]
    return found


def _members(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group, such as a TaskGroup raises."""
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()
