"""Calls between endpoints: one application, each of its resources a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flash_runtime.rpc import envelope
from flash_runtime.rpc.client import Client
from tests import vendor
from tests.serving import Server, free_port, serve, user_code

ROOT = Path(__file__).parent.parent.parent
TOKEN = "a-token"
RESOURCES = ["pipeline", "preprocess", "score", "postprocess"]


@contextlib.contextmanager
def all_of(
    tmp_path: Path, names: list[str], first: dict[str, Any] | None = None, **settings: Any
) -> Iterator[dict[str, Server]]:
    """A server for each resource, which know each other; `first` are more settings of the first one."""
    ports = {name: free_port() for name in names}
    peers = json.dumps({name: f"http://127.0.0.1:{port}" for name, port in ports.items()})
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in names:
            place = tmp_path / f"server-{name}"
            place.mkdir()
            own = {"FLASH_RESOURCE_NAME": name, "FLASH_PEERS": peers, "FLASH_EXECUTE_TOKEN": TOKEN}
            own |= (first or {}) if name == names[0] else {}
            servers[name] = stack.enter_context(serve(place, port=ports[name], **own, **settings))
        yield servers


@pytest.mark.vendor
@pytest.mark.parametrize("sdk", ["image", "artifact"])
def test_one_request_goes_through_every_resource_of_a_built_application(tmp_path, sdk):
    python = sys.executable if sdk == "image" else vendor.runtime_python()
    directory = tmp_path / "app"
    vendor.unpack(vendor.build(ROOT / "examples" / "pipeline"), directory)
    with all_of(
        tmp_path, RESOURCES, python=python, FLASH_SDK=sdk, FLASH_APP_DIR=directory, FLASH_DISABLE_UNPACK=1
    ) as servers:
        answer = servers["pipeline"].client.post("/classify", json={"text": "The quickest fox"})
        assert answer.status_code == 200, servers["pipeline"].log
        scores = {"the": 0.3, "quickest": 0.8, "fox": 0.3}
        assert answer.json() == {"best": "quickest", "scores": scores}
        (line,) = [each for each in servers["score"].lines() if "scoring 3" in each["message"]]
        assert line["request_id"] == answer.headers["x-request-id"]


CALLER = """
import asyncio
import os
from runpod_flash import Endpoint
from worker import Model, echo, exits, fails, slow, unloadable_error, unpicklable_error

api = Endpoint(name="case", cpu="cpu3c-1-2")

async def call_echo(value: dict):
    return await echo(value, more=[1.5])

async def call_fails():
    try:
        await fails("the text")
    except KeyError as error:
        return {"args": error.args, "cause": str(error.__cause__)}

async def call_unpicklable():
    await unpicklable_error()

async def call_slow(seconds: float):
    return await slow(seconds)

async def told_of(name: str):
    try:
        await {"exits": exits, "unloadable_error": unloadable_error}[name]()
    except Exception as error:
        return {"type": type(error).__name__, "text": str(error), "cause": str(error.__cause__)}

def call_from_a_loop_of_ones_own():
    return asyncio.run(echo(3))["value"]

def open_files():
    return len(os.listdir("/proc/self/fd"))

async def use_one_model_at_once():
    model = Model(0)
    await asyncio.gather(*[model.more() for _ in range(5)])
    return await model.more(0)

async def use_model_after_it_raised():
    model = Model(10)
    try:
        await model.add_and_raise(5)
    except ValueError:
        return await model.more(0)

async def use_model():
    model = Model(40)
    return [await model.more(2), await model.more(by=3)]
"""
WORKER = """
import asyncio
from runpod_flash import Endpoint

events = []

@Endpoint(name="worker", cpu="cpu3c-1-2")
def echo(value, more=()):
    return {"value": value, "more": list(more)}

@Endpoint(name="worker", cpu="cpu3c-1-2")
def fails(text):
    raise KeyError(text, 7)

class Odd(Exception):
    def __reduce__(self):
        raise TypeError("not to be pickled")

@Endpoint(name="worker", cpu="cpu3c-1-2")
def unpicklable_error():
    raise Odd("odd")

class Pair(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")

@Endpoint(name="worker", cpu="cpu3c-1-2")
def unloadable_error():
    raise Pair(1, 2)

@Endpoint(name="worker", cpu="cpu3c-1-2")
def exits():
    raise SystemExit(3)

@Endpoint(name="worker", cpu="cpu3c-1-2")
async def slow(seconds):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        print("slow was cancelled")
        raise
    return seconds

@Endpoint(name="worker", cpu="cpu3c-1-2")
class Model:
    def __init__(self, count):
        self.count = count

    def more(self, by=1):
        self.count += by
        return self.count

    def add_and_raise(self, by):
        self.count += by
        raise ValueError(by)
"""
FUNCTIONS = ["echo", "fails", "unpicklable_error", "unloadable_error", "exits", "slow", "Model"]
ROUTES = [
    ("POST", f"/{name}", name)
    for name in (
        "call_echo", "call_fails", "call_unpicklable", "call_slow", "told_of", "call_from_a_loop_of_ones_own",
        "open_files", "use_one_model_at_once", "use_model_after_it_raised", "use_model",
    )
]  # fmt: skip


def application(tmp_path: Path) -> Path:
    directory = user_code(tmp_path, CALLER, ROUTES, name="case")
    (directory / "worker.py").write_text(WORKER)
    path = directory / "flash_manifest.json"
    manifest = json.loads(path.read_text())
    functions = [{"name": name, "module": "worker", "is_class": name == "Model"} for name in FUNCTIONS]
    manifest["resources"]["worker"] = {"is_load_balanced": False, "functions": functions}
    manifest["function_registry"] |= dict.fromkeys(FUNCTIONS, "worker")
    path.write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    place = tmp_path_factory.mktemp("peers")
    with all_of(place, ["case", "worker"], FLASH_APP_DIR=application(place)) as servers:
        yield servers


def test_arguments_and_results_cross(servers):
    value = {"a": [1, None, "ä"], "b": {"c": 2.5}}
    answer = servers["case"].client.post("/call_echo", json={"value": value})
    assert answer.json() == {"value": value, "more": [1.5]}


def test_what_a_function_raises_there_is_raised_here_with_its_traceback(servers):
    told = servers["case"].client.post("/call_fails", json={}).json()
    assert told["args"] == ["the text", 7]
    assert "in fails" in told["cause"]
    assert "KeyError: ('the text', 7)" in told["cause"]


def test_an_exception_that_cannot_be_pickled_is_told_in_words(servers):
    assert servers["case"].client.post("/call_unpicklable", json={}).status_code == 500
    assert "PeerError: `unpicklable_error` of `worker` failed: Odd: odd" in servers["case"].log
    assert "in unpicklable_error" in servers["case"].log


def test_an_exception_that_cannot_be_restored_is_told_in_words_with_its_traceback(servers):
    told = servers["case"].client.post("/told_of", json={"name": "unloadable_error"}).json()
    assert told["type"] == "PeerError"
    assert told["text"] == "`unloadable_error` of `worker` failed: Pair: 1 2"
    assert "in unloadable_error" in told["cause"]


def test_what_ends_a_process_there_is_a_failure_here(servers):
    told = servers["case"].client.post("/told_of", json={"name": "exits"}).json()
    assert (told["type"], told["text"]) == ("PeerError", "`exits` of `worker` failed: SystemExit: 3")


def test_loops_of_ones_own_leave_no_connection_behind(servers):
    client = servers["case"].client
    assert client.post("/call_from_a_loop_of_ones_own", json={}).json() == 3
    before = client.post("/open_files", json={}).json()
    for _ in range(10):
        client.post("/call_from_a_loop_of_ones_own", json={})
    assert client.post("/open_files", json={}).json() < before + 5


def test_first_calls_at_once_make_one_instance(servers):
    assert servers["case"].client.post("/use_one_model_at_once", json={}).json() == 5


def test_an_instance_outlives_a_call_that_raises(servers):
    assert servers["case"].client.post("/use_model_after_it_raised", json={}).json() == 15


def test_a_class_of_another_resource_keeps_its_instance_there(servers):
    assert servers["case"].client.post("/use_model", json={}).json() == [42, 45]


def test_a_call_ends_with_the_request_that_made_it(tmp_path):
    # Of the caller alone: with the same time, the worker's own end could come first.
    first = {"FLASH_REQUEST_TIMEOUT": 1}
    with all_of(tmp_path, ["case", "worker"], first, FLASH_APP_DIR=application(tmp_path)) as servers:
        assert servers["case"].client.post("/call_echo", json={"value": {}}).status_code == 200
        started = time.monotonic()
        assert servers["case"].client.post("/call_slow", json={"seconds": 20}).status_code == 504
        assert time.monotonic() - started < 5
        deadline = time.monotonic() + 10
        while "slow was cancelled" not in servers["worker"].log:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_many_calls_at_once_have_each_their_answer(servers):
    found: list[Any] = [None] * 40

    def call(number: int) -> None:
        found[number] = servers["case"].client.post("/call_echo", json={"value": {"n": number}}).json()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each["value"]["n"] for each in found] == list(range(40))


@pytest.mark.parametrize(
    ("peers", "text"),
    [
        ({}, "does not know the address of the resource `worker`"),
        (
            {"FLASH_PEER_URL": "http://127.0.0.1:1/{resource}"},
            "Cannot connect to `worker` at http://127.0.0.1:1/worker",
        ),
    ],
)
def test_a_peer_that_is_not_there_is_a_500_whose_log_says_where(tmp_path, peers, text):
    settings = {"FLASH_APP_DIR": application(tmp_path), "FLASH_RESOURCE_NAME": "case"}
    with serve(tmp_path, FLASH_EXECUTE_TOKEN=TOKEN, **settings, **peers) as server:
        assert server.client.post("/call_echo", json={"value": {}}).status_code == 500
        assert text in server.log
        assert server.client.post("/call_fails", json={}).status_code == 500


def test_a_peer_with_another_token_says_so(tmp_path):
    directory = application(tmp_path)
    (tmp_path / "worker").mkdir()
    with serve(
        tmp_path / "worker",
        FLASH_APP_DIR=directory,
        FLASH_RESOURCE_NAME="worker",
        FLASH_EXECUTE_TOKEN="other",
    ) as worker:
        settings = {"FLASH_RESOURCE_NAME": "case", "FLASH_PEERS": json.dumps({"worker": worker.url})}
        with serve(tmp_path, FLASH_APP_DIR=directory, FLASH_EXECUTE_TOKEN=TOKEN, **settings) as server:
            assert server.client.post("/call_echo", json={"value": {}}).status_code == 500
            assert "was refused with status 401: Send the execute token" in server.log
            assert TOKEN not in server.log


class Exiting:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit(7)",)


def hostile_answer() -> bytes:
    body = b"".join(envelope.pack({"success": True}, Exiting()))
    kind = envelope.CONTENT_TYPE
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: %b\r\n\r\n%b" % (len(body), kind, body)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "the answer is not an envelope"),
        (b"rubbish\r\n\r\n", "the answer is not valid HTTP"),
        (b"", "the connection ended before the answer. The function may have run"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"
            b"content-type: application/vnd.flash.execute\r\n\r\nFLX1",
            "the answer cannot be read: BadEnvelope",
        ),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nstarting", "was refused with status 503: b'starting'"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not valid HTTP"),
        (hostile_answer(), "the answer cannot be read: SystemExit: 7"),
    ],
)
def test_a_peer_that_answers_rubbish_is_a_500_whose_log_says_so(tmp_path, answer, text):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    while peer.recv(65536):  # closing with something unread would reset the connection
                        pass
                peer.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        peers = json.dumps({"worker": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        own = {"FLASH_APP_DIR": application(tmp_path), "FLASH_RESOURCE_NAME": "case", "FLASH_PEERS": peers}
        with serve(tmp_path, FLASH_EXECUTE_TOKEN=TOKEN, **own) as server:
            assert server.client.post("/call_echo", json={"value": {}}).status_code == 500
            assert text in server.log
        thread.join(10)


def test_a_call_that_is_given_up_is_given_up_at_once_though_the_peer_takes_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await Client().post(url, "/execute", [], [bytes(64 * 1024 * 1024)])
            peer, _ = listener.accept()
            with peer, contextlib.suppress(ConnectionResetError):
                peer.settimeout(5)
                while peer.recv(1024 * 1024):
                    await asyncio.sleep(0)

        asyncio.run(give_up())
