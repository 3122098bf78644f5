"""Slots: each worker has its own device, and a replacement gets its predecessor's."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.serving import Server, serve, until, user_code

DEVICE = """
import os

def device():
    return {"pid": os.getpid(), "device": os.environ.get("CUDA_VISIBLE_DEVICES")}

def die():
    os._exit(1)
"""
ROUTES = [("GET", "/device", "device"), ("POST", "/die", "die")]


def devices(server: Server, enough: int) -> dict[str, int]:
    """Which pid has which device, asked on new connections until `enough` devices have answered."""
    found: dict[str, int] = {}

    def ask() -> bool:
        with httpx.Client(base_url=server.url) as client:
            try:
                answer = client.get("/device").json()
            except httpx.TransportError:
                return False
        found[answer["device"]] = answer["pid"]
        return len(found) >= enough

    until(ask, f"{enough} devices answer")
    return found


def test_each_worker_has_a_device_and_a_killed_ones_replacement_gets_the_same(tmp_path):
    directory = user_code(tmp_path, DEVICE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, CUDA_VISIBLE_DEVICES="0,1,2,3") as server:
        before = devices(server, 4)
        assert sorted(before) == ["0", "1", "2", "3"]
        os.kill(before["2"], signal.SIGKILL)
        # The other three serve on, and health does not waver.
        for _ in range(30):
            assert server.ping() == 200
        until(lambda: devices(server, 4)["2"] != before["2"], "a replacement on device 2")
        after = devices(server, 4)
        assert {device: pid for device, pid in after.items() if device != "2"} == {
            device: pid for device, pid in before.items() if device != "2"
        }


def test_workers_of_a_cpu_container_are_as_many_as_asked(tmp_path):
    directory = user_code(tmp_path, DEVICE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, WEB_CONCURRENCY=2) as server:
        until(lambda: len(server.workers()) == 2, "two workers")
        assert server.client.get("/device").json()["pid"] in server.workers()


def test_a_handler_that_ends_its_process_costs_only_its_own_request(tmp_path):
    directory = user_code(tmp_path, DEVICE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_WORKERS=1) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            server.client.post("/die")
        until(
            lambda: server.ping() == 200 and server.client.get("/device").status_code == 200, "a replacement"
        )


def test_the_kernel_that_needs_memory_takes_a_worker_before_the_supervisor(tmp_path):
    def adjustment(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    with serve(tmp_path, FLASH_APP_DIR=user_code(tmp_path, DEVICE, ROUTES)) as server:
        [worker] = server.workers()
        assert adjustment(worker) > adjustment(server.process.pid)


def test_a_killed_health_process_is_replaced(tmp_path):
    directory = user_code(tmp_path, DEVICE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory) as server:
        assert server.ping(health_port=True) == 200
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        health = int(children.read_text().split()[0])
        os.kill(health, signal.SIGKILL)
        until(lambda: server.ping("/livez", health_port=True) == 200, "another health process")


def test_workers_end_with_a_killed_supervisor(tmp_path):
    directory = user_code(tmp_path, DEVICE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_WORKERS=2) as server:
        until(lambda: len(server.workers()) == 2, "two workers")
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "no orphans")
        assert server.process.returncode == -signal.SIGKILL
