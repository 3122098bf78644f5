"""The same artifact, built by the vendor, on the vendor's worker and on this one: the same answers.

Each case of `SAME` must be answered alike, field by field. Each of `DIFFERENT` is an intended difference,
with both answers written down, so that neither side can drift unnoticed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests import vendor
from tests.serving import run, serve

pytestmark = pytest.mark.vendor

ID = "4d1b0f0c-7a4d-4a0e-9d43-0f0c7a4d4a0e"
ITEM = {"name": "lamp", "price": 2, "tags": ["new"], "color": "blue"}
JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
UTF8 = {"content-type": "application/json; charset=utf-8"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    options: dict[str, Any]

    def on(self, client: httpx.Client) -> httpx.Response:
        return client.request(self.method, self.path, **self.options)


def call(method: str, path: str, **options: Any) -> Call:
    return Call(method, path, options)


SAME = {
    "get": call("GET", "/health"),
    "path-parameter": call("GET", "/users/7"),
    "path-parameter-of-a-wrong-type": call("GET", "/users/seven"),
    "query": call("GET", "/users/7", params={"verbose": "yes", "tag": "a b&c"}),
    "query-of-a-wrong-type": call("GET", "/users/7", params={"verbose": "perhaps"}),
    "query-is-missing": call("GET", "/markup"),
    "compiled-dependency": call("GET", "/markup", params={"text": "<b>"}),
    "body": call("POST", "/users", json={"name": "ada"}),
    "body-with-all": call("POST", "/users", json={"name": "ada", "email": "a@b", "age": 36}),
    "body-with-unknown-keys": call("POST", "/users", json={"name": "ada", "planet": "earth"}),
    "body-without-what-is-required": call("POST", "/users", json={"email": "a@b"}),
    "body-of-wrong-types": call("POST", "/users", json={"name": 7, "age": "old"}),
    "body-null": call("POST", "/users", json=None, headers=JSON),
    "body-a-list": call("POST", "/users", json=["ada"]),
    "body-a-string": call("POST", "/users", json="ada"),
    "body-empty": call("POST", "/users", headers=JSON),
    "body-missing": call("POST", "/users"),
    "body-empty-object": call("POST", "/process", json={}),
    "malformed-json": call("POST", "/users", content=b'{"name": ', headers=JSON),
    "json-with-an-open-string": call("POST", "/users", content=b'{"name": "', headers=JSON),
    "not-utf-8": call("POST", "/users", content=b'{"name": "\xff\xfe"}', headers=JSON),
    "deeply-nested": call("POST", "/process", content=b'{"data":' + b"[" * 100_000, headers=JSON),
    "wrong-content-type": call("POST", "/users", content=b'{"name": "ada"}', headers=CSV),
    "no-content-type": call("POST", "/users", content=b'{"name": "ada"}'),
    "form-instead-of-json": call("POST", "/users", data={"name": "ada"}),
    "json-with-a-charset": call("POST", "/users", content=b'{"name":"ada"}', headers=UTF8),
    "put-path-and-body": call("PUT", "/users/7", json={"name": "ada"}),
    "put-a-second-time": call("PUT", "/users/7", json={"name": "ada"}),
    "put-bad-path-and-body": call("PUT", "/users/x", json={"tags": 1}),
    "patch-types": call("PATCH", f"/users/{ID}", json={"since": "2026-01-31T12:00:00Z", "color": "red"}),
    "patch-bad-types": call("PATCH", "/users/7", json={"since": "soon", "color": "mauve"}),
    "delete-without-body": call("DELETE", "/users/7"),
    "model": call("POST", "/items", json=ITEM),
    "model-with-defaults": call("POST", "/items", json={"name": "lamp"}),
    "model-broken": call("POST", "/items", json={"name": "", "color": "mauve", "price": "x"}),
    "model-path-and-query": call("POST", "/baskets/3", params={"dry": "1"}, json={"items": [ITEM]}),
    "model-nested-broken": call("POST", "/baskets/x", json={"items": [{"price": 1}], "note": 3}),
    "list-of-models": call("POST", "/items/many", json={"items": [ITEM], "total": 2.5}),
    "list-of-models-broken": call("POST", "/items/many", json={"items": [ITEM, {}], "total": "x"}),
    "upload": call("POST", "/upload", files={"file": b"\x00\xff" * 5000}),
    "upload-and-form": call("POST", "/upload", files={"file": b"x"}, data={"label": "a", "copies": "3"}),
    "upload-without-the-file": call("POST", "/upload", data={"label": "a"}),
    "upload-as-json": call("POST", "/upload", json={"file": "x"}),
    "upload-bad-form": call("POST", "/upload", files={"file": b"x"}, data={"copies": "many"}),
    "upload-two": call("POST", "/upload/pair", files={"first": b"abc", "second": b"de"}),
    "upload-default": call("POST", "/upload/pair", files={"first": b"abc"}),
    "upload-broken-multipart": call("POST", "/upload", content=b"--x\r\nbroken", headers=MULTIPART),
    "dict": call("POST", "/process", json={"data": {"a": [1, {"b": None}], "ü": "ü"}}),
    "dict-bare": call("POST", "/process", json={"a": 1}),
    "untyped": call("POST", "/anything", json={"value": [1, "a", None]}),
    "untyped-missing": call("POST", "/anything", json={}),
    "no-parameters": call("POST", "/nothing"),
    "no-parameters-with-a-body": call("POST", "/nothing", json={"a": 1}),
    "floats": call("POST", "/numbers", json={"values": [0.1] * 1000}),
    "floats-broken": call("POST", "/numbers", json={"values": [0.1, "x"]}),
    "keywords": call("POST", "/named", json={"name": "ada", "more": 1}),
    "annotated-result": call("GET", "/typed/3"),
    "http-exception": call("GET", "/missing"),
    "unknown-path": call("GET", "/nowhere"),
    "unknown-path-post": call("POST", "/nowhere", json={}),
    "wrong-method": call("DELETE", "/items"),
    "head": call("HEAD", "/health"),
    "options": call("OPTIONS", "/items"),
    "trailing-slash": call("GET", "/health/"),
    "encoded-slash": call("GET", "/users/7%2F8"),
}  # fmt: skip


@pytest.fixture(scope="module")
def artifact():
    return vendor.build("shop")


@pytest.fixture(scope="module")
def theirs(artifact, tmp_path_factory):
    with vendor.serve_vendor(artifact, "shop-api", tmp_path_factory.mktemp("theirs")) as client:
        yield client


@pytest.fixture(scope="module", params=["image", "artifact"])
def server(request, artifact, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("ours")
    settings = {"FLASH_BUILD_ARTIFACT_PATH": artifact, "FLASH_APP_DIR": tmp_path / "app"}
    python = vendor.runtime_python() if request.param == "artifact" else sys.executable
    with serve(tmp_path, python=python, FLASH_SDK=request.param, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def ours(server):
    return server.client


def described(response: httpx.Response) -> dict[str, Any]:
    """What a client sees of an answer: status, content type, body and the headers that steer it."""
    content_type = response.headers.get("content-type")
    location = response.headers.get("location", "").partition("//")[2].partition("/")[2]
    return {
        "status": response.status_code,
        "content-type": content_type,
        "allow": response.headers.get("allow"),
        "x-why": response.headers.get("x-why"),
        "location": location,
        "body": response.json() if content_type == "application/json" and response.content else response.text,
    }


@pytest.mark.parametrize("case", SAME)
def test_the_answer_is_the_vendors(ours, theirs, case):
    expected = described(SAME[case].on(theirs))
    assert expected["status"] != 500, "a case where the vendor fails belongs to the differences"
    assert described(SAME[case].on(ours)) == expected


@dataclass(frozen=True)
class Difference:
    why: str
    call: Call
    theirs: dict[str, Any]
    ours: dict[str, Any]


DIFFERENT = {
    "ping-while-healthy": Difference(
        "the same, but for what a probe reads: it may not be cached",
        call("GET", "/ping"),
        theirs={"status": 200, "body": {"status": "healthy"}, "cache-control": None},
        ours={"status": 200, "body": {"status": "healthy"}, "cache-control": "no-store"},
    ),
    "static-path-beside-a-parameter": Difference(
        "a path without parameters is looked at first; there, the functions' alphabet decides",
        call("GET", "/users/me"),
        theirs={"status": 422},
        ours={"status": 200, "body": {"id": "me"}},
    ),
    "exception": Difference(
        "JSON with the request's id, so that the client can quote it",
        call("GET", "/broken", headers={"x-request-id": "quoted"}),
        theirs={"status": 500, "content-type": "text/plain; charset=utf-8", "body": "Internal Server Error"},
        ours={
            "status": 500,
            "content-type": "application/json",
            "body": {"detail": "Internal Server Error", "request_id": "quoted"},
        },
    ),
    "dataclass": Difference(
        "the handler gets the dataclass that it asks for; there a dict, on which it fails",
        call("POST", "/points", json={"point": {"x": 1, "y": 2}}),
        theirs={"status": 500},
        ours={"status": 200, "body": {"sum": 3}},
    ),
    "names-of-pydantics": Difference(
        "a parameter may have any name; there `model_config` never arrives",
        call("POST", "/shadow", json={"schema": "s", "copy": 1, "model_config": "m", "json": True}),
        theirs={"status": 200, "body": ["s", 1, "", True]},
        ours={"status": 200, "body": ["s", 1, "m", True]},
    ),
    "stream-of-text": Difference(
        "text is streamed as it is; there each piece becomes a JSON string",
        call("GET", "/stream"),
        theirs={"status": 200, "body": '"0\\n"\n"1\\n"\n"2\\n"\n'},
        ours={"status": 200, "content-type": "text/plain; charset=utf-8", "body": "0\n1\n2\n"},
    ),
    "stream-from-a-body": Difference(
        "streamed; there collected into a list",
        call("POST", "/stream/words", json={"text": "a b"}),
        theirs={"status": 200, "content-type": "application/json", "body": ["a", "b"]},
        ours={"status": 200, "content-type": "text/plain; charset=utf-8", "body": "ab"},
    ),
    "stream-of-objects": Difference(
        "JSON lines under the name that most clients know",
        call("GET", "/stream/objects"),
        theirs={"content-type": "application/jsonl", "body": '{"number": 0}\n{"number": 1}\n{"number": 2}\n'},
        ours={"content-type": "application/x-ndjson", "body": '{"number":0}\n{"number":1}\n{"number":2}\n'},
    ),
    "nan": Difference(
        "null, since JSON has no NaN; there the answer fails",
        call("GET", "/nan"),
        theirs={"status": 500},
        ours={"status": 200, "body": {"value": None, "values": [None, 1.0]}},
    ),
    "nan-repeated-in-a-422": Difference(
        "the NaN is null in the report; there the report fails",
        call("POST", "/users", content=b'{"name": NaN}', headers=JSON),
        theirs={"status": 500},
        ours={"status": 422},
    ),
    "lone-surrogate": Difference(
        "escaped; there the answer fails",
        call("POST", "/process", content=b'{"data": {"a": "\\ud800"}}', headers=JSON),
        theirs={"status": 500},
        ours={"status": 200},
    ),
    "execute": Difference(
        "there, anybody's code is run; here, whoever calls shows a token",
        call("POST", "/execute", json={"function_name": "f", "function_code": "def f(): return 1"}),
        theirs={"status": 200},
        ours={"status": 403},
    ),
}


def seen(response: httpx.Response, expected: dict[str, Any]) -> dict[str, Any]:
    known = {**described(response), "cache-control": response.headers.get("cache-control")}
    return {key: known[key] for key in expected}


@pytest.mark.parametrize("case", DIFFERENT)
def test_an_intended_difference_is_as_described(ours, theirs, case):
    difference = DIFFERENT[case]
    assert seen(difference.call.on(theirs), difference.theirs) == difference.theirs
    assert seen(difference.call.on(ours), difference.ours) == difference.ours


def test_the_document_has_the_same_operations_and_bodies(ours, theirs):
    mine, vendors = ours.get("/openapi.json").json(), theirs.get("/openapi.json").json()
    vendors["paths"].pop("/ping")
    vendors["paths"].pop("/execute")
    assert {path: set(each) for path, each in mine["paths"].items()} == {
        path: set(each) for path, each in vendors["paths"].items()
    }
    create = mine["paths"]["/users"]["post"]
    assert create["description"] == "Creates a user."
    assert create["summary"] == "Create User"
    reference = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == "#/components/schemas/CreateUserBody"
    assert (
        mine["components"]["schemas"]["CreateUserBody"] == vendors["components"]["schemas"]["CreateUserBody"]
    )


def test_two_resources_need_a_name_and_serve_either_or_both(tmp_path):
    artifact = vendor.build("duo")
    settings = {"FLASH_BUILD_ARTIFACT_PATH": artifact, "FLASH_APP_DIR": tmp_path / "app"}
    done = run("serve", **settings)
    assert done.returncode == 65
    assert "`cats`, `dogs`" in done.stderr
    for name, path, answer in [
        ("cats", "/say", "meow"),
        ("dogs", "/say", "woof"),
        ("*", "/dogs/say", "woof"),
    ]:
        with serve(tmp_path, FLASH_RESOURCE_NAME=name, **settings) as server:
            assert server.client.get(path).json() == answer
            if name == "*":
                assert server.client.get("/cats/say").json() == "meow"
                fetched = server.client.post("/dogs/fetch", json={"what": "stick", "times": 2})
                assert fetched.json() == ["stick", "stick"]
