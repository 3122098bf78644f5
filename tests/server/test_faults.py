"""Faults while requests flow: workers that die, hang, grow or are replaced. Nobody else's request is lost."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests import held
from tests.faulty import ROUTES, SOURCE, ready
from tests.load import Load, load
from tests.serving import Server, serve, until, user_code

pytestmark = pytest.mark.faults


@pytest.fixture
def server(tmp_path):
    """Two workers."""
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_WORKERS=2) as running:
        until(lambda: ready(running) == 2, "two workers are ready")
        yield running


def assert_only_those_failed(running: Load, dead: set[int]) -> None:
    """Every request that got no answer was on a connection to a dead worker; all others got theirs."""
    lost = [each for each in running.failed() if each.worker not in dead]
    assert lost == [], running.summary()
    assert set(running.by_status()) <= {0, 200}, running.summary()
    assert len(running.answered()) > 50, running.summary()


def under_load(server: Server, inject, *, path: str = "/pid", clients: int = 8) -> Load:  # type: ignore[no-untyped-def]
    """Have clients ask all the time, before, during and after the fault."""
    with load(server.port, clients, path) as running:
        until(lambda: len(running.answered()) > 30, "requests flow")
        inject()
        begun = len(running.answered())
        until(lambda: len(running.answered()) > begun + 100, "requests flow on")
    return running


def test_kill_costs_only_the_requests_of_the_worker_that_it_hits(server):
    victim, survivor = server.workers()
    running = under_load(server, lambda: os.kill(victim, signal.SIGKILL))
    assert_only_those_failed(running, {victim})
    until(lambda: ready(server) == 2, "a replacement")
    assert survivor in server.workers()
    assert victim not in server.workers()
    (line,) = [line for line in server.lines() if "ended (SIGKILL" in line["message"]]
    assert len(running.failed()) <= 8, line
    assert server.metric("flash_worker_restarts_total") == 1


@pytest.mark.parametrize(
    ("path", "says"),
    [("/leave", "exit code 3"), ("/segfault", "SIGSEGV"), ("/signal", "signal 40")],
    ids=["os._exit", "segfault", "real-time-signal"],
)
def test_a_handler_that_ends_its_process_costs_only_that_workers_requests(server, path, says):
    before = set(server.workers())

    def inject() -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(server.url + path, timeout=10)

    running = under_load(server, inject)
    until(lambda: ready(server) == 2, "a replacement")
    (dead,) = before - set(server.workers())
    assert_only_those_failed(running, {dead})
    assert any(f"ended ({says}" in line["message"] for line in server.lines())


def test_a_worker_that_keeps_dying_is_started_less_and_less_often_and_health_tells(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory) as server:

        def waits() -> list[float]:
            return [float(found) for found in re.findall(r"another starts in ([\d.]+) s", server.log)]

        seen: list[int] = []
        for _ in range(4):
            until(lambda: ready(server) == 1, "ready")
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{server.url}/leave", timeout=10)
            until(lambda: len(waits()) > len(seen), "dead")
            if seen:  # the first one is replaced at once: that gap may be over before anybody looks
                until(lambda: ready(server) == 0, "health knows")
            seen.append(server.ping(health_port=True))
        assert waits() == [0, 1, 2, 4]
        assert seen[1:] == [204, 503, 503]
        assert server.ping("/readyz", health_port=True) == 503
        assert httpx.get(f"http://127.0.0.1:{server.health_port}/ping").json() == {"status": "failing"}
        until(lambda: server.ping() == 200, "it comes back")


def test_a_stopped_worker_costs_nobody_else_and_is_replaced(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {"FLASH_WORKERS": 2, "FLASH_STALL_TIMEOUT": 2}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as server:
        until(lambda: ready(server) == 2, "two workers")
        victim, _ = server.workers()
        with load(server.port, 8) as running:
            until(lambda: len(running.answered()) > 30, "requests flow")
            os.kill(victim, signal.SIGSTOP)
            until(lambda: victim not in server.workers(), "it is killed")
            until(lambda: ready(server) == 2, "a replacement")
        assert_only_those_failed(running, {victim})
        assert any("does not even answer a signal" in line["message"] for line in server.lines())


def test_a_wedged_worker_is_named_with_its_handler_and_its_stack_and_replaced(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {"FLASH_WORKERS": 2, "FLASH_STALL_TIMEOUT": 2}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as server:
        until(lambda: ready(server) == 2, "two workers")
        before = set(server.workers())
        blocked: list[httpx.Response] = []
        call = threading.Thread(
            target=lambda: blocked.append(httpx.get(f"{server.url}/block?seconds=60", timeout=30))
        )
        call.start()
        until(lambda: ready(server) == 1, "one is wedged")
        with load(server.port, 4) as running:
            assert server.ping(health_port=True) == 200
            until(lambda: set(server.workers()) != before and ready(server) == 2, "it is replaced")
        call.join()
        assert_only_those_failed(running, set())
        assert blocked[0].status_code == 503
        (line,) = [line["message"] for line in server.lines() if line["message"].startswith("wedged")]
        assert "GET /block (main.block) has held the application loop" in line
        assert "time.sleep(seconds)" in line.splitlines()[-1]


def test_health_is_503_while_the_only_worker_is_wedged_and_200_when_it_moves_again(tmp_path):
    directory = user_code(tmp_path, held.SOURCE, held.ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_STALL_TIMEOUT=1) as server:
        with held.asking(server, 1, "/hold_loop"):
            until(lambda: server.ping(health_port=True) == 503, "wedged")
            assert server.ping() == 503
            assert server.ping("/livez", health_port=True) == 200
            until(lambda: "wedged, and replaced in" in server.log, "the log says so")
            held.release(directory)
            until(lambda: server.ping() == 200, "it moves")
        until(lambda: "no longer wedged" in server.log, "the log says so")
        assert server.metric("flash_worker_restarts_total") == 0


def test_a_worker_whose_interpreter_is_held_is_described_by_its_stack_and_replaced(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {"FLASH_WORKERS": 2, "FLASH_STALL_TIMEOUT": 2}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as server:
        until(lambda: ready(server) == 2, "two workers")
        before = set(server.workers())
        call = threading.Thread(target=lambda: ask_and_expect_nothing(server, "/hold?seconds=60"))
        call.start()
        until(lambda: len(set(server.workers()) & before) == 1 and ready(server) == 2, "replaced")
        call.join()
        (line,) = [line["message"] for line in server.lines() if "all of its threads" in line["message"]]
        assert "in hold_interpreter" in line


def ask_and_expect_nothing(server: Server, path: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url + path, timeout=40)


def test_a_coroutine_that_blocks_is_warned_of_once_with_its_route(server):
    for _ in range(3):
        assert httpx.get(f"{server.url}/block?seconds=0.6").status_code == 200
    until(lambda: "held the application loop" in server.log, "a warning")
    time.sleep(0.3)
    lines = [line for line in server.lines() if "held the application loop" in line["message"]]
    # Once a worker.
    assert 1 <= len(lines) <= 2
    assert len({line["slot"] for line in lines}) == len(lines)
    assert all(line["held_by"] == "GET /block (main.block)" and 0.4 < line["seconds"] < 5 for line in lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_replaces_every_worker_and_loses_no_request(tmp_path, workers):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_WORKERS=workers) as server:
        until(lambda: ready(server) == workers, "all are ready")
        before = set(server.workers())
        with load(server.port, 8) as running:
            until(lambda: len(running.answered()) > 30, "requests flow")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: not before & set(server.workers()), "all are replaced")
            until(lambda: ready(server) == workers, "all are ready")
        assert set(running.by_status()) == {200}, running.summary()
        assert server.metric("flash_worker_restarts_total") == 0


HELD_IN_C = """
import ctypes
import os
import pathlib
import threading
import time

async def hold_in_c():
    # Without the interpreter's lock, and in a call that no signal ends: no handler of Python's can run.
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    threading.Thread(target=let_go, args=(library, mutex)).start()
    pathlib.Path("begun").write_text(".")
    library.pthread_mutex_lock(mutex)
    return {"pid": os.getpid()}

def let_go(library, mutex):
    while not pathlib.Path("released").exists():
        time.sleep(0.01)
    library.pthread_mutex_unlock(mutex)
"""


def test_sighup_costs_no_new_request_while_a_handler_is_in_c(tmp_path):
    routes = [*ROUTES, ("GET", "/hold_in_c", "hold_in_c")]
    directory = user_code(tmp_path, SOURCE + HELD_IN_C, routes)
    settings = {"FLASH_WORKERS": 1, "FLASH_DRAIN_TIMEOUT": 60}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as server:
        before = server.workers()
        with held.asking(server, 1, "/hold_in_c") as asked:
            held.until_begun(directory)
            server.process.send_signal(signal.SIGHUP)
            draining = 'flash_workers{state="draining"}'
            until(lambda: server.metric(draining) == ready(server) == 1, "the successor serves")
            for _ in range(10):
                assert httpx.get(f"{server.url}/pid", timeout=5).json()["pid"] not in before
            held.release(directory)
        assert [answer.json()["pid"] for answer in held.answers(asked)] == before


def test_a_child_that_user_code_forks_ends_when_it_is_told(server):
    assert httpx.get(f"{server.url}/end_a_child", timeout=20).json() == -signal.SIGTERM


def test_what_a_worker_has_started_ends_with_it_and_frees_its_device(server):
    left = httpx.get(f"{server.url}/leave_a_child").json()
    os.kill(left["pid"], signal.SIGKILL)
    until(lambda: not is_running(left["child"]), "its child ends")


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_client_that_does_not_read_its_answer_is_cut_off_in_time(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    timed_out = 'flash_requests_total{outcome="timed_out"}'
    with (
        serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_REQUEST_TIMEOUT=2) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as client,
    ):
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.metric(timed_out) == 1, "its time is over")


def test_the_health_process_outlives_more_clients_than_it_has_room_for(server):
    silent = [socket.create_connection(("127.0.0.1", server.health_port), timeout=5) for _ in range(256)]
    for client in silent[:100]:
        extra = socket.create_connection(("127.0.0.1", server.health_port), timeout=5)
        with contextlib.suppress(OSError):
            client.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        extra.close()
    for client in silent:
        client.close()
    assert server.ping(health_port=True) == 200
    assert "the health process ended" not in server.log


def test_sighup_serves_changed_code_and_keeps_the_old_where_the_new_cannot_boot(tmp_path):
    directory = user_code(tmp_path, "def v():\n    return 1\n", [("GET", "/v", "v")])
    with serve(tmp_path, FLASH_APP_DIR=directory) as server:
        assert server.client.get("/v").json() == 1
        (directory / "main.py").write_text("def v(:\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "the worker keeps serving" in server.log, "the old one serves on")
        assert httpx.get(f"{server.url}/v").json() == 1
        (directory / "main.py").write_text("def v():\n    return 12\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: httpx.get(f"{server.url}/v").json() == 12, "the new one serves")


def test_sighup_serves_the_routes_of_a_changed_manifest_and_keeps_the_old_where_it_is_damaged(tmp_path):
    directory = user_code(tmp_path, "def v():\n    return 1\n", [("GET", "/v", "v")])
    path = directory / "flash_manifest.json"
    manifest = path.read_text()
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_DISABLE_UNPACK=1) as server:
        path.write_text("{")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "serve on" in server.log, "the old ones serve on")
        assert httpx.get(f"{server.url}/v").json() == 1
        path.write_text(manifest.replace('"/v"', '"/new"'))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: httpx.get(f"{server.url}/new").status_code == 200, "the new route")
        until(lambda: httpx.get(f"{server.url}/v").status_code == 404, "the old route is gone")


def test_workers_are_recycled_after_their_requests_and_no_request_is_lost(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {"FLASH_WORKERS": 2, "FLASH_MAX_REQUESTS": 200}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as server:
        until(lambda: ready(server) == 2, "two workers")
        before = set(server.workers())
        with load(server.port, 8) as running:
            until(lambda: not before & set(server.workers()), "both are recycled")
        assert set(running.by_status()) == {200}, running.summary()
        assert len([line for line in server.lines() if "is recycled" in line["message"]]) >= 2


def test_a_worker_that_has_grown_is_recycled_though_it_is_the_only_one(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_MAX_RSS_MB=300) as server:
        before = server.workers()
        with load(server.port, 4) as running:
            assert httpx.post(f"{server.url}/grow", json={"mebibytes": 300}).status_code == 200
            until(lambda: server.workers() != before and len(server.workers()) == 1, "recycled")
        assert set(running.by_status()) == {200}, running.summary()
        assert any("MiB in use" in line["message"] for line in server.lines())


def test_an_rss_limit_below_what_a_worker_needs_is_warned_of_and_passed_over(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_MAX_RSS_MB=10) as server:
        until(lambda: "FLASH_MAX_RSS_MB has no effect" in server.log, "a warning")
        before = server.workers()
        time.sleep(2)
        assert server.workers() == before


def test_workers_with_little_room_leave_connections_to_idle_siblings(tmp_path):
    """Clients that pick a connection of a kept pool: nobody waits while a worker is idle."""
    directory = user_code(tmp_path, SOURCE.replace("0.005", "0.6"), ROUTES)
    with serve(
        tmp_path, separate_health=True, FLASH_APP_DIR=directory, CUDA_VISIBLE_DEVICES="0,1,2"
    ) as server:
        until(lambda: ready(server) == 3, "three workers")
        with load(server.port, 3, "/pid_sync") as running:
            until(lambda: len(running.answered()) > 30, "requests flow")
        times = sorted(each.seconds for each in running.answered())
        # One that waited behind another would have taken twice its own 0.6 s.
        assert times[int(len(times) * 0.9)] < 1, running.summary()


def test_kept_connections_are_spread_over_the_workers(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url)) for _ in range(20)]
        pids = [client.get("/pid").json()["pid"] for client in clients]
    assert min(pids.count(pid) for pid in server.workers()) >= 7


def test_overload_sheds_the_rest_and_what_is_accepted_keeps_its_bound(tmp_path):
    directory = user_code(tmp_path, SOURCE.replace("0.005", "0.6"), ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 1, "FLASH_MAX_QUEUE": 2, "FLASH_WORKERS": 2}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **limits) as server:
        until(lambda: ready(server) == 2, "two workers")
        with load(server.port, 12, "/pid_sync", pause=0.1) as running:
            until(lambda: len(running.answered()) > 15, "requests flow")
        assert set(running.by_status()) == {200, 503}, running.summary()
        # It waits for two others at the most.
        assert max(each.seconds for each in running.answered()) < 0.6 * 3 + 0.5


def test_ctypes_holds_the_lock_as_the_tests_above_mean_it():
    """Their handler would prove nothing if another thread could run meanwhile."""
    moved: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.is_set():
            moved.append(time.monotonic())
            time.sleep(0.01)

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    ctypes.PyDLL(None).sleep(1)
    ended = time.monotonic()
    over.set()
    thread.join()
    assert not [moment for moment in moved if started + 0.1 < moment < ended - 0.1]
