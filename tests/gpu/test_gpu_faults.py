"""GPU faults on a real device: CUDA's own exceptions, and its memory after them."""

import subprocess
import sys
import warnings

import pytest

from flash_runtime.usercode.gpu_errors import GpuError, classify, release_memory

pytestmark = pytest.mark.gpu

MEBIBYTE = 2**20
LOSE = """
import torch
from flash_runtime.usercode.gpu_errors import classify

values = torch.zeros(4, device="cuda")
torch.cuda.synchronize()


def said(call):
    try:
        call()
    except Exception as error:
        print(classify(error), flush=True)
    else:
        print("nothing was raised", flush=True)


def reach_too_far():
    values[torch.tensor([9], device="cuda")]
    torch.cuda.synchronize()


said(reach_too_far)
said(lambda: (torch.ones(4, device="cuda") + 1).cpu())
"""


@pytest.fixture
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, where NumPy is not installed
        found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("torch has no GPU here")
    return found


def want_too_much(torch):
    kept = torch.empty(64 * MEBIBYTE, dtype=torch.uint8, device="cuda")
    _, total = torch.cuda.mem_get_info()
    return kept, torch.empty(2 * total, dtype=torch.uint8, device="cuda")


def test_a_real_want_of_memory_is_told_and_what_was_held_is_released(torch):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    with pytest.raises(RuntimeError) as caught:
        want_too_much(torch)
    assert classify(caught.value) is GpuError.OUT_OF_MEMORY
    assert torch.cuda.memory_allocated() >= before[0] + 64 * MEBIBYTE
    release_memory(caught.value)
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
    assert torch.ones(4, device="cuda").sum().item() == 4


@pytest.mark.usefixtures("torch")
def test_a_real_device_side_assert_and_each_call_after_it_mean_that_the_device_is_lost():
    done = subprocess.run(
        [sys.executable, "-c", LOSE], capture_output=True, text=True, timeout=300, check=False
    )
    # How a process with a lost device ends is the driver's affair.
    assert done.stdout.splitlines() == [str(GpuError.LOST)] * 2, done.stderr
