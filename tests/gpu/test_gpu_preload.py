"""FLASH_PRELOAD on a real device: what initialises CUDA is refused, and after the rest workers can use it."""

import os
import signal

import pytest

from tests.gpu.machine import APPLICATION, ROUTES, START_SECONDS, driver_environment, where, workers
from tests.serving import run, until, user_code

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.zeros(1, device='cuda')\n",
        "import torch\nassert torch.cuda.is_available()\n",
        "import ctypes\nassert ctypes.CDLL('libcuda.so.1').cuInit(0) == 0\n",
    ],
    ids=["a tensor", "is_available", "the driver alone"],
)
def test_a_module_that_initialises_cuda_ends_the_process_with_70_and_is_named(tmp_path, gpu, source):
    directory = user_code(tmp_path, APPLICATION, ROUTES)
    (directory / "heavy.py").write_text(source)
    done = run(
        "serve",
        timeout=START_SECONDS,
        FLASH_APP_DIR=directory,
        FLASH_PRELOAD="heavy",
        CUDA_VISIBLE_DEVICES=gpu.id,
        **driver_environment(),
    )
    assert done.returncode == 70, done.stderr
    assert "`heavy`, whose import initialised CUDA" in done.stderr


@pytest.mark.parametrize(
    "source",
    [
        "os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'\nimport torch\nassert torch.cuda.is_available()\n",
        "import pynvml\npynvml.nvmlInit()\npynvml.nvmlDeviceGetHandleByIndex(0)\n",
    ],
    ids=["is_available by NVML", "NVML"],
)
def test_after_a_module_that_only_looks_a_worker_can_use_cuda(serving, source):
    looks = f"import os\n{source}pid = os.getpid()\n"
    application = APPLICATION + "\nimport heavy\n\ndef imported_in():\n    return heavy.pid\n"
    routes = [*ROUTES, ("GET", "/imported_in", "imported_in")]
    with serving(application, routes, files={"heavy.py": looks}, FLASH_PRELOAD="heavy") as server:
        assert server.client.get("/imported_in").json() == server.process.pid
        assert where(server)["sum"] == 65536


def test_after_torch_is_preloaded_every_worker_and_its_replacement_can_use_cuda(serving):
    source = f"import os, sys\nforked_with_torch = 'torch' in sys.modules\n{APPLICATION}"
    source += "\ndef preloaded():\n    return forked_with_torch\n"
    routes = [*ROUTES, ("GET", "/preloaded", "preloaded")]
    with serving(source, routes, FLASH_PRELOAD="torch", FLASH_WORKERS=2) as server:
        first, second = workers(server, 2)
        assert server.client.get("/preloaded").json() is True
        os.kill(first, signal.SIGKILL)
        until(lambda: where(server)["pid"] not in (first, second), "a replacement", START_SECONDS)
