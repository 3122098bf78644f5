"""Room, time and size: what a worker takes at once, what waits, and what is turned away."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests import held
from tests.serving import Server, serve, until, user_code

SOURCE = """
import asyncio
import os
import time

events = []

def work(seconds: float = 0):
    events.append("begun")
    time.sleep(seconds)
    return {"pid": os.getpid()}

async def wait(seconds: float = 0):
    events.append("begun")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        events.append("cancelled")
        raise
    return {"pid": os.getpid()}

async def stubborn(seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            events.append("refused")
    return "done"

async def endless():
    while True:
        yield "x" * 1000
        await asyncio.sleep(0.05)

async def seen():
    return events

def echo(data: dict):
    return len(data)
"""
SOURCE += held.SOURCE
ROUTES = [
    *held.ROUTES,
    ("GET", "/work", "work"),
    ("GET", "/wait", "wait"),
    ("GET", "/stubborn", "stubborn"),
    ("GET", "/endless", "endless"),
    ("GET", "/seen", "seen"),
    ("POST", "/echo", "echo"),
]


def outcomes(server: Server) -> dict[str, int]:
    """The container's requests by outcome, of those that did not simply succeed."""
    text = httpx.get(f"http://127.0.0.1:{server.health_port}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("flash_requests_total")]
    found = {line.split('"')[1]: int(line.rpartition(" ")[2]) for line in lines}
    return {name: count for name, count in found.items() if count and name != "answered"}


@pytest.mark.parametrize("path", ["/hold", "/hold_async"])
def test_what_has_no_room_is_shed_at_once_with_retry_after_and_json(tmp_path, path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 2, "FLASH_MAX_QUEUE": 3}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **limits) as server:
        with held.asking(server, 12, path) as asked:
            # At once: none waits for a request that runs, as none of those ends before.
            until(lambda: sum(each.done() for each in asked) == 7, "seven are answered")
            assert held.begun(directory) == 2
            held.release(directory)
        found = held.answers(asked)
        assert sorted(answer.status_code for answer in found) == [200] * 5 + [503] * 7
        shed = [answer for answer in found if answer.status_code == 503]
        assert all(answer.headers["retry-after"] == "1" for answer in shed)
        assert all("busy" in answer.json()["detail"] and answer.json()["request_id"] for answer in shed)
        assert outcomes(server) == {"shed": 7}
        assert httpx.get(f"{server.url}{path}").status_code == 200


def test_on_a_gpu_plain_functions_run_one_at_a_time_and_coroutines_beside_them(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, CUDA_VISIBLE_DEVICES="0") as server:
        with held.asking(server, 3, "/hold") as plain, held.asking(server, 6, "/hold_async") as coroutines:
            held.until_begun(directory, 1 + 6)
            until(lambda: server.metric("flash_requests_waiting") == 2, "the other two plain ones wait")
            assert held.begun(directory) == 1 + 6
            held.release(directory)
        assert {answer.status_code for answer in held.answers(plain + coroutines)} == {200}
        assert held.begun(directory) == 3 + 6


def test_a_cpu_worker_runs_as_many_plain_functions_as_it_is_told(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_MAX_CONCURRENCY=60) as server:
        with held.asking(server, 60, "/hold") as asked:
            held.until_begun(directory, 60)
            held.release(directory)
        assert {answer.status_code for answer in held.answers(asked)} == {200}


def test_the_documents_are_served_while_every_place_is_taken(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 1, "FLASH_MAX_QUEUE": 0}
    with serve(tmp_path, FLASH_APP_DIR=directory, **limits) as server:
        with held.asking(server, 1, "/hold") as asked:
            held.until_begun(directory)
            assert httpx.get(f"{server.url}/openapi.json").status_code == 200
            assert httpx.get(f"{server.url}/nowhere").status_code == 404
            assert httpx.get(f"{server.url}/work").status_code == 503
            held.release(directory)
        assert held.answers(asked)[0].status_code == 200


def test_a_request_past_its_time_is_504_and_its_coroutine_is_cancelled(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_REQUEST_TIMEOUT=1) as server:
        answer = server.client.get("/wait", params={"seconds": 20})
        assert answer.status_code == 504
        assert answer.json()["detail"] == "The request was not answered within 1 seconds."
        until(lambda: server.client.get("/seen").json() == ["begun", "cancelled"], "it is cancelled")
        assert outcomes(server) == {"timed_out": 1}


def test_a_route_may_have_a_time_of_its_own(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    own = '{"GET /wait": 0.5}'
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_ROUTE_TIMEOUTS=own) as server:
        assert server.client.get("/wait", params={"seconds": 20}).status_code == 504
        assert server.client.get("/work", params={"seconds": 1}).status_code == 200


def test_a_plain_function_that_cannot_be_cancelled_keeps_its_place_until_it_ends(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 1, "FLASH_MAX_QUEUE": 0, "FLASH_REQUEST_TIMEOUT": 0.5}
    with serve(tmp_path, FLASH_APP_DIR=directory, **limits) as server:
        assert server.client.get("/hold").status_code == 504
        for _ in range(3):
            assert server.client.get("/work").status_code == 503
        held.release(directory)
        until(lambda: server.client.get("/work").status_code == 200, "room again")


def test_a_coroutine_that_refuses_to_be_cancelled_costs_its_own_place_only(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 2, "FLASH_MAX_QUEUE": 0, "FLASH_REQUEST_TIMEOUT": 0.5}
    with serve(tmp_path, FLASH_APP_DIR=directory, **limits) as server:
        assert server.client.get("/stubborn", params={"seconds": 2}).status_code == 504
        until(lambda: server.client.get("/seen").json() == ["refused"], "it is cancelled, in vain")
        assert "Traceback" not in server.log


def test_a_waiting_request_past_its_time_is_504_and_never_runs(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 1, "FLASH_MAX_QUEUE": 5, "FLASH_REQUEST_TIMEOUT": 1}
    with serve(tmp_path, FLASH_APP_DIR=directory, **limits) as server:
        with held.asking(server, 3, "/hold") as asked:
            assert [answer.status_code for answer in held.answers(asked)] == [504] * 3
            held.release(directory)
        until(lambda: server.client.get("/work").status_code == 200, "room again")
        assert held.begun(directory) == 1


@contextlib.contextmanager
def leaving(server: Server, path: str) -> Iterator[None]:
    """A client that asks, and is gone after the block, before the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield


def test_a_client_that_leaves_cancels_its_running_coroutine_and_is_counted(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory) as server:
        with leaving(server, "/wait?seconds=20"):
            until(lambda: server.client.get("/seen").json() == ["begun"], "it runs")
        until(lambda: server.client.get("/seen").json() == ["begun", "cancelled"], "it is cancelled")
        assert outcomes(server) == {"gone_running": 1}
        until(lambda: '"gone_running"' in server.log, "the access line")
        (line,) = [line for line in server.lines() if line.get("outcome") == "gone_running"]
        assert line["status"] == 499


def test_a_client_that_leaves_while_it_waits_is_dropped_and_counted(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    limits = {"FLASH_MAX_CONCURRENCY": 1, "FLASH_MAX_QUEUE": 5}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **limits) as server:
        with held.asking(server, 1, "/hold"):
            held.until_begun(directory)
            for _ in range(3):
                with leaving(server, "/hold"):
                    until(lambda: server.metric("flash_requests_waiting") == 1, "it waits")
                until(lambda: server.metric("flash_requests_waiting") == 0, "it is dropped")
            held.release(directory)
        assert server.client.get("/work").status_code == 200
        assert held.begun(directory) == 1
        assert outcomes(server) == {"gone_waiting": 3}


def test_a_stream_past_its_time_is_cut_off(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_REQUEST_TIMEOUT=1) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            server.client.get("/endless")
        assert outcomes(server) == {"timed_out": 1}
        assert server.client.get("/seen").status_code == 200


def test_bodies_of_many_clients_together_are_bounded(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(
        tmp_path, separate_health=True, FLASH_APP_DIR=directory, FLASH_MAX_BODY_BYTES=100_000
    ) as server:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        clients = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(20)]
        for client in clients:
            client.sendall(head + b" " * 99_000)
        until(lambda: outcomes(server).get("shed", 0) >= 3, "some are shed")
        assert outcomes(server)["shed"] <= 6
        for client in clients:
            client.close()
        until(lambda: outcomes(server).get("gone_waiting", 0) >= 14, "the others are gone")
        assert server.client.post("/echo", json={"data": {}}).status_code == 200


def test_a_connection_that_has_been_idle_for_longest_makes_room_for_a_new_one(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -n 320\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with serve(tmp_path, FLASH_APP_DIR=directory, python=python) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(150)]
        for _ in range(20):
            assert httpx.get(f"{server.url}/seen").status_code == 200
        assert server.ping() == 200
        for client in silent:
            client.close()


def test_a_time_for_a_route_that_does_not_exist_is_a_setting_fault(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    own = '{"GET /wiat": 0.5}'
    with serve(tmp_path, wait_ready=False, FLASH_APP_DIR=directory, FLASH_ROUTE_TIMEOUTS=own) as server:
        assert server.process.wait(20) == 78
        assert "GET /wiat" in server.lines()[-1]["message"]


def test_limits_that_contradict_each_other_are_warned_of_by_name(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {
        "FLASH_MAX_QUEUE": 5,
        "FLASH_STALL_TIMEOUT": 10,
        "FLASH_DRAIN_TIMEOUT": 30,
        "FLASH_STOP_TIMEOUT": 10,
    }
    with serve(tmp_path, FLASH_APP_DIR=directory, **settings) as server:
        warned = [line["message"] for line in server.lines() if line["level"] == "WARNING"]
    for names in (
        ("FLASH_MAX_QUEUE", "FLASH_MAX_CONCURRENCY"),
        ("FLASH_STALL_TIMEOUT", "FLASH_REQUEST_TIMEOUT"),
        ("FLASH_DRAIN_TIMEOUT", "FLASH_STOP_TIMEOUT"),
    ):
        assert any(all(name in message for name in names) for message in warned), names
