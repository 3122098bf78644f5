"""Clients and user code that do what they should not: the worker serves on, or ends as it says."""

import concurrent.futures
import json
import os
import signal
import socket
import time

import pytest

from tests import held
from tests.serving import Server, run, serve, until, user_code

SOURCE = """
import asyncio, logging, os, sys, threading, time

def show():
    logging.getLogger("mine").info("logged")
    print("printed")
    return dict(os.environ)

def reconfigure():
    logging.basicConfig(level="INFO", stream=sys.stderr, force=True)
    logging.getLogger().addHandler(logging.StreamHandler())
    return "ok"

async def leave():
    async def out():
        raise SystemExit(3)
    asyncio.create_task(out())
    await asyncio.sleep(0.1)
    return "still here"

def close_descriptors():
    os.closerange(0, 3)
    return "closed"

def echo(data: dict):
    return data
"""
SOURCE += held.SOURCE
ROUTES = [
    *held.ROUTES,
    ("GET", "/show", "show"),
    ("GET", "/reconfigure", "reconfigure"),
    ("GET", "/leave", "leave"),
    ("GET", "/close", "close_descriptors"),
    ("POST", "/echo", "echo"),
]


@pytest.fixture
def directory(tmp_path):
    return user_code(tmp_path, SOURCE, ROUTES)


@pytest.fixture
def server(tmp_path, directory):
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_DRAIN_TIMEOUT=1, FLASH_API_KEY="k") as running:
        running.client.headers["Authorization"] = "Bearer k"
        yield running


def converse(server: Server, sent: bytes, seconds: float = 5) -> bytes:
    """What the server answers to these bytes until it closes the connection, or says nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as client:
        client.sendall(sent)
        answer = b""
        try:
            while chunk := client.recv(65536):
                answer += chunk
        except TimeoutError:
            pass
        return answer


def test_an_offer_to_upgrade_is_passed_over_and_the_body_read(server):
    body = json.dumps({"data": {"a": 1}}).encode()
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"
    head += b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    for pieces in ([head + body], [head, body], [head[:60], head[60:] + body[:5], body[5:]]):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            for piece in pieces * 2:  # the connection serves a second request
                client.sendall(piece)
                time.sleep(0.05)
            answer = b""
            while answer.count(b'{"a":1}') < 2:
                chunk = client.recv(65536)
                assert chunk, answer
                answer += chunk


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 40_000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["unfinished", "one", "many", "target"],
)
def test_a_head_that_is_too_long_is_431(server, sent):
    assert converse(server, sent).startswith(b"HTTP/1.1 431 ")
    assert server.ping() == 200


BLOCK = b"GET /hold_loop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n"


def test_a_handler_that_blocks_past_the_drain_timeout_is_cut_off_with_a_503(server, directory):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(BLOCK)
        held.until_begun(directory)
        begun = time.monotonic()
        server.process.terminate()
        answer = client.recv(65536)
        assert server.process.wait(20) == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"x-request-id" in answer
    assert time.monotonic() - begun < 10
    assert "Traceback" not in server.log


def test_a_half_sent_body_at_the_drain_timeout_leaves_no_traceback(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nAuthorization: Bearer k\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.3)
        assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_worker_whose_handler_blocks_ends_with_its_supervisor(server, directory):
    (pid,) = server.workers()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(BLOCK)
        held.until_begun(directory)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(5)
        until(lambda: not os.path.exists(f"/proc/{pid}"), "the worker is gone", 10)  # noqa: PTH110


def test_user_code_may_set_logging_up_for_itself(server):
    for path in ("/show", "/reconfigure", "/show", "/show"):
        assert server.client.get(path).status_code == 200
    until(lambda: server.log.count('"GET /show 200"') == 3, "three access lines")
    assert len(server.log) < 20_000
    assert len([line for line in server.lines() if line["message"] == "printed"]) == 3


@pytest.mark.parametrize(
    "line",
    [
        "logging.getLogger().addHandler(logging.StreamHandler())",
        "logging.basicConfig(level=20, force=True)",
        "logging.getLogger().handlers.clear()",
        "logging.config.dictConfig({'version': 1})",
    ],
)
def test_logging_set_up_at_import_does_not_hurt(tmp_path, line):
    source = f"import logging, logging.config\n{line}\nprint('loaded')\n" + SOURCE
    with serve(tmp_path, FLASH_APP_DIR=user_code(tmp_path, source, ROUTES)) as server:
        assert server.client.get("/show").status_code == 200
        until(lambda: '"GET /show 200"' in server.log, "the access line")
        assert '"loaded"' in server.log


def test_a_task_that_means_to_end_the_process_does_not(server):
    assert server.client.get("/leave").json() == "still here"
    assert server.client.get("/show").status_code == 200


def test_a_client_never_gets_the_log(server):
    assert server.client.get("/close").json() == "closed"
    ask = b"GET /show HTTP/1.1\r\nAuthorization: Bearer k\r\nConnection: close\r\n\r\n"
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        # uvloop never closes those that take the places of what was closed: a wait of five seconds for each.
        answers = list(pool.map(lambda _: converse(server, ask), range(5)))
    for answer in answers:
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"flash_runtime.access" not in answer


def test_user_code_does_not_see_the_api_key(server):
    environ = server.client.get("/show").json()
    assert "PORT" in environ
    assert "FLASH_API_KEY" not in environ


def test_a_fault_right_at_the_start_ends_the_process_every_time(tmp_path):
    for _ in range(15):
        done = run("serve", FLASH_DISABLE_UNPACK=1, FLASH_APP_DIR=tmp_path)
        assert done.returncode == 66
        assert json.loads(done.stderr.splitlines()[-1])["level"] == "CRITICAL"


@pytest.mark.parametrize(
    ("source", "settings", "code", "text"),
    [
        ("import os\nos._exit(0)\n", {}, 70, "exit code 0"),
        ("import time\ntime.sleep(60)\n", {"FLASH_BOOT_TIMEOUT": 1}, 70, "FLASH_BOOT_TIMEOUT"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n", {}, 0, ""),
        ("", {"FLASH_HOST": "192.0.2.1"}, 78, "FLASH_HOST"),
        ("", {"FLASH_WROKERS": "2"}, 0, "FLASH_WORKERS"),
    ],
    ids=["exits", "hangs", "leaves-a-thread", "address", "misspelled"],
)
def test_check_tells_what_serve_would_do(tmp_path, source, settings, code, text):
    directory = user_code(tmp_path, source + SOURCE, ROUTES)
    done = run("check", FLASH_APP_DIR=directory, timeout=20, **settings)
    assert done.returncode == code
    assert text in done.stderr
