"""Requests against a running worker: bodies, limits, ids, keys, streams, disconnects."""

import concurrent.futures
import json
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.serving import Server, serve, until, user_code

pytestmark = pytest.mark.smoke

SOURCE = """
import asyncio
import logging
import time

log = logging.getLogger("shop")
closed = []

async def echo(data: dict):
    return data

def fail():
    raise ValueError("the password is hunter2")

def leave():
    raise SystemExit(3)

def numbers(count: int):
    for number in range(count):
        yield f"{number}\\n"

async def endless():
    try:
        while True:
            yield "x" * 1024
            await asyncio.sleep(0.005)
    finally:
        closed.append(1)

def how_many_closed():
    return len(closed)

async def talk(word: str):
    print("printed", word)
    await asyncio.sleep(0.05)
    log.warning("logged %s", word)
    return word

def talk_sync(word: str):
    print("printed", word)
    time.sleep(0.05)
    log.warning("logged %s", word)
    return word
"""
ROUTES = [
    ("POST", "/echo", "echo"),
    ("GET", "/fail", "fail"),
    ("GET", "/leave", "leave"),
    ("GET", "/numbers", "numbers"),
    ("GET", "/endless", "endless"),
    ("GET", "/closed", "how_many_closed"),
    ("GET", "/talk/{word}", "talk"),
    ("GET", "/talk_sync/{word}", "talk_sync"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("http")
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_MAX_BODY_BYTES=1_000_000, FLASH_WORKERS=1) as running:
        yield running


def test_a_body_crosses_both_loops(server: Server):
    data = {"text": "x" * 200_000}
    assert server.client.post("/echo", json={"data": data}).json() == data


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"", "application/json", 422),
        (b'{"data": 1}', "application/json", 422),
        (b'{"data": {}}', "application/json", 200),
    ],
)
def test_bodies_get_the_status_they_deserve(server: Server, content, content_type, status):
    answer = server.client.post("/echo", content=content, headers={"content-type": content_type})
    assert answer.status_code == status


def test_an_unknown_path_is_404_and_a_wrong_method_405(server: Server):
    assert server.client.get("/nowhere").status_code == 404
    assert server.client.get("/echo").status_code == 405
    assert server.client.get("/execute").status_code == 404


def test_a_declared_length_over_the_limit_is_413_before_the_body_is_sent(server: Server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_over_the_limit_is_413(server: Server):
    def chunks():
        for _ in range(40):
            yield b"x" * 50_000

    try:
        assert server.client.post("/echo", content=chunks()).status_code == 413
    except httpx.WriteError:
        pytest.fail("the answer was lost with the connection")


def test_an_exception_is_500_json_with_the_request_id_and_without_its_text(server: Server):
    answer = server.client.get("/fail", headers={"X-Request-ID": "abc-123"})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal Server Error", "request_id": "abc-123"}
    assert answer.headers["x-request-id"] == "abc-123"
    until(lambda: "hunter2" in server.log, "the traceback is logged")
    (line,) = [line for line in server.lines() if "hunter2" in line.get("traceback", "")]
    assert line["request_id"] == "abc-123"


def test_sys_exit_in_a_handler_is_500_and_the_worker_lives(server: Server):
    workers = server.workers()
    assert server.client.get("/leave").status_code == 500
    assert server.client.get("/closed").status_code == 200
    assert server.workers() == workers


def test_a_hostile_request_id_is_replaced(server: Server):
    answer = server.client.get("/closed", headers={"X-Request-ID": "x" * 500})
    assert len(answer.headers["x-request-id"]) == 32


def test_a_generator_is_streamed_whole(server: Server):
    answer = server.client.get("/numbers", params={"count": 20_000})
    assert answer.text == "".join(f"{number}\n" for number in range(20_000))


def test_a_streams_first_chunk_comes_before_its_last(server: Server):
    before = server.client.get("/closed").json()
    with server.client.stream("GET", "/endless") as answer:
        assert next(answer.iter_text()).startswith("x")
    until(lambda: server.client.get("/closed").json() > before, "the generator is closed")


def test_a_stream_ends_when_its_reader_goes_away(server: Server):
    before = server.client.get("/closed").json()
    with httpx.Client(base_url=server.url) as client, client.stream("GET", "/endless") as answer:
        next(answer.iter_raw())
    until(lambda: server.client.get("/closed").json() > before, "the generator is closed")
    assert server.client.get("/closed").json() == before + 1


def test_a_slow_reader_does_not_make_the_server_buffer_a_stream(server: Server):
    """The generator is held up by flow control: it cannot run to its end while nobody reads."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /numbers?count=20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1)
        (pid,) = server.workers()
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        (resident,) = [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
        assert resident < 400_000  # kB; the whole stream is about 170 MB
        assert server.client.get("/closed").status_code == 200


@pytest.mark.parametrize("path", ["/talk", "/talk_sync"])
def test_prints_and_logs_of_requests_at_the_same_time_carry_their_own_ids(server: Server, path):
    words = [f"{path[1:]}-word-{number}" for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda word: server.client.get(f"{path}/{word}", headers={"X-Request-ID": word}), words)
        )

    def logged(word: str) -> dict[str, dict[str, object]]:
        return {line["logger"]: line for line in server.lines() if line.get("request_id") == word}

    until(lambda: all("flash_runtime.access" in logged(word) for word in words), "the access lines")
    for word in words:
        found = logged(word)
        assert found["stdout"]["message"] == f"printed {word}"
        assert found["shop"]["message"] == f"logged {word}"
        assert found["flash_runtime.access"]["route"] == f"{path}/{{word}}"


def test_the_access_line_has_method_route_status_time_and_slot(server: Server):
    server.client.get("/talk/access", headers={"X-Request-ID": "access-line"})
    until(
        lambda: any(line.get("request_id") == "access-line" and "ms" in line for line in server.lines()),
        "a line",
    )
    (line,) = [line for line in server.lines() if line.get("request_id") == "access-line" and "ms" in line]
    assert (line["method"], line["route"], line["status"], line["slot"]) == ("GET", "/talk/{word}", 200, 0)
    assert line["ms"] > 0


def test_the_docs_show_the_handlers(server: Server):
    assert server.client.get("/docs").status_code == 200
    assert set(server.client.get("/openapi.json").json()["paths"]) == {path for _, path, _ in ROUTES}


def test_malformed_http_leaves_the_worker_serving(server: Server):
    for garbage in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(garbage)
            client.recv(4096)
    assert server.client.get("/closed").status_code == 200


def test_an_api_key_guards_routes_and_docs_but_not_health(tmp_path):
    directory = user_code(tmp_path, SOURCE, ROUTES)
    with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_API_KEY="k-secret-1") as server:
        assert server.client.get("/closed").status_code == 401
        assert server.client.get("/docs").status_code == 401
        assert server.client.get("/closed", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert server.client.get("/closed", headers={"Authorization": "Bearer k-secret-1"}).status_code == 200
        assert server.ping() == 200
        assert "k-secret-1" not in server.log
        assert json.loads(server.log.splitlines()[0])
