"""A device that is lost, as CUDA loses it: a device-side assert, and each call of the process after it."""

import time

import pytest

from tests.gpu.machine import START_SECONDS, ask, where, workers
from tests.serving import until

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("path", ["/reach_too_far", "/swallow_and_go_on"])
def test_a_device_side_assert_is_500_and_a_new_worker_takes_the_same_device(serving, path):
    # Of the second path the first error is caught: the call after it says that the device is lost.
    with serving() as server:
        before = where(server)
        assert ask(server, path).status_code == 500
        until(lambda: server.ping(health_port=True) != 200, "it turns unready")
        until(lambda: server.ping() == 200, "a replacement", START_SECONDS)
        after = where(server)
        assert after["pid"] != before["pid"]
        assert (after["visible"], after["uuid"]) == (before["visible"], before["uuid"])
        assert "No further request can use the device" in server.log


def test_while_a_worker_that_lost_its_device_is_replaced_another_one_on_it_serves_on(serving):
    with serving(FLASH_WORKERS=2) as server:
        lost, second = before = workers(server, 2)
        until(lambda: ask(server, "/lose", on=lost).status_code == 500, "this one has lost its device")
        accepts_no_more = time.monotonic() + 1
        answered: list[int] = []

        def replaced() -> bool:
            began, response = time.monotonic(), ask(server, "/where")
            if response.status_code == 200:
                answered.append(response.json()["pid"])
            else:
                assert began < accepts_no_more, server.log
            assert server.ping(health_port=True) == 200
            return bool({*answered} - {lost, second})

        until(replaced, "a replacement", START_SECONDS)
        assert lost not in answered
        assert second in answered
        after = workers(server, 2)
        assert second in after
        assert {each["uuid"] for each in after.values()} == {each["uuid"] for each in before.values()}
