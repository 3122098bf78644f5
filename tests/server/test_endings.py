"""However a request ends, its place is free afterwards: places that are lost are a worker that is lost."""

import socket
import time

import pytest

from tests.serving import Server, serve, until, user_code

SOURCE = """
import asyncio
from fastapi import Depends, Request
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response

async def leave():
    raise SystemExit(3)

async def leave_behind():
    return JSONResponse("answered", background=BackgroundTask(leave))

async def depend(value: int = Depends(leave)):
    return value

async def watch(request: Request):
    async def until_disconnected():
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
    return JSONResponse("answered", background=BackgroundTask(until_disconnected))

async def receive(request: Request):
    await request.body()
    waiting = asyncio.create_task(request.receive())
    await asyncio.sleep(0.01)
    return JSONResponse("answered", background=BackgroundTask(asyncio.wait, [waiting]))

async def texts_for_bytes():
    response = Response("x")
    response.raw_headers.append(("x-text", "text"))
    return response

class Sent(Response):
    def __init__(self, *messages):
        self.messages = messages

    async def __call__(self, scope, receive, send):
        for message in self.messages:
            await send({"type": "http.response." + message, "status": 200})

async def begin_twice():
    return Sent("start", "start", "body")

async def begin_with_the_body():
    return Sent("body")

async def end_with_something_else():
    return Sent("start", "trailers")

async def count(number):
    return number

async def pause(seconds: float):
    await asyncio.sleep(seconds)
    return "paused"

async def pour():
    while True:
        yield "x" * 100_000

async def cancel_itself():
    asyncio.current_task().cancel()
    return "done"

async def here():
    return "here"
"""
ROUTES = [
    ("GET", "/leave_behind", "leave_behind"),
    ("GET", "/depend", "depend"),
    ("GET", "/watch", "watch"),
    ("GET", "/receive", "receive"),
    ("GET", "/texts_for_bytes", "texts_for_bytes"),
    ("GET", "/begin_twice", "begin_twice"),
    ("GET", "/begin_with_the_body", "begin_with_the_body"),
    ("GET", "/end_with_something_else", "end_with_something_else"),
    ("GET", "/count/{number:int}", "count"),
    ("GET", "/pause", "pause"),
    ("GET", "/pour", "pour"),
    ("GET", "/cancel_itself", "cancel_itself"),
    ("GET", "/here", "here"),
]
REQUEST_SECONDS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("endings")
    directory = user_code(tmp_path, SOURCE, ROUTES)
    settings = {"FLASH_WORKERS": 1, "FLASH_MAX_CONCURRENCY": 1, "FLASH_REQUEST_TIMEOUT": REQUEST_SECONDS}
    with serve(tmp_path, FLASH_APP_DIR=directory, separate_health=True, **settings) as running:
        yield running


def until_free(server: Server) -> None:
    """Its one place; well before a request's time is over."""
    until(lambda: server.metric("flash_requests_running") == 0, "its place is free", REQUEST_SECONDS / 2)


@pytest.mark.parametrize(("path", "status"), [("/leave_behind", 200), ("/depend", 500)])
def test_sys_exit_beside_the_handler_frees_the_place(server: Server, path, status):
    assert server.client.get(path).status_code == status
    until_free(server)
    assert server.client.get("/here").json() == "here"


def test_a_handler_that_cancels_itself_and_returns_is_500_at_once(server: Server):
    begun = time.monotonic()
    assert server.client.get("/cancel_itself").status_code == 500
    assert time.monotonic() - begun < REQUEST_SECONDS / 2


@pytest.mark.parametrize("path", ["/watch", "/receive"])
def test_work_after_the_answer_is_told_that_the_request_is_over(server: Server, path):
    assert server.client.get(path).json() == "answered"
    until_free(server)


@pytest.mark.parametrize(
    "path", ["/texts_for_bytes", "/begin_twice", "/begin_with_the_body", "/end_with_something_else"]
)
def test_a_response_that_is_none_is_500_at_once_and_logged(server: Server, path):
    begun = time.monotonic()
    assert server.client.get(path).status_code == 500
    assert time.monotonic() - begun < REQUEST_SECONDS / 2
    until(lambda: f"GET {path}" in server.log, "its line in the log")
    until_free(server)


def test_a_number_of_more_digits_than_python_reads_is_answered(server: Server):
    assert server.client.get("/count/17").json() == 17
    assert server.client.get("/count/" + "9" * 5000).status_code == 500
    assert "Fatal error" not in server.log


def test_a_worker_begins_without_a_word_of_uvicorns(server: Server):
    assert "uvicorn.error" not in server.log


def test_a_pipelined_request_has_its_own_time_from_its_turn_on(server: Server):
    # Together they take longer than one may.
    request = b"GET /pause?seconds=2.5 HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(request * 2)
        answer = b""
        while answer.count(b"paused") < 2:
            chunk = client.recv(65536)
            assert chunk, answer
            answer += chunk
    assert answer.count(b"HTTP/1.1 200 ") == 2


def test_a_generator_that_waits_for_nothing_but_its_client_ends_with_it(server: Server):
    with server.client.stream("GET", "/pour") as answer:
        next(answer.iter_text())
        time.sleep(0.3)  # its window is full
    until_free(server)
    assert server.client.get("/here").json() == "here"
