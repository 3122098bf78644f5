"""FLASH_PRELOAD in real processes: what is shared, what is refused, and that the boot stays in hand."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.serving import run, serve, until, user_code

ROUTES = [("GET", "/pids", "pids")]
SOURCE = """
import os
import sys

def pids():
    heavy = sys.modules.get("heavy")
    return {"worker": os.getpid(), "imported_in": heavy and heavy.pid, "path": sys.path}
"""
HEAVY = "import os\npid = os.getpid()\n"


def app(tmp_path: Path, heavy: str = HEAVY, source: str = SOURCE) -> Path:
    directory = user_code(tmp_path, source, ROUTES)
    (directory / "heavy.py").write_text(heavy)
    return directory


def pss(pid: int) -> int:
    """The memory of a process in kB, what it shares counted in part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0])


def last(done) -> str:
    """The message of the log's last line, which must be critical."""
    line = json.loads(done.stderr.splitlines()[-1])
    assert line["level"] == "CRITICAL"
    return line["message"]


def test_a_preloaded_module_is_imported_once_by_the_supervisor_and_is_in_every_worker(tmp_path):
    directory = app(tmp_path)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_WORKERS=2, FLASH_PRELOAD="heavy,decimal") as server:
        until(lambda: server.log.count('"ready"') == 2, "both workers are ready")
        found = [server.client.get("/pids", headers={"connection": "close"}).json() for _ in range(20)]
        assert {each["worker"] for each in found} == set(server.workers())
        assert {each["imported_in"] for each in found} == {server.process.pid}
        assert server.stop() == 0
    assert all(
        each["path"][0] == str(directory) and each["path"].count(str(directory)) == 1 for each in found
    )


def test_without_preload_the_supervisor_imports_nothing_of_the_users(tmp_path):
    directory = app(tmp_path, source="import heavy\n" + SOURCE)
    with serve(tmp_path, FLASH_APP_DIR=directory) as server:
        found = server.client.get("/pids").json()
    assert found["imported_in"] == found["worker"]


def test_a_preloaded_modules_memory_is_shared(tmp_path):
    directory = app(tmp_path, HEAVY + "weights = [bytes(1000) for _ in range(100_000)]\n")
    source = (directory / "main.py").read_text()
    (directory / "main.py").write_text("import heavy\n" + source)
    totals = []
    for preload in ("", "heavy"):
        with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_WORKERS=3, FLASH_PRELOAD=preload) as server:
            until(lambda server=server: server.log.count('"ready"') == 3, "every worker is ready")
            totals.append(sum(map(pss, [server.process.pid, *server.workers()])))
    apart, shared = totals
    assert apart - shared > 150_000, "kB: two of three copies of 100 MB are spared"


def test_replaced_workers_share_the_preloaded_modules_too(tmp_path):
    directory = app(tmp_path)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_PRELOAD="heavy") as server:
        before = server.client.get("/pids").json()
        os.kill(server.process.pid, signal.SIGHUP)
        until(lambda: server.client.get("/pids").json()["worker"] != before["worker"], "another worker")
        assert server.client.get("/pids").json()["imported_in"] == server.process.pid


def test_what_a_preloaded_module_prints_and_logs_are_lines_of_the_log(tmp_path):
    noise = "print('from print')\nimport logging\nlogging.warning('from logging')\n"
    with serve(tmp_path, FLASH_APP_DIR=app(tmp_path, noise + HEAVY), FLASH_PRELOAD="heavy") as server:
        assert {"from print", "from logging"} <= {line["message"] for line in server.lines()}


def test_a_preloaded_module_does_not_see_the_secrets_and_finds_its_files(tmp_path):
    heavy = HEAVY + "assert 'FLASH_API_KEY' not in os.environ\nassert os.path.exists('heavy.py')\n"
    directory = app(tmp_path, heavy)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_PRELOAD="heavy", FLASH_API_KEY="key") as server:
        assert server.client.get("/pids", headers={"authorization": "Bearer key"}).status_code == 200


def test_a_preloaded_module_that_uses_the_gpu_exits_70_and_is_named_with_the_remedy(tmp_path):
    directory = app(tmp_path, "import torch\n")
    (directory / "torch.py").write_text("class cuda:\n    is_initialized = staticmethod(lambda: True)\n")
    for command in ("serve", "check"):
        done = run(command, FLASH_APP_DIR=directory, FLASH_PRELOAD="heavy")
        assert done.returncode == 70, done.stderr
        assert "`heavy`, whose import initialised CUDA" in done.stderr
        assert "import `heavy` in the handler's module instead" in done.stderr


@pytest.mark.parametrize(
    ("heavy", "expected"),
    [
        ("def inner():\n    1 / 0\ninner()\n", "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    ],
    ids=["raises", "missing-dependency", "sys.exit"],
)
def test_a_preloaded_module_that_cannot_be_imported_exits_70_with_its_traceback_last(
    tmp_path, heavy, expected
):
    done = run("serve", FLASH_APP_DIR=app(tmp_path, heavy), FLASH_PRELOAD="heavy")
    assert done.returncode == 70, done.stderr
    message = last(done)
    assert message.startswith("FLASH_PRELOAD names `heavy`")
    assert "remove `heavy` from FLASH_PRELOAD" in message
    assert message.endswith(expected)


def test_a_module_to_preload_that_is_nowhere_exits_70_and_is_named(tmp_path):
    done = run("serve", FLASH_APP_DIR=app(tmp_path), FLASH_PRELOAD="heavyy")
    assert done.returncode == 70
    assert "There is no module `heavyy`" in last(done)
    assert "`heavy`" in last(done)


def test_a_malformed_name_to_preload_exits_78_with_the_variable_and_its_value(tmp_path):
    done = run("serve", FLASH_APP_DIR=app(tmp_path), FLASH_PRELOAD="torch;numpy")
    assert done.returncode == 78
    assert "FLASH_PRELOAD='torch;numpy'" in last(done)


def test_a_preload_that_never_ends_exits_70_at_the_boot_deadline_with_its_stack(tmp_path):
    stubborn = "import time\ntry:\n    time.sleep(600)\nexcept BaseException:\n    time.sleep(600)\n"
    started = time.monotonic()
    done = run("serve", FLASH_APP_DIR=app(tmp_path, stubborn), FLASH_PRELOAD="heavy", FLASH_BOOT_TIMEOUT="1")
    assert done.returncode == 70
    assert "FLASH_BOOT_TIMEOUT=1" in last(done)
    assert "heavy.py" in last(done)
    assert time.monotonic() - started < 20


def test_health_says_204_during_a_preload_and_sigterm_ends_it_at_once_with_0(tmp_path):
    stubborn = "import time\ntry:\n    time.sleep(600)\nexcept BaseException:\n    time.sleep(600)\n"
    settings = {"FLASH_APP_DIR": app(tmp_path, "print('loading')\n" + stubborn), "FLASH_PRELOAD": "heavy"}
    with serve(tmp_path, wait_ready=False, separate_health=True, **settings) as server:
        until(lambda: "loading" in server.log, "the module is being imported")
        assert server.ping() == 204
        assert server.ping(health_port=True) == 204
        assert server.stop(timeout=5) == 0
        assert server.ping() == 0
        assert server.lines()[-1]["message"] == "stopped before the application was started"


def test_threads_of_a_preloaded_module_are_warned_of_and_do_not_hold_up_a_stop(tmp_path):
    thread = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    with serve(tmp_path, FLASH_APP_DIR=app(tmp_path, thread + HEAVY), FLASH_PRELOAD="heavy") as server:
        assert server.client.get("/pids").status_code == 200
        assert "the import of `heavy` left threads running" in server.log
        assert server.stop(timeout=10) == 0
        assert server.lines()[-1]["message"] == "stopped"


def test_a_preload_that_fails_with_a_thread_running_still_ends_the_process(tmp_path):
    thread = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    done = run("serve", timeout=20, FLASH_APP_DIR=app(tmp_path, thread + "1 / 0\n"), FLASH_PRELOAD="heavy")
    assert done.returncode == 70


def test_a_users_module_is_not_taken_for_one_that_the_supervisor_imports_later(tmp_path):
    directory = app(tmp_path)
    for name in ("tempfile", "difflib", "queue", "gunicorn"):
        (directory / f"{name}.py").write_text("raise RuntimeError('imported in the supervisor')\n")
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_PRELOAD="heavy") as server:
        assert server.client.get("/pids").status_code == 200
        assert server.stop() == 0


def test_check_imports_what_is_to_be_preloaded(tmp_path):
    directory = app(tmp_path, "1 / 0\n")
    done = run("check", FLASH_APP_DIR=directory, FLASH_PRELOAD="heavy")
    assert done.returncode == 70
    assert "FLASH_PRELOAD names `heavy`" in done.stderr
    assert run("check", FLASH_APP_DIR=directory, FLASH_PRELOAD="decimal").returncode == 0
