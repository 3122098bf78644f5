"""What health says, and that nothing holds it up."""

import time

import httpx

from tests import held
from tests.serving import run, serve, until, user_code

HELD_IMPORT = held.IMPORT + "def hello():\n    return 'hello'\n"
BLOCKING = """
import time

async def block(seconds: float):
    time.sleep(seconds)
    return "done"

async def spin(seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"
"""


def test_ping_is_204_while_a_module_imports_and_200_after(tmp_path):
    directory = user_code(tmp_path, HELD_IMPORT, [("GET", "/hello", "hello")])
    with serve(tmp_path, wait_ready=False, FLASH_APP_DIR=directory) as server:
        until(lambda: server.ping() == 204, "the first 204")
        answer = server.client.get("/hello")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        held.release(directory)
        until(lambda: server.ping() == 200, "ready")
        assert server.client.get("/hello").json() == "hello"


def test_health_is_answered_before_a_missing_artifact_is_given_up(tmp_path):
    settings = {"FLASH_APP_DIR": tmp_path / "app", "FLASH_BUILD_ARTIFACT_PATH": tmp_path / "late.tar.gz"}
    with serve(tmp_path, wait_ready=False, FLASH_ARTIFACT_WAIT=20, **settings) as server:
        until(lambda: server.ping() == 204, "the first 204")
        assert server.stop() == 0


def test_the_only_worker_answers_ping_while_its_handler_blocks(tmp_path):
    directory = user_code(tmp_path, BLOCKING, [("GET", "/block", "block"), ("GET", "/spin", "spin")])
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_WORKERS=1) as server:
        for path in ("/block", "/spin"):
            with httpx.Client(base_url=server.url) as blocked:
                try:
                    blocked.get(path, params={"seconds": 2}, timeout=httpx.Timeout(5, read=0.3))
                except httpx.ReadTimeout:
                    pass
            waits = []
            for _ in range(20):
                started = time.perf_counter()
                assert server.ping() == 200
                waits.append(time.perf_counter() - started)
            # Not a speed bar: an answer that waited for the handler would take seconds.
            assert sorted(waits)[10] < 0.5
            assert server.client.get(path, params={"seconds": 0}).json() == "done"


def test_a_health_port_of_its_own_answers_probes(tmp_path):
    directory = user_code(tmp_path, HELD_IMPORT, [("GET", "/hello", "hello")])
    with serve(tmp_path, wait_ready=False, separate_health=True, FLASH_APP_DIR=directory) as server:
        until(lambda: server.ping(health_port=True) == 204, "the first 204")
        assert server.ping("/readyz", health_port=True) == 503
        assert server.ping("/livez", health_port=True) == 200
        held.release(directory)
        until(lambda: server.ping("/readyz", health_port=True) == 200, "ready")
        assert server.ping(health_port=True) == 200
        assert server.ping("/hello", health_port=True) == 404


def test_the_health_path_can_be_another(tmp_path):
    directory = user_code(tmp_path, BLOCKING, [("GET", "/block", "block")])
    with serve(tmp_path, wait_ready=False, FLASH_APP_DIR=directory, HEALTH_CHECK_PATH="/healthz") as server:
        until(lambda: server.ping("/healthz") == 200, "ready")
        assert server.ping("/ping") == 404


def test_the_health_command_tells_ready_from_starting_and_gone(tmp_path):
    directory = user_code(tmp_path, HELD_IMPORT, [("GET", "/hello", "hello")])
    with serve(tmp_path, wait_ready=False, FLASH_APP_DIR=directory) as server:
        until(lambda: server.ping() == 204, "the first 204")
        assert run("health", PORT=server.port).returncode == 1
        held.release(directory)
        until(lambda: server.ping() == 200, "ready")
        assert run("health", PORT=server.port).returncode == 0
        server.stop()
        assert run("health", PORT=server.port).returncode == 1
