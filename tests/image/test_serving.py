"""What an orchestrator sees of a container: health, stop, deaths inside, limits, logs."""

import concurrent.futures
import json
import signal
import time

import httpx
import pytest

from tests.image.containers import Container
from tests.serving import until

SLOW_START = """
import time
time.sleep(2)

def hello():
    return "hello"
"""
WORK = """
import asyncio
import logging
import os
import subprocess
import sys
import time

def pid():
    return os.getpid()

def eat(mebibytes: int):
    return len(bytearray(os.urandom(1024)) * 1024 * mebibytes)

async def slow(seconds: float):
    await asyncio.sleep(seconds)
    return "done"

async def block(seconds: float):
    time.sleep(seconds)
    return "done"

def orphans(count: int):
    subprocess.run(["sh", "-c", f"for i in $(seq {count}); do (sleep 0.5 &) ; done"], check=True)
    return "left alone"

def speak():
    print("printed")
    print("two\\nlines", file=sys.stderr)
    logging.getLogger("mine").warning("logged %s", "once")
    raise ValueError("a fault\\nof two lines")
"""
ROUTES = [
    ("GET", "/pid", "pid"),
    ("POST", "/eat", "eat"),
    ("POST", "/slow", "slow"),
    ("POST", "/block", "block"),
    ("POST", "/orphans", "orphans"),
    ("GET", "/speak", "speak"),
]


def worker_pids(container: Container, enough: int) -> set[int]:
    """The workers' pids in the container, asked on new connections until `enough` have answered."""
    found: set[int] = set()

    def ask() -> bool:
        try:
            found.add(httpx.get(f"{container.url}/pid", timeout=5).json())
        except httpx.TransportError:
            return False
        return len(found) >= enough

    until(ask, f"{enough} workers answer")
    return found


def health(container: Container) -> str:
    status: str = container.inspect()["State"]["Health"]["Status"]
    return status


def test_ping_says_204_then_200_and_docker_says_healthy(containers):
    container = containers.start(artifact=containers.artifact(SLOW_START, [("GET", "/hello", "hello")]))
    seen: list[int] = []

    def ready() -> bool:
        status = container.ping()
        if status != 0 and status not in seen:
            seen.append(status)
        return status == 200

    until(ready, "ready")
    assert seen == [204, 200]
    assert httpx.get(f"{container.url}/hello").json() == "hello"
    until(lambda: health(container) == "healthy", "docker says healthy")


def test_docker_says_unhealthy_of_nothing_that_only_blocks(containers):
    container = containers.start(artifact=containers.artifact(WORK, ROUTES)).until_ready()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        blocked = pool.submit(httpx.post, f"{container.url}/block", json={"seconds": 3}, timeout=20)
        time.sleep(0.5)
        assert container.run("flash-runtime", "health").strip() == "healthy: /ping answers 200"
        assert blocked.result().json() == "done"


def test_docker_stop_finishes_the_request_in_flight_and_exits_0(containers):
    container = containers.start(artifact=containers.artifact(WORK, ROUTES)).until_ready()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        request = pool.submit(httpx.post, f"{container.url}/slow", json={"seconds": 3}, timeout=20)
        time.sleep(1)
        container.inner.stop(timeout=30)
        assert request.result().status_code == 200
        assert request.result().json() == "done"
    assert container.wait() == 0
    assert container.lines()[-1]["message"] == "stopped"


def test_docker_stop_while_user_code_is_imported_exits_0(containers):
    slow = SLOW_START.replace("sleep(2)", "sleep(60)")
    container = containers.start(artifact=containers.artifact(slow, [("GET", "/hello", "hello")]))
    until(lambda: container.ping() == 204, "starting")
    container.inner.stop(timeout=20)
    assert container.wait() == 0


def test_a_worker_killed_inside_leaves_the_container_serving(containers):
    artifact = containers.artifact(WORK, ROUTES)
    container = containers.start(artifact=artifact, environment={"FLASH_WORKERS": "2"}).until_ready()
    victim, survivor = worker_pids(container, 2)
    container.run("sh", "-c", f"kill -KILL {victim}")
    answers = [httpx.get(f"{container.url}/pid", timeout=5) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 20
    replaced = until_replaced(container, victim, survivor)
    assert container.running()
    assert survivor in replaced


def until_replaced(container: Container, victim: int, survivor: int) -> set[int]:
    """The two workers' pids once the victim's slot has another."""
    found: set[int] = set()

    def ask() -> bool:
        found.add(httpx.get(f"{container.url}/pid", timeout=5).json())
        return len(found - {victim, survivor}) == 1 and survivor in found

    until(ask, "the victim's replacement answers")
    return found


def test_docker_kill_of_the_container_ends_it_at_once(containers):
    container = containers.start(artifact=containers.artifact(WORK, ROUTES)).until_ready()
    container.inner.kill(signal.SIGKILL)
    assert container.wait(5) == 137


def test_a_thousand_orphaned_grandchildren_leave_no_zombies(containers):
    container = containers.start(artifact=containers.artifact(WORK, ROUTES)).until_ready()
    assert httpx.post(f"{container.url}/orphans", json={"count": 1000}, timeout=60).status_code == 200

    def states() -> list[str]:
        return container.run("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | cut -d ' ' -f 2-3").splitlines()

    until(lambda: not any("sleep" in state for state in states()), "the orphans end")
    assert [state for state in states() if state.endswith(" Z")] == []
    assert container.ping() == 200


def test_pid_1_is_an_init(containers):
    container = containers.start(artifact=containers.artifact(WORK, ROUTES)).until_ready()
    assert container.run("cat", "/proc/1/comm").strip() == "tini"


def test_a_worker_over_the_memory_limit_is_replaced_and_the_others_serve_on(containers):
    container = containers.start(
        artifact=containers.artifact(WORK, ROUTES),
        environment={"FLASH_WORKERS": "2"},
        nano_cpus=1_000_000_000,
        mem_limit="512m",
        memswap_limit="512m",
    ).until_ready()
    before = worker_pids(container, 2)
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{container.url}/eat", json={"mebibytes": 600}, timeout=30)
    answers = [httpx.get(f"{container.url}/pid", timeout=5) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 20
    until(lambda: len(worker_pids(container, 2) & before) == 1, "the worker is replaced")
    assert container.running()
    ended = [line["message"] for line in container.lines() if "ended" in line["message"]]
    assert len(ended) == 1
    assert "SIGKILL, perhaps out of memory" in ended[0]


def test_port_and_port_health_are_listened_on(containers):
    container = containers.start(
        artifact=containers.artifact(WORK, ROUTES),
        environment={"PORT": "8080", "PORT_HEALTH": "9090"},
        port=8080,
        ports={"9090/tcp": ("127.0.0.1", None)},
    ).until_ready()
    health_port = int(container.inspect()["NetworkSettings"]["Ports"]["9090/tcp"][0]["HostPort"])
    assert container.ping(port=health_port) == 200
    assert container.ping("/readyz", port=health_port) == 200
    assert container.ping("/pid", port=health_port) == 404
    until(lambda: health(container) == "healthy", "docker says healthy")


def test_every_line_of_the_log_is_a_json_object(containers):
    container = containers.start(artifact=containers.artifact(WORK, ROUTES)).until_ready()
    assert httpx.get(f"{container.url}/speak").status_code == 500
    container.inner.stop(timeout=10)
    lines = container.lines()
    messages = [line["message"] for line in lines]
    assert {"printed", "two", "lines", "logged once"} <= set(messages)
    assert any("a fault\nof two lines" in line.get("traceback", "") for line in lines)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_secrets_given_by_environment_never_show_in_the_log(containers, level):
    secrets = {"FLASH_API_KEY": "key-3f9a", "FLASH_EXECUTE_TOKEN": "token-77b1", "MY_PASSWORD": "word-c0de"}
    container = containers.start(
        artifact=containers.artifact(WORK, ROUTES), environment={**secrets, "LOG_LEVEL": level}
    ).until_ready()
    bearer = {"authorization": f"Bearer {secrets['FLASH_API_KEY']}"}
    assert httpx.get(f"{container.url}/pid").status_code == 401
    assert httpx.get(f"{container.url}/pid", headers=bearer).status_code == 200
    assert httpx.get(f"{container.url}/speak", headers=bearer).status_code == 500
    container.inner.stop(timeout=10)
    assert container.wait() == 0
    assert not [secret for secret in secrets.values() if secret in container.log]


def test_a_secret_that_is_refused_is_not_shown(containers):
    code, log = containers.finish(environment={"FLASH_API_KEY": "two words", "PORT": "nope"})
    assert code == 78
    assert "two words" not in log
    assert "FLASH_API_KEY" in json.loads(log.splitlines()[-1])["message"]
