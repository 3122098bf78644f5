"""Stands in for torch, as far as tests/gpu uses it, on the GPU that the stand-in for the driver has.

It keeps to CUDA's rules that these tests are about: what a process holds is in use until it ends, memory runs
out, CUDA does not survive a fork, and after a device-side assert every call of the process fails.
"""

import ctypes
import math
import os
from pathlib import Path
from types import SimpleNamespace

from torch.version import __version__ as __version__

uint8, float32 = 1, 4
"""Bytes of an element."""
_CONTEXT = 500 << 20
_STATE = Path(os.environ["LD_LIBRARY_PATH"]) / "state"


class OutOfMemoryError(RuntimeError):
    pass


class AcceleratorError(RuntimeError):
    error_code = 710


class _Device:
    """What this process has of the device: `user` is the pid that initialised CUDA."""

    user: int | None = None
    allocated = reserved = 0
    lost = False

    def use(self):
        """Initialise CUDA, as each call that needs the device does; it fails where no call can succeed."""
        if self.lost:
            raise AcceleratorError("CUDA error: device-side assert triggered")
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            raise RuntimeError("No CUDA GPUs are available")
        if self.user is None:
            self.user = os.getpid()
            self.tell()
        if self.user != os.getpid():
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")

    def take(self, size):
        if self.allocated + size > self.reserved and not self.reserve(size):
            self.empty_cache()
            if not self.reserve(size):
                raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        self.allocated += size

    def reserve(self, size):
        more = self.allocated + size - self.reserved
        if more > self.free_and_total()[0]:
            return False
        self.reserved += more
        self.tell()
        return True

    def empty_cache(self):
        if self.user is not None:
            self.reserved = self.allocated
            self.tell()

    def free_and_total(self):
        self.use()
        memory = (ctypes.c_ulonglong * 3)()
        ctypes.CDLL("libnvidia-ml.so.1").nvmlDeviceGetMemoryInfo(None, memory)
        return memory[1], memory[0]

    def tell(self):
        """Let the driver know."""
        temporary = _STATE / f"{os.getpid()}.new"
        temporary.write_text(str(_CONTEXT + self.reserved))
        temporary.replace(_STATE / str(os.getpid()))


_device = _Device()


class Tensor:
    def __init__(self, values, size, dtype):
        _device.use()
        self._values, self._size, self._bytes = values, size, 0
        _device.take(size * dtype)
        self._bytes = size * dtype

    def __del__(self):
        _device.allocated -= self._bytes

    def __len__(self):
        return self._size

    def __getitem__(self, index):
        _device.use()
        _device.lost = index._values[0] >= self._size
        return self

    def __add__(self, other):
        return self.cpu()

    def cpu(self):
        _device.use()
        return self

    def sum(self):
        _device.use()
        return SimpleNamespace(item=lambda: self._size)


def empty(*shape, dtype=float32, device):
    return Tensor(None, math.prod(shape), dtype)


ones = zeros = empty


def tensor(values, *, device):
    return Tensor(values, len(values), float32)


class cuda:
    @staticmethod
    def is_available():
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            return False
        if os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") != "1":
            _device.use()
        return True

    @staticmethod
    def is_initialized():
        return _device.user is not None

    @staticmethod
    def device_count():
        return 1

    @staticmethod
    def get_device_name(number):
        return "a stand-in for a GPU"

    @staticmethod
    def get_device_properties(number):
        return SimpleNamespace(uuid="11111111-2222-3333-4444-555555555555")

    @staticmethod
    def memory_allocated():
        return _device.allocated

    @staticmethod
    def memory_reserved():
        return _device.reserved

    synchronize = _device.use
    mem_get_info = _device.free_and_total
    empty_cache = _device.empty_cache
