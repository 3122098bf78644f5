"""Which device each worker gets, as torch sees it there."""

import os

import httpx
import pytest

from tests.gpu.machine import ask, gpus, where, workers

pytestmark = pytest.mark.gpu

RESTRICTED = os.environ.get("CUDA_VISIBLE_DEVICES")
"""On a machine that is shared: the devices that may be used."""
WITHOUT = """
import os
import torch

def where():
    return {"visible": os.environ["CUDA_VISIBLE_DEVICES"], "available": torch.cuda.is_available()}
"""


def test_each_device_that_may_be_used_has_one_worker_which_sees_no_other(serving):
    expected = [each.id for each in gpus()]
    with serving(CUDA_VISIBLE_DEVICES=RESTRICTED) as server:
        found = workers(server, len(expected)).values()
    assert sorted(each["visible"] for each in found) == sorted(expected)
    for each in found:
        assert each["devices"] == 1
        if each["visible"].startswith("GPU-"):
            assert each["uuid"] == each["visible"].removeprefix("GPU-"), "torch leaves the prefix out"


def test_a_device_may_be_chosen_by_its_index(serving):
    index = RESTRICTED.split(",")[0] if RESTRICTED else "0"
    with serving(CUDA_VISIBLE_DEVICES=index) as server:
        found = where(server)
    assert (found["visible"], found["devices"]) == (index, 1)


def test_two_workers_on_one_device_are_given_the_same_one_and_both_run_kernels_on_it(serving, gpu):
    with serving(FLASH_WORKERS=2) as server:
        found = workers(server, 2).values()
        metrics = httpx.get(f"http://127.0.0.1:{server.health_port}/metrics").text
        assert "\nflash_slots 2\n" in metrics
    assert [(each["visible"], each["devices"], each["sum"]) for each in found] == [(gpu.id, 1, 65536)] * 2
    assert len({each["uuid"] for each in found}) == 1


def test_with_an_empty_cuda_visible_devices_a_worker_serves_and_sees_no_device(serving):
    with serving(WITHOUT, [("GET", "/where", "where")], CUDA_VISIBLE_DEVICES="") as server:
        assert ask(server, "/where").json() == {"visible": "", "available": False}
