"""GPU faults: memory that is short costs a request, a lost device a worker. With torch's own exceptions."""

import httpx
import pytest

from tests.serving import Server, serve, until, user_code

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.faults]

SOURCE = """
import os
import time

import torch
from fastapi import HTTPException

emptied = []
torch.cuda.empty_cache = lambda: emptied.append(1)

def lost(code):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    error.error_code = code
    return error

def run():
    return {"pid": os.getpid(), "device": os.environ["CUDA_VISIBLE_DEVICES"], "emptied": len(emptied)}

def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

async def illegal_access():
    raise lost(700)

def invalid_value():
    raise lost(1)

def hidden():
    try:
        raise lost(710)
    except RuntimeError:
        raise HTTPException(418, "something went wrong")

def streamed():
    yield "begun"
    time.sleep(0.1)
    raise lost(719)
"""
BROKEN_DEVICE = """
def use():
    if os.environ["CUDA_VISIBLE_DEVICES"] == "5":
        raise lost(214)
    return os.environ["CUDA_VISIBLE_DEVICES"]
"""
ROUTES = [
    ("GET", "/run", "run"),
    ("GET", "/oom", "out_of_memory"),
    ("GET", "/illegal", "illegal_access"),
    ("GET", "/invalid", "invalid_value"),
    ("GET", "/hidden", "hidden"),
    ("GET", "/streamed", "streamed"),
]


@pytest.fixture
def server(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {"CUDA_VISIBLE_DEVICES": "7"}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as running:
        yield running


def run(server: Server) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{server.url}/run").json()
    return found


def test_cuda_out_of_memory_is_503_empties_the_cache_and_the_worker_lives(server):
    before = run(server)
    answer = server.client.get("/oom")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["detail"] == "The GPU is out of memory: try again."
    assert run(server) == before | {"emptied": 1}
    assert any("OutOfMemoryError" in line.get("traceback", "") for line in server.lines())


def test_an_error_of_cuda_that_passes_is_500_and_the_worker_lives(server):
    before = run(server)
    assert server.client.get("/invalid").status_code == 500
    assert run(server) == before


@pytest.mark.parametrize("path", ["/illegal", "/hidden"])
def test_a_lost_device_fails_the_request_and_a_new_worker_takes_the_same_device(server, path):
    before = run(server)
    assert server.client.get(path).status_code == 500
    until(lambda: server.ping(health_port=True) != 200, "it turns unready")
    until(lambda: server.ping() == 200, "a replacement")
    after = run(server)
    assert after["pid"] != before["pid"]
    assert after["device"] == before["device"] == "7"
    assert any("No further request can use the device" in line["message"] for line in server.lines())


def test_a_device_that_is_lost_within_a_stream_is_noticed(server):
    before = run(server)
    with pytest.raises(httpx.RemoteProtocolError):
        server.client.get("/streamed")
    until(lambda: server.ping() == 200 and run(server)["pid"] != before["pid"], "a replacement")


def test_a_slot_whose_device_keeps_failing_is_given_up_and_health_says_so(tmp_path):
    source = SOURCE + BROKEN_DEVICE
    directory = user_code(tmp_path, source, [*ROUTES, ("GET", "/use", "use")])
    settings = {"CUDA_VISIBLE_DEVICES": "4,5"}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as server:

        def given_up() -> bool:
            httpx.get(f"{server.url}/use")
            return "slot 1 is given up" in server.log

        until(given_up, "slot 1 is given up")
        health = httpx.get(f"http://127.0.0.1:{server.health_port}/ping")
        assert (health.status_code, health.json()) == (200, {"status": "degraded"})
        metrics = httpx.get(f"http://127.0.0.1:{server.health_port}/metrics").text
        assert "flash_slots_given_up 1" in metrics
        for _ in range(5):
            answer = httpx.get(f"{server.url}/use")
            assert (answer.status_code, answer.json()) == (200, "4")


def test_a_container_that_has_lost_every_device_ends_with_70(server):
    for _ in range(3):
        until(lambda: server.ping() == 200 or server.process.poll() is not None, "ready")
        assert server.client.get("/illegal").status_code == 500
        until(lambda: server.ping() != 200, "it turns unready")
    assert server.process.wait(30) == 70
    assert "illegal memory access" in server.lines()[-1]["message"]
