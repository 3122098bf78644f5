"""GPU faults: what exceptions say about the device, and that a failed request's memory is given back."""

import gc
import subprocess
import sys
import warnings
import weakref

import pytest

from flash_runtime.usercode.gpu_errors import _STICKY_CODES, _STICKY_WORDS, GpuError, classify, release_memory

ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


@pytest.fixture
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, where NumPy is not installed
        return pytest.importorskip("torch")


def raised(error, cause=None):
    """The error as it is once it was raised, from its cause where there is one."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def raised_over(first, second, *, hidden=False):
    """`second` as it is when it was raised while `first` was handled."""
    try:
        try:
            raise first
        finally:
            if hidden:
                raise second from None
            raise second
    except type(second) as caught:
        return caught


def coded(torch, code, text="CUDA error: it says something"):
    error = torch.AcceleratorError(text)
    error.error_code = code
    return error


def run(script):
    """What the script prints, in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    return done.stdout.decode().split()


@pytest.mark.torch
def test_torchs_out_of_memory_is_out_of_memory(torch):
    assert classify(torch.OutOfMemoryError("CUDA out of memory.")) is GpuError.OUT_OF_MEMORY
    assert classify(torch.cuda.OutOfMemoryError("CUDA out of memory.")) is GpuError.OUT_OF_MEMORY


@pytest.mark.torch
@pytest.mark.parametrize("code", sorted(_STICKY_CODES))
def test_a_code_that_stays_means_that_the_device_is_lost(torch, code):
    assert classify(coded(torch, code)) is GpuError.LOST


@pytest.mark.torch
@pytest.mark.parametrize("code", [1, 2, 101, 600, 701, 720, 801])
def test_a_code_of_one_call_says_nothing_whatever_the_words(torch, code):
    assert classify(coded(torch, code)) is None
    assert classify(coded(torch, code, ASSERT)) is None


@pytest.mark.torch
@pytest.mark.parametrize("words", _STICKY_WORDS)
@pytest.mark.parametrize("kind", ["AcceleratorError", "RuntimeError"])
def test_without_a_code_the_words_decide(torch, kind, words):
    make = getattr(torch, kind, RuntimeError)
    assert classify(make(f"CUDA error: {words}")) is GpuError.LOST
    assert classify(make(f"CUDA error: {words.upper()}")) is GpuError.LOST


@pytest.mark.torch
@pytest.mark.parametrize("text", ["CUDA error: invalid argument", "CUDA error: invalid device ordinal", ""])
def test_other_words_of_cudas_say_nothing(torch, text):
    assert classify(torch.AcceleratorError(text)) is None
    assert classify(RuntimeError(text)) is None


@pytest.mark.torch
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the request had an illegal memory access in its text"),
        RuntimeError(f"the model failed: {ASSERT}"),
        ValueError(ASSERT),
        OSError("CUDA error: unknown error"),
        NotImplementedError(ASSERT),
    ],
    ids=repr,
)
def test_words_that_are_not_cudas_say_nothing(torch, error):
    assert classify(error) is None


@pytest.mark.torch
def test_what_an_exception_was_raised_from_counts_however_deep(torch):
    memory, lost = torch.OutOfMemoryError("CUDA out of memory."), torch.AcceleratorError(ASSERT)
    assert classify(raised(ValueError("no"), memory)) is GpuError.OUT_OF_MEMORY
    assert classify(raised(KeyError(), raised(ValueError("no"), memory))) is GpuError.OUT_OF_MEMORY
    assert classify(raised(KeyError(), raised(ValueError("no"), lost))) is GpuError.LOST


@pytest.mark.torch
def test_a_loss_that_was_caught_is_still_one(torch):
    assert classify(raised_over(torch.AcceleratorError(ASSERT), ValueError("no"))) is GpuError.LOST
    assert classify(raised_over(RuntimeError(ASSERT), ValueError("no"), hidden=True)) is GpuError.LOST


@pytest.mark.torch
def test_want_of_memory_that_was_caught_may_have_been_dealt_with(torch):
    assert classify(raised_over(torch.OutOfMemoryError("CUDA out of memory."), ValueError("no"))) is None


@pytest.mark.torch
def test_a_loss_outweighs_want_of_memory(torch):
    memory, lost = torch.OutOfMemoryError("CUDA out of memory."), torch.AcceleratorError(ASSERT)
    assert classify(raised(memory, lost)) is GpuError.LOST
    assert classify(raised_over(lost, torch.OutOfMemoryError("CUDA out of memory."))) is GpuError.LOST


@pytest.mark.torch
def test_exceptions_that_led_to_each_other_end_the_search(torch):
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) is None
    second.__context__ = torch.AcceleratorError(ASSERT)
    assert classify(first) is GpuError.LOST


@pytest.mark.torch
def test_want_of_the_processors_own_memory_says_nothing_about_the_device(torch):
    with pytest.raises(RuntimeError, match="allocate") as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert not isinstance(caught.value, torch.OutOfMemoryError)
    assert classify(caught.value) is None


@pytest.mark.torch
def test_releasing_works_where_there_is_no_device(torch):
    release_memory(raised(torch.OutOfMemoryError("CUDA out of memory.")))
    assert not torch.cuda.is_initialized()  # nor was it touched for that


def test_torch_is_not_imported_and_nothing_is_told_apart_without_it():
    assert run(
        "import sys\n"
        "from flash_runtime.usercode.gpu_errors import classify, release_memory\n"
        "assert 'torch' not in sys.modules\n"
        "error = RuntimeError('CUDA error: device-side assert triggered')\n"
        "print(classify(error), release_memory(error), 'torch' in sys.modules)"
    ) == ["None", "None", "False"]


def test_a_torch_that_is_half_imported_or_older_than_its_exceptions_is_no_fault():
    # A handler may import torch in its thread while another one raises; before 2.5 the name was torch.cuda's.
    assert run(
        "import sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "from flash_runtime.usercode.gpu_errors import classify\n"
        "print(classify(ValueError('an ordinary one')))"
    ) == ["None"]


class Tensor:
    """Stands for what is large, and can be referred to weakly."""


def fail(seen):
    held = Tensor()
    seen.append(weakref.ref(held))
    raise RuntimeError("no memory")


def wrap(seen):
    held = Tensor()
    seen.append(weakref.ref(held))
    try:
        fail(seen)
    except RuntimeError as error:
        raise ValueError("it failed") from error


def fail_again(seen):
    try:
        fail(seen)
    except RuntimeError:
        fail(seen)


@pytest.mark.parametrize("call", [fail, wrap, fail_again])
def test_what_the_frames_of_a_failed_request_hold_is_freed(call):
    seen = []
    with pytest.raises((RuntimeError, ValueError)) as caught:
        call(seen)
    gc.collect()
    assert seen
    assert None not in [ref() for ref in seen]
    release_memory(caught.value)
    assert {ref() for ref in seen} == {None}
    assert caught.value.__traceback__ is not None


def test_a_cycle_that_a_failed_request_left_is_freed():
    held = Tensor()
    held.itself = held
    seen = weakref.ref(held)
    del held
    release_memory(raised(RuntimeError("no memory")))
    assert seen() is None
