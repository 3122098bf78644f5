"""Memory of a real device: want of it costs one request, and what a worker held is free once it is gone."""

import os
import signal

import pytest

from tests.gpu.machine import MEBIBYTE, START_SECONDS, ask, where, workers
from tests.serving import until

pytestmark = pytest.mark.gpu

HELD = 2048
"""MiB: far more than a CUDA context and torch's caches take."""
SLACK = 512 * MEBIBYTE
ENDINGS = ["killed", "lost its device", "replaced by SIGHUP"]


def test_out_of_memory_is_503_what_the_request_held_is_released_and_the_next_request_works(serving):
    with serving() as server:
        before = where(server)
        response = ask(server, "/want_too_much")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        after = where(server)
        assert (after["pid"], after["allocated"]) == (before["pid"], before["allocated"])
        assert after["reserved"] <= before["reserved"], "nor has torch kept it for later"
        assert "OutOfMemoryError" in server.log
        assert server.ping() == 200


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_memory_of_a_worker_is_free_once_it_is_replaced(serving, gpu, ending):
    with serving() as server:
        first = where(server)["pid"]
        loaded = gpu.used()
        assert ask(server, "/hold", mebibytes=HELD).status_code == 200
        assert gpu.used() >= loaded + HELD * MEBIBYTE - SLACK
        if ending == "killed":
            os.kill(first, signal.SIGKILL)
        elif ending == "lost its device":
            assert ask(server, "/reach_too_far").status_code == 500
        else:
            server.process.send_signal(signal.SIGHUP)
        until(lambda: server.ping() == 200 and where(server)["pid"] != first, "another", START_SECONDS)
        until(lambda: gpu.used() <= loaded + SLACK, "its predecessor's memory is free")


def test_a_worker_that_is_out_of_memory_works_again_once_another_one_on_its_device_is_gone(serving):
    with serving(FLASH_WORKERS=2) as server:
        first, second = workers(server, 2)

        def holds_most(pid: int) -> bool:
            """Whether this worker has the memory; the other one's answer is a 200, too, and means nothing."""
            response = ask(server, "/hold_most", on=pid)
            return response.status_code == 200 and response.json()["pid"] == pid

        until(lambda: holds_most(first), "the first worker has most of the device")
        until(lambda: ask(server, "/hold_most", on=second).status_code == 503, "the second one has no room")
        os.kill(first, signal.SIGKILL)
        until(lambda: holds_most(second), "there is room again", START_SECONDS)
