"""`/execute` and `/runsync`: calls by name, on a real server."""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash_runtime.rpc import envelope
from tests import vendor
from tests.serving import Server, serve, user_code

TOKEN = "a-token"
SOURCE = """
import asyncio
import logging
import sys
import threading
import time

def add(a: int, b: int = 1):
    print("adding", a, b)
    return a + b

async def later(x):
    await asyncio.sleep(0.01)
    logging.getLogger("mine").warning("later %s", x)
    return x

def fails(text):
    print("about to fail")
    raise ValueError(text)

def exits():
    raise SystemExit(3)

def prints_oddly():
    sys.stdout.write("caf\\udce9 and no end")
    return 5

async def later_gives_up():
    task = asyncio.create_task(asyncio.sleep(9))
    task.cancel()
    await task

class Hostile(Exception):
    def __str__(self):
        raise SystemExit(4)

    def __reduce__(self):
        raise SystemExit(5)

class Nameless(type):
    @property
    def __name__(self):
        raise SystemExit(6)

class HostileByItsClass(Exception, metaclass=Nameless):
    pass

def hostile(by_its_class=False):
    raise HostileByItsClass if by_its_class else Hostile

async def hostile_later():
    raise Hostile

def hostile_result():
    return Hostile()

def endless():
    endless = []
    endless.append(endless)
    return endless

def unpicklable():
    return threading.Lock()

def echo(value):
    return value

def slow(seconds):
    time.sleep(seconds)
    return seconds

def write_to(data):
    data[0] = ord("y")
    return bytes(data[:3])

class Counter:
    def __init__(self, start=0):
        self.count = start

    def more(self, by=1):
        self.count += by
        return self.count

    def _private(self):
        return "secret"

    def __call__(self):
        return self.count

def job(text: str, times: int = 2):
    return text * times

async def route():
    return "a route"

def hostile_route():
    raise HostileByItsClass
"""
NAMES = [
    "add", "later", "fails", "exits", "hostile", "hostile_later", "hostile_result", "endless", "unpicklable",
    "echo", "slow", "write_to", "prints_oddly", "later_gives_up", "Counter",
]  # fmt: skip


def application(tmp_path: Path) -> Path:
    """A load-balanced resource, and a queue-based one whose function is `job`."""
    directory = user_code(
        tmp_path, SOURCE, [("GET", "/route", "route"), ("GET", "/hostile", "hostile_route")], name="case"
    )
    path = directory / "flash_manifest.json"
    manifest = json.loads(path.read_text())
    functions = manifest["resources"]["case"]["functions"]
    functions += [
        {"name": name, "module": "main", "is_async": "later" in name, "is_class": name == "Counter"}
        for name in NAMES
    ]
    manifest["resources"]["jobs"] = {
        "resource_type": "CpuLiveServerless",
        "is_load_balanced": False,
        "functions": [{"name": "job", "module": "main", "is_async": False, "is_class": False}],
    }
    path.write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("execute")
    settings = {"FLASH_EXECUTE_TOKEN": TOKEN, "FLASH_API_KEY": "users"}
    with serve(place, FLASH_APP_DIR=application(place), **settings) as server:
        yield server


def post(server: Server, content: Any, path: str = "/execute", token: str | None = TOKEN, **more: Any):
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    return server.client.post(path, json=content, headers=headers | more)


def plain(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"function_name": name, "args": args, "kwargs": kwargs, "serialization_format": "json"}


def packed(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def test_a_function_is_called_with_plain_json(server):
    answer = post(server, plain("add", 2, b=3))
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "result": None,
        "json_result": 5,
        "error": None,
        "stdout": "adding 2 3\n",
        "instance_id": None,
        "instance_info": None,
    }


def test_a_coroutine_is_awaited_and_what_it_logs_comes_back(server):
    answer = post(server, {"input": plain("later", [1, {"a": None}])}).json()
    assert (answer["json_result"], answer["stdout"]) == ([1, {"a": None}], "later [1, {'a': None}]\n")


def test_pickles_go_both_ways(server):
    value = {"set": {1, 2}, "bytes": b"x", "complex": 1j}
    answer = post(server, {"function_name": "echo", "args": [packed(value)]}).json()
    assert pickle.loads(base64.b64decode(answer["result"])) == value


def test_code_crosses_as_cloudpickle_has_it(server):
    argument = base64.b64encode(cloudpickle.dumps(lambda x: x + 1)).decode()
    answer = post(server, {"function_name": "echo", "args": [argument]}).json()
    assert pickle.loads(base64.b64decode(answer["result"]))(41) == 42


def test_an_instance_is_kept_and_counts_its_calls(server):
    call = {"execution_type": "class", "class_name": "Counter", "method_name": "more"}
    call |= {"constructor_args": [40], "args": [2], "serialization_format": "json"}
    first = post(server, call).json()
    again = post(server, call | {"instance_id": first["instance_id"], "create_new_instance": False}).json()
    assert (first["json_result"], again["json_result"]) == (42, 44)
    assert again["instance_info"]["method_calls"] == 2
    assert again["instance_info"]["class_name"] == "Counter"


def test_a_function_that_raises_is_a_500_with_its_traceback_for_who_may_see_it(server):
    answer = post(server, plain("fails", "the text"))
    assert answer.status_code == 500
    told = answer.json()
    assert told["success"] is False
    assert told["error"].startswith("ValueError: the text\nTraceback")
    assert "in fails" in told["error"]
    assert "flash_runtime" not in told["error"]
    assert told["stdout"] == "about to fail\n"


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (plain("nothing"), 404, "no function `nothing`"),
        (plain("job", "x"), 404, "belongs to the resource `jobs`"),
        (plain("__import__", "os"), 404, "no function"),
        (plain("add"), 400, "do not match the signature of `add`: missing a required argument: 'a'"),
        (plain("add", 1, 2, 3), 400, "too many positional"),
        (plain("Counter"), 400, "is a class"),
        (plain("exits"), 500, "SystemExit"),
        (plain("hostile"), 500, "Hostile: (its message could not be made)"),
        (plain("hostile", True), 500, "HostileByItsClass: \n"),
        (plain("hostile_later"), 500, "Hostile: (its message could not be made)"),
        ({"function_name": "hostile"}, 500, "Hostile: (its message could not be made)"),
        ({"function_name": "hostile_result"}, 500, "cannot be pickled: SystemExit: 5"),
        (plain("later_gives_up"), 500, "CancelledError"),
        (plain("endless"), 500, "cannot be sent as JSON: RecursionError"),
        ({"function_name": "unpicklable"}, 500, "cannot be pickled"),
        (plain("unpicklable"), 500, "cannot be sent as JSON"),
        ({"function_name": "add", "args": ["@@@"]}, 400, "not valid base64"),
        (
            {"function_name": "add", "args": [base64.b64encode(b"rubbish").decode()]},
            400,
            "cannot be unpickled",
        ),
        ({"function_name": "add", "args": [7]}, 400, "not valid base64"),
        ({"function_name": "add", "args": "x"}, 400, "invalid fields: args"),
        ({}, 400, "no `function_name`"),
        ([], 400, "invalid fields: the body"),
        ({"execution_type": "class"}, 400, "no `class_name`"),
        ({"function_name": "f", "function_code": "def f(): pass"}, 403, "not source code from a caller"),
        ({"function_name": "add", "modules": {"m.py": ""}}, 403, "not source code from a caller"),
        (
            {"execution_type": "class", "class_name": "Counter", "method_name": "_private"},
            403,
            "is private",
        ),
        ({"execution_type": "class", "class_name": "Counter", "method_name": "none"}, 404, "no method"),
        (
            {
                "execution_type": "class",
                "class_name": "Counter",
                "instance_id": "x",
                "create_new_instance": False,
            },
            404,
            "no instance `x`",
        ),
        ({"execution_type": "class", "class_name": "Counter", "instance_id": "x" * 257}, 400, "at most 256"),
    ],
)
def test_what_cannot_be_done_has_its_status_and_says_why(server, content, status, text):
    answer = post(server, content)
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert text in answer.json()["error"]
    assert post(server, plain("add", 1)).json()["json_result"] == 2  # the worker serves on


def test_an_instance_that_cannot_be_called_takes_no_place(server):
    def method(name: str, **more: Any) -> httpx.Response:
        call = {
            "execution_type": "class",
            "class_name": "Counter",
            "method_name": name,
            "instance_id": "kept",
        }
        return post(server, {"serialization_format": "json", **call, **more})

    assert method("more", constructor_args=[5]).json()["json_result"] == 6
    assert [method(name).status_code for name in ("_private", "none")] == [403, 404]
    assert method("more", args=[1, 2, 3]).status_code == 400
    assert method("more", create_new_instance=False).json()["json_result"] == 7


def test_what_is_printed_comes_back_without_its_end_and_where_no_text_can_be(server):
    told = post(server, plain("prints_oddly")).json()
    assert (told["json_result"], told["stdout"]) == (5, "caf\udce9 and no end\n")
    _, header, value = call_envelope(server, {"function": "prints_oddly"}, ((), {}))
    assert (value, header["stdout"]) == (5, "caf\\udce9 and no end\n")


def test_what_is_printed_comes_back_though_it_is_not_logged(tmp_path):
    settings = {"FLASH_EXECUTE_TOKEN": TOKEN, "LOG_LEVEL": "ERROR"}
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), **settings) as server:
        assert post(server, plain("add", 1)).json()["stdout"] == "adding 1 1\n"
        assert "adding 1 1" not in server.log


class Exiting:
    def __reduce__(self):
        return exec, ("raise SystemExit(7)",)


def test_a_pickle_that_exits_is_a_400(server):
    told = post(server, {"function_name": "echo", "args": [packed(Exiting())]})
    assert (told.status_code, told.json()["error"]) == (
        400,
        "An argument cannot be unpickled: SystemExit: 7.",
    )
    status, answered, _ = call_envelope(server, {"function": "echo"}, ((Exiting(),), {}))
    assert (status, answered["success"]) == (400, False)


def test_what_hostile_exceptions_leave_behind_is_every_threads_place(tmp_path):
    settings = {"FLASH_EXECUTE_TOKEN": TOKEN, "FLASH_MAX_CONCURRENCY": 2, "FLASH_REQUEST_TIMEOUT": 5}
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), **settings) as server:
        workers = server.workers()
        for _ in range(2):
            for name in ("hostile", "hostile_later", "exits"):
                assert post(server, plain(name)).status_code == 500
            assert call_envelope(server, {"function": "hostile"}, ((), {}))[0] == 500
            assert server.client.get("/hostile").status_code == 500
        assert post(server, plain("add", 1)).json()["json_result"] == 2
        assert server.workers() == workers


def test_a_body_over_the_limit_is_a_413_before_it_is_read(server):
    head = f"POST /execute HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(f"{head}content-length: {31 * 1024 * 1024}\r\n\r\n{{".encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"success":false' in answer


def test_a_large_body_comes_in_one_piece(server):
    text = "x" * 20_000_000
    assert post(server, plain("echo", text)).json()["json_result"] == text


def test_no_json_is_a_400(server):
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    answer = server.client.post("/execute", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()["success"]) == (400, False)


@pytest.mark.parametrize("token", [None, "wrong", "users"])
def test_without_the_token_nothing_is_decoded(server, token):
    class Evil:
        def __reduce__(self):
            return print, ("run without a token",)

    answer = post(server, {"function_name": "echo", "args": [packed(Evil())]}, token=token)
    assert answer.status_code == 401
    assert answer.json()["success"] is False
    assert "run without a token" not in server.log
    assert TOKEN not in answer.text


def test_users_routes_take_the_users_key_and_not_the_token(server):
    for token, status in [("users", 200), (TOKEN, 401)]:
        headers = {"authorization": f"Bearer {token}"}
        assert server.client.get("/route", headers=headers).status_code == status


def test_no_token_appears_in_the_log(server):
    post(server, plain("fails", "x"))
    assert TOKEN not in server.log


def test_a_worker_without_a_token_takes_no_calls(tmp_path):
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path)) as server:
        answer = post(server, plain("add", 1))
    assert answer.status_code == 403
    assert "FLASH_EXECUTE_TOKEN" in answer.json()["error"]


@pytest.mark.parametrize("name", ["RUNPOD_API_KEY", "FLASH_EXECUTE_TOKEN_FILE"])
def test_the_token_may_be_the_platforms_or_in_a_file(tmp_path, name):
    value = TOKEN
    if name.endswith("_FILE"):
        (tmp_path / "token").write_text(TOKEN + "\n")
        value = str(tmp_path / "token")
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), **{name: value}) as server:
        assert post(server, plain("add", 1)).json()["json_result"] == 2
        assert post(server, plain("add", 1), token="other").status_code == 401


def test_calls_that_run_at_once_have_each_their_own_output(server):
    found: dict[int, str] = {}

    def call(number: int) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = httpx.post(f"{server.url}/execute", json=plain("add", number), headers=headers)
        found[number] = answer.json()["stdout"]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"adding {number} 1\n" for number in range(20)}


def test_a_caller_sets_the_time_that_it_waits(server):
    answer = post(server, plain("slow", 2), **{"x-flash-timeout": "0.3"})
    assert answer.status_code == 504
    assert answer.json()["success"] is False


def test_source_text_is_run_in_the_development_mode(tmp_path):
    call = {"function_name": "f", "function_code": "import helper\ndef f(x): return helper.double(x)"}
    call |= {"modules": {"helper.py": "def double(x): return 2 * x"}, "args": [packed(21)]}
    settings = {"FLASH_EXECUTE_TOKEN": TOKEN, "FLASH_LIVE": "1"}
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), **settings) as server:
        answer = post(server, call).json()
        assert pickle.loads(base64.b64decode(answer["result"])) == 42
        assert post(server, call | {"function_code": "def g(): pass"}).status_code == 400
        for name in ("../x.py", "a\0.py", f"{'a' * 300}.py", "x.txt"):
            assert post(server, call | {"modules": {name: ""}}).status_code == 400
        version = "def version():\n    import helper\n    return helper.V"
        for number in (1, 2, 1):
            call = {"function_name": "version", "function_code": version, "serialization_format": "json"}
            answer = post(server, call | {"modules": {"helper.py": f"V = {number}"}})
            assert answer.json()["json_result"] == number
        assert "FLASH_LIVE is on" in server.log


VENDORS_CLIENT = """
import asyncio, sys
from types import SimpleNamespace
from runpod_flash.stubs.load_balancer_sls import LoadBalancerSlsStub

def scale(values, *, by):
    print("scaling")
    return {"values": [value * by for value in values], "set": {1, 2}}

def broken(text):
    raise KeyError(text)

stub = LoadBalancerSlsStub(SimpleNamespace(endpoint_url=sys.argv[0] and "URL", name="api"), timeout=20)

async def main():
    print(await stub(scale, None, None, True, [1, 2.5], by=2))
    try:
        await stub(broken, None, None, True, "the text")
    except RuntimeError as error:
        print("RuntimeError", "500" in str(error), "KeyError" in str(error), "the text" in str(error))

asyncio.run(main())
"""


@pytest.mark.vendor
def test_the_vendors_client_calls_it_unmodified(tmp_path):
    settings = {"RUNPOD_API_KEY": TOKEN, "FLASH_LIVE": "1"}
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), **settings) as server:
        program = tmp_path / "client.py"
        program.write_text(VENDORS_CLIENT.replace("URL", server.url))
        printed = vendor.run_file(program, RUNPOD_API_KEY=TOKEN)
    assert "{'values': [2, 5.0], 'set': {1, 2}}" in printed
    assert "RuntimeError True True True" in printed


@pytest.mark.vendor
def test_the_vendors_client_is_told_why_its_source_text_is_not_run(tmp_path):
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), RUNPOD_API_KEY=TOKEN) as server:
        program = tmp_path / "client.py"
        source = VENDORS_CLIENT.replace("URL", server.url)
        catch = "try:\n    asyncio.run(main())\nexcept RuntimeError as error:\n    print(error)\n"
        program.write_text(source.replace("asyncio.run(main())\n", catch))
        printed = vendor.run_file(program, RUNPOD_API_KEY=TOKEN)
    assert "403" in printed
    assert "not source code from a caller" in printed


# The envelope.


def call_envelope(server: Server, header: dict[str, Any], value: Any) -> tuple[int, dict[str, Any], Any]:
    body = b"".join(envelope.pack(header, value))
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": envelope.CONTENT_TYPE.decode()}
    answer = server.client.post("/execute", content=body, headers=headers)
    assert answer.headers["content-type"] == envelope.CONTENT_TYPE.decode()
    view = memoryview(answer.content)
    told, start = envelope.unpack_header(view)
    return answer.status_code, told, envelope.unpack_value(view, told, start)


def test_buffers_cross_in_the_envelope(server):
    data = pickle.PickleBuffer(bytearray(b"x" * 300_000))
    status, told, result = call_envelope(server, {"function": "write_to"}, ((data,), {}))
    assert (status, told["success"]) == (200, True)
    assert result == b"yxx"


def test_an_exception_crosses_in_the_envelope(server):
    status, told, raised = call_envelope(server, {"function": "fails"}, (("x",), {}))
    assert (status, told["type"], told["error"]) == (500, "ValueError", "ValueError: x")
    assert isinstance(raised, ValueError)
    assert "in fails" in told["traceback"]


@pytest.mark.parametrize(
    "body", [b"", b"FLX1", b"FLX1\xff\xff\xff\xff", b"FLX1\x02\x00\x00\x00{}", b"{}" * 40]
)
def test_what_is_no_envelope_is_a_400(server, body):
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": envelope.CONTENT_TYPE.decode()}
    answer = server.client.post("/execute", content=body, headers=headers)
    assert answer.status_code == 400


# Queue-based resources.


def test_a_queue_based_resource_answers_jobs(tmp_path):
    settings = {"FLASH_RESOURCE_NAME": "jobs", "FLASH_EXECUTE_TOKEN": TOKEN}
    with serve(tmp_path, FLASH_APP_DIR=application(tmp_path), **settings) as server:
        done = server.client.post("/runsync", json={"input": {"text": "ab"}}).json()
        assert (done["status"], done["output"]) == ("COMPLETED", "abab")
        failed = server.client.post("/runsync", json={"input": {"text": "ab", "times": "x"}})
        assert (failed.status_code, failed.json()["status"]) == (500, "FAILED")
        assert "can't multiply" not in failed.text
        for wrong in ({}, {"input": {}}, {"input": {"other": 1}}, []):
            assert server.client.post("/runsync", json=wrong).status_code == 400
        assert post(server, plain("job", "x")).json()["json_result"] == "xx"
        assert post(server, plain("add", 1)).status_code == 404


def test_every_resource_of_an_application_answers_jobs_under_its_name(tmp_path):
    app = application(tmp_path)
    manifest = json.loads((app / "flash_manifest.json").read_text())
    del manifest["resources"]["case"]  # queue-based ones alone are an application, too
    (app / "flash_manifest.json").write_text(json.dumps(manifest))
    with serve(tmp_path, FLASH_APP_DIR=app, FLASH_RESOURCE_NAME="*") as server:
        done = server.client.post("/jobs/runsync", json={"input": {"text": "ab"}}).json()
        assert (done["status"], done["output"]) == ("COMPLETED", "abab")
        assert server.client.post("/runsync", json={"input": {"text": "ab"}}).status_code == 404
        operation = server.client.get("/openapi.json").json()["paths"]["/jobs/runsync"]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]["input"]["required"] == ["text"]


# Whatever is sent.

CALLS = st.fixed_dictionaries(
    {},
    optional={
        "function_name": st.sampled_from(["add", "echo", "fails", "Counter", "none"]) | st.text() | st.none(),
        "class_name": st.sampled_from(["Counter", "add"]) | st.text(),
        "execution_type": st.sampled_from(["function", "class"]) | st.text(),
        "method_name": st.sampled_from(["more", "__call__", "__init__", "_private"]) | st.text(),
        "args": st.lists(st.text() | st.integers() | st.none() | st.just(packed([1])), max_size=3)
        | st.text(),
        "kwargs": st.dictionaries(st.text(), st.text() | st.integers(), max_size=2) | st.integers(),
        "constructor_args": st.lists(st.text() | st.integers(), max_size=2),
        "instance_id": st.text() | st.none() | st.integers(),
        "create_new_instance": st.booleans() | st.text(),
        "serialization_format": st.sampled_from(["json", "cloudpickle"]) | st.text(),
        "function_code": st.text() | st.none(),
        "modules": st.dictionaries(st.text(), st.text(), max_size=1),
    },
)


EXAMPLES = int(os.environ.get("EXECUTE_EXAMPLES", "300"))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    content=CALLS.map(lambda call: json.dumps(call).encode())
    | CALLS.map(lambda call: json.dumps({"input": call}).encode())
    | st.binary(max_size=300)
    | st.binary(max_size=100).map(lambda rest: b"FLX1" + rest),
    as_envelope=st.booleans(),
)
def test_any_body_has_an_honest_answer_and_the_worker_serves_on(server, content, as_envelope):
    kind = envelope.CONTENT_TYPE.decode() if as_envelope else "application/json"
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": kind}
    answer = server.client.post("/execute", content=content, headers=headers)
    assert answer.status_code in (200, 400, 403, 404, 500)
    if answer.status_code == 500:
        assert "KeyError" in answer.text or "ValueError" in answer.text or "TypeError" in answer.text
    if not as_envelope:
        assert answer.json()["success"] is (answer.status_code == 200)
    assert server.client.post("/execute", content=content, headers={"content-type": kind}).status_code == 401
