"""Cold starts in real processes: what the log says of them, and what comes before what."""

import httpx
import pytest

from tests.serving import serve, until, user_code

pytestmark = pytest.mark.smoke

ROUTES = [("GET", "/hello", "hello")]
PHASES = ["interpreter", "library", "settings", "health", "framework", "unpack", "preload"]
PHASES += ["fork", "user_code", "serving", "total"]


def started(server) -> list[dict[str, float]]:
    return [line["ms"] for line in server.lines() if line["message"] == "started"]


def test_one_line_of_the_log_tells_every_phase_of_a_start(tmp_path):
    source = "import time\ntime.sleep(0.3)\ndef hello():\n    return 1\n"
    with serve(tmp_path, FLASH_APP_DIR=user_code(tmp_path, source, ROUTES), FLASH_WORKERS=2) as server:
        until(lambda: started(server), "the line of the start")
        until(lambda: server.log.count('"ready"') == 2, "both workers are ready")
    [phases] = started(server)
    assert list(phases) == PHASES
    assert abs(sum(phases.values()) - 2 * phases["total"]) < 2
    assert phases["user_code"] > 300


def test_a_start_that_succeeds_at_its_second_try_is_told_whole(tmp_path):
    source = "import os\nif not os.path.exists('tried'):\n    open('tried', 'w').close()\n    1 / 0\n"
    source += "def hello():\n    return 1\n"
    with serve(tmp_path, FLASH_APP_DIR=user_code(tmp_path, source, ROUTES)) as server:
        until(lambda: started(server), "the line of the start")
    [phases] = started(server)
    assert abs(sum(phases.values()) - 2 * phases["total"]) < 2


def test_a_replaced_worker_is_not_a_start(tmp_path):
    source = "import os\ndef hello():\n    os._exit(1)\n"
    with serve(tmp_path, FLASH_APP_DIR=user_code(tmp_path, source, ROUTES)) as server:
        until(lambda: started(server), "the line of the start")
        with pytest.raises(httpx.TransportError):
            server.client.get("/hello")
        until(lambda: server.log.count('"ready"') == 2, "another worker is ready")
        until(lambda: server.ping() == 200, "it serves")
    assert len(started(server)) == 1


def test_a_worker_imports_nothing_of_the_framework_after_the_fork(tmp_path):
    source = """
import sys
before = set(sys.modules)
def hello(name: str = "x", count: int = 1):
    return sorted(set(sys.modules) - before)
"""
    with serve(tmp_path, FLASH_APP_DIR=user_code(tmp_path, source, ROUTES)) as server:
        server.client.get("/hello")
        assert server.client.get("/hello").json() == []
