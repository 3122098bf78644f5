"""Compiled routes in a running worker, beside those that go FastAPI's way."""

import collections
import concurrent.futures
import json
import signal
import socket
import time

import httpx
import pytest

from tests.load import load
from tests.serving import Server, serve, until, user_code

SOURCE = """
import asyncio
import contextvars
import logging
import os
import threading
import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

log = logging.getLogger("shop")
at_import = contextvars.ContextVar("at_import", default="nothing")
at_import.set("seen")
mine = contextvars.ContextVar("mine", default="nothing")
lock = threading.Lock()
running = most = 0
names = set()
ended = []

class Item(BaseModel):
    name: str
    price: float = 1.0

async def compiled(a: int, b: str = "b"):
    return [a, b]

def compiled_sync(a: int, b: str = "b"):
    return [a, b]

async def by_id(number: int, word: str = "w") -> Item:
    return {"name": f"{number} {word}", "extra": 1}

async def model(item: Item):
    return item

async def depends(a: int, shared: Annotated[int, Depends(lambda: 7)]):
    return [a, shared]

async def request(request: Request):
    return request.url.path

def upload(file: bytes):
    return len(file)

async def stream():
    yield "a"

def response():
    return PlainTextResponse("r", 201)

def bad_header(kind: str):
    return PlainTextResponse("r", headers={"x-a": {"line": "a\\nb: c", "zero": "a\\0"}[kind]})

async def large(size: int):
    return "x" * (size - 2)

def count(seconds: float = 0.2):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
        names.add(threading.current_thread().name)
    time.sleep(seconds)
    with lock:
        running -= 1
    ended.append(1)
    return "counted"

async def counted():
    handlers = [each.name for each in threading.enumerate() if each.name.startswith("flash-handler-")]
    return {"most": most, "names": sorted(names), "threads": len(handlers), "ended": len(ended)}

async def context():
    before, at = mine.get(), at_import.get()
    mine.set("left behind")
    log.warning("in async")
    return [at, before]

def context_sync():
    before, at = mine.get(), at_import.get()
    mine.set("left behind")
    log.warning("in sync")
    print("printed in sync")
    return [at, before, threading.current_thread().name]

def pid():
    return {"pid": os.getpid()}
"""
COMPILED = [
    ("POST", "/compiled", "compiled"),
    ("POST", "/compiled_sync", "compiled_sync"),
    ("GET", "/by_id/{number}", "by_id"),
    ("POST", "/model", "model"),
    ("GET", "/response", "response"),
    ("GET", "/bad_header/{kind}", "bad_header"),
    ("GET", "/large/{size}", "large"),
    ("GET", "/count", "count"),
    ("GET", "/counted", "counted"),
    ("GET", "/context", "context"),
    ("GET", "/context_sync", "context_sync"),
    ("GET", "/pid", "pid"),
]
OTHERS = [
    ("POST", "/depends", "depends"),
    ("GET", "/request", "request"),
    ("POST", "/upload", "upload"),
    ("GET", "/stream", "stream"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("compiled")
    directory = user_code(tmp_path, SOURCE, COMPILED + OTHERS)
    settings = {"FLASH_WORKERS": 1, "FLASH_MAX_CONCURRENCY": 3, "FLASH_MAX_QUEUE": 100}
    with serve(tmp_path, separate_health=True, FLASH_APP_DIR=directory, **settings) as running:
        yield running


def exchange(server: Server, data: bytes, seconds: float = 5) -> bytes:
    """What comes back on a connection of its own until it is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as client:
        client.sendall(data)
        received = b""
        while part := client.recv(65536):
            received += part
        return received


def test_every_kind_of_route_answers(server: Server):
    ask = server.client
    assert ask.post("/compiled", json={"a": 1}).json() == [1, "b"]
    assert ask.post("/compiled_sync", json={"a": 1, "b": "c"}).json() == [1, "c"]
    assert ask.get("/by_id/3?word=x").json() == {"name": "3 x", "price": 1.0}
    assert ask.post("/model", json={"name": "n"}).json() == {"name": "n", "price": 1.0}
    assert ask.post("/depends", json={"a": 1}).json() == [1, 7]
    assert ask.get("/request").json() == "/request"
    assert ask.post("/upload", files={"file": b"123"}).json() == 3
    assert ask.get("/stream").text == "a"
    answer = ask.get("/response")
    assert (answer.status_code, answer.text) == (201, "r")


def test_the_headers_of_a_compiled_answer_are_those_of_fastapis_way(server: Server):
    compiled = server.client.post("/compiled", json={"a": 1}, headers={"x-request-id": "same"})
    other = server.client.post("/depends", json={"a": 1}, headers={"x-request-id": "same"})
    assert {**compiled.headers, "content-length": ""} == {**other.headers, "content-length": ""} | {
        "date": compiled.headers["date"]
    }


@pytest.mark.parametrize("path", ["/compiled", "/compiled_sync", "/depends"])
def test_what_does_not_fit_is_422_in_fastapis_shape(server: Server, path):
    answer = server.client.post(path, json={"a": "x"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "a"]


def test_a_chunked_body_is_a_body(server: Server):
    parts = [b'{"a"', b": 1", b"}"]
    for path in ("/compiled", "/compiled_sync"):
        answer = server.client.post(path, content=iter(parts), headers={"content-type": "application/json"})
        assert answer.json() == [1, "b"]


@pytest.mark.parametrize("path", ["/compiled", "/compiled_sync"])
def test_a_client_that_expects_to_be_told_to_go_on_is(server: Server, path):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: 8\r\nexpect: 100-continue\r\n\r\n".encode())
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"a": 1}')
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_their_order(server: Server):
    paths = ["/by_id/1", "/count?seconds=0.1", "/by_id/2", "/response", "/request", "/by_id/3"]
    lines = [f"GET {path} HTTP/1.1\r\nhost: x\r\n" for path in paths]
    data = "\r\n".join(lines) + "connection: close\r\n\r\n"
    received = exchange(server, data.encode())
    places = [
        received.find(each)
        for each in (b'"1 w"', b"counted", b'"2 w"', b"\r\n\r\nr", b'"/request"', b'"3 w"')
    ]
    assert -1 not in places
    assert places == sorted(places)


def test_head_on_a_compiled_get_is_405_as_fastapi_has_it(server: Server):
    for path in ("/by_id/1", "/request"):
        answer = server.client.head(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "GET", b"")


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000, 20_000_000])
def test_a_large_result_arrives_whole(server: Server, size):
    answer = server.client.get(f"/large/{size}")
    assert (len(answer.content), answer.headers["content-length"]) == (size, str(size))
    assert server.client.get("/by_id/1").status_code == 200


def test_more_plain_handlers_than_there_is_room_for_wait_and_no_more_threads_are_made(server: Server):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: httpx.get(f"{server.url}/count"), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    counted = server.client.get("/counted").json()
    assert counted["most"] == 3
    assert counted["threads"] == 3
    assert counted["names"] == [f"flash-handler-{number}" for number in (1, 2, 3)]


def test_a_client_that_leaves_costs_its_handler_no_place(server: Server):
    before = server.client.get("/counted").json()["ended"]
    for place in ("running", "running", "running", "waiting"):  # one more than run at once
        count = server.metric(f"flash_requests_{place}")
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(b"GET /count?seconds=2 HTTP/1.1\r\nhost: x\r\n\r\n")
            until(lambda place=place, count=count: server.metric(f"flash_requests_{place}") > count, place)
    assert server.client.get("/count?seconds=0").json() == "counted"
    until(lambda: server.client.get("/counted").json()["ended"] == before + 4, "three ran, and one more")
    time.sleep(0.2)
    assert server.client.get("/counted").json()["ended"] == before + 4
    test_more_plain_handlers_than_there_is_room_for_wait_and_no_more_threads_are_made(server)


def test_a_context_has_what_was_set_at_import_and_nothing_of_another_requests(server: Server):
    threads = set()
    for _ in range(8):
        assert server.client.get("/context").json() == ["seen", "nothing"]
        at_import, before, thread = server.client.get("/context_sync").json()
        assert (at_import, before) == ("seen", "nothing")
        threads.add(thread)
    assert len(threads) < 8  # so one thread had two of them


@pytest.mark.parametrize(
    ("path", "said"), [("/context", {"in async"}), ("/context_sync", {"in sync", "printed in sync"})]
)
def test_the_lines_of_a_handler_carry_its_requests_id(server: Server, path, said):
    name = f"of-{path[1:]}"
    server.client.get(path, headers={"x-request-id": name})
    until(lambda: len(found := lines_of(server, name)) > len(said) and found, "the lines")
    assert {line["message"] for line in lines_of(server, name)} == {*said, f"GET {path} 200"}


def lines_of(server: Server, request_id: str) -> list[dict]:
    return [line for line in server.lines() if line.get("request_id") == request_id]


@pytest.mark.parametrize("kind", ["line", "zero"])
def test_a_header_that_cannot_be_sent_is_a_500_and_the_connection_serves_on(server: Server, kind):
    data = f"GET /bad_header/{kind} HTTP/1.1\r\nhost: x\r\nx-request-id: bad-{kind}\r\n\r\n"
    data += "GET /by_id/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    received = exchange(server, data.encode())
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nb: c" not in received
    assert b'"1 w"' in received
    until(lambda: "cannot be sent: the value of the header x-a" in server.log, "the reason is in the log")


def test_a_path_of_thousands_of_digits_has_an_answer(tmp_path):
    source = "async def number(n: int):\n    return n\n"
    directory = user_code(tmp_path, source, [("GET", "/n/{n:int}", "number")])
    with serve(tmp_path, FLASH_APP_DIR=directory) as server:
        assert server.client.get(f"/n/{'9' * 4301}").status_code == 500


@pytest.mark.parametrize("workers", [1, 2])
def test_each_answer_has_its_access_line_whole_though_it_was_stopped_under_load(tmp_path, workers):
    directory = user_code(tmp_path, SOURCE, [("GET", "/pid", "pid")])
    settings = {"FLASH_DRAIN_DELAY": 1, "FLASH_WORKERS": workers, "FLASH_APP_DIR": directory}
    with serve(tmp_path, **settings) as server, load(server.port, 8) as running:
        until(lambda: len(running.answered()) > 300, "requests flow")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    lines = [json.loads(line) for line in server.log.splitlines()]  # none is mixed with another
    access = [line for line in lines if line["logger"] == "flash_runtime.access"]
    done = [line for line in access if line["status"] == 200]
    assert len(done) == len(running.answered()), running.summary()
    assert {line["slot"] for line in done} == set(range(workers))


def test_no_two_workers_give_requests_the_same_id(tmp_path):
    directory = user_code(tmp_path, SOURCE, [("GET", "/pid", "pid")])
    with serve(tmp_path, FLASH_WORKERS=2, FLASH_APP_DIR=directory) as server:
        answers: list[httpx.Response] = []

        def both_answered() -> bool:
            answers.append(httpx.get(f"{server.url}/pid"))
            counts = collections.Counter(answer.json()["pid"] for answer in answers)
            return len(counts) == 2 and min(counts.values()) > 20

        until(both_answered, "both workers answer")
        ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
