"""FLASH_PRELOAD on a real device: what initialises CUDA is refused, what only looks is not."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from flash_runtime.system import devices

pytestmark = pytest.mark.gpu

PROGRAM = """
import sys
from pathlib import Path
from flash_runtime.system import devices
from flash_runtime.errors import UserCodeFault
from flash_runtime.usercode.preload import preload

devices.discover(None, None)  # as the supervisor does before
try:
    preload(("case",), Path(sys.argv[1]), "image")
except UserCodeFault as fault:
    print(fault.what)
else:
    print("accepted")
"""


@pytest.fixture
def preload(tmp_path):
    if not devices.discover(None, None):
        pytest.skip("there is no GPU here")

    def run(source: str) -> str:
        if "torch" in source and find_spec("torch") is None:
            pytest.skip("there is no torch here")
        (tmp_path / "case.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.zeros(1, device='cuda')\n",
        "import torch\nassert torch.cuda.is_available()\n",
        "import ctypes\nassert ctypes.CDLL('libcuda.so.1').cuInit(0) == 0\n",
    ],
    ids=["a tensor", "is_available", "the driver alone"],
)
def test_a_module_that_initialises_cuda_is_refused(preload, source):
    assert "whose import initialised CUDA" in preload(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\n",
        "import os\nos.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'\n"
        "import torch\nassert torch.cuda.is_available()\n",
        "import pynvml\npynvml.nvmlInit()\npynvml.nvmlDeviceGetHandleByIndex(0)\n",
    ],
    ids=["torch", "is_available by NVML", "NVML"],
)
def test_a_module_that_only_looks_is_accepted(preload, source):
    assert preload(source) == "accepted\n"
