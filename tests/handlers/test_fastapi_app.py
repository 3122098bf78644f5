"""The application: handlers of every shape, called as a client calls them."""

import asyncio
import datetime
import enum
import functools
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import Body, Depends, FastAPI, File, Form, Header, HTTPException, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from flash_runtime.artifact.selection import Route
from flash_runtime.dispatch.threads import Threads
from flash_runtime.errors import ManifestFault, UserCodeFault
from flash_runtime.handlers import fastapi_app as application

pytestmark = pytest.mark.smoke

if TYPE_CHECKING:
    from decimal import Decimal


class Item(BaseModel):
    name: str
    price: float = 1.0


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


def build(method: str, path: str, handler: Any) -> FastAPI:
    route = Route("api", method, path, "main", "handler")
    return application.build([(route, handler)], title="test", threads=Threads(4)).asgi


def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def call(handler: Any, method: str = "POST", path: str = "/", url: str | None = None, **options: Any) -> Any:
    answer = ask(build(method, path, handler), method, url or path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


# What arrives.


def positional_only(a: int, b: int = 2, /):
    return [a, b]


def keyword_only(*, a: int, b: int = 2):
    return [a, b]


def variadic(a: int, *more: int, b: int = 2, **others: int):
    return [a, list(more), b, others]


def untyped(a, b=2):
    return [a, b]


def default_list(a: list[int] = []):  # noqa: B006
    a.append(1)
    return a


def typed(when: datetime.datetime, who: uuid.UUID, color: Color, point: Point, items: list[Item]):
    assert isinstance(when, datetime.datetime)
    assert isinstance(who, uuid.UUID)
    assert color is Color.RED
    assert isinstance(point, Point)
    assert isinstance(items[0], Item)
    return [when, who, color, point, items]


def strange_names(schema: int, copy: int, _hidden: int, model_dump: int, flash_body_: int = 0):
    return [schema, copy, _hidden, model_dump, flash_body_]


def constrained(count: Annotated[int, Field(gt=0)], word: str = Field("w", max_length=3)):
    return [count, word]


def aliased(count: Annotated[int, Field(alias="n")], size: int = Body(alias="s")):
    return [count, size]


def optional_model(item: Item | None = None):
    return item


class Callable:
    async def __call__(self, a: int):
        return a


def decorated(a: int):
    return a


@functools.wraps(decorated)
def wrapper(*args, **kwargs):
    return decorated(*args, **kwargs) + 1


async def coroutine(a: int):
    return a


@functools.wraps(coroutine)
def sync_wrapper_of_async(*args, **kwargs):
    return coroutine(*args, **kwargs)


ID = "4d1b0f0c-7a4d-4a0e-9d43-0f0c7a4d4a0e"
TYPED = {
    "when": "2026-01-31T12:00:00Z",
    "who": ID,
    "color": "red",
    "point": {"x": 1},
    "items": [{"name": "a"}],
}


@pytest.mark.parametrize(
    ("handler", "body", "expected"),
    [
        (positional_only, {"a": 1}, [1, 2]),
        (keyword_only, {"a": 1, "b": 3}, [1, 3]),
        (variadic, {"a": 1, "more": [9], "others": {"x": 1}}, [1, [], 2, {}]),
        (untyped, {"a": {"x": None}}, [{"x": None}, 2]),
        (
            typed,
            TYPED,
            ["2026-01-31T12:00:00+00:00", ID, "red", {"x": 1, "y": 0}, [{"name": "a", "price": 1.0}]],
        ),
        (strange_names, {"schema": 1, "copy": 2, "_hidden": 3, "model_dump": 4}, [1, 2, 3, 4, 0]),
        (constrained, {"count": 1}, [1, "w"]),
        (aliased, {"n": 1, "s": 2}, [1, 2]),
        (optional_model, {"item": {"name": "a"}}, {"name": "a", "price": 1.0}),
        (optional_model, {}, None),
        (Callable(), {"a": 1}, 1),
        (functools.partial(untyped, b=5), {"a": 1}, [1, 5]),
        (wrapper, {"a": 1}, 2),
        (sync_wrapper_of_async, {"a": 1}, 1),
    ],
)
def test_a_body_becomes_the_arguments(handler, body, expected):
    assert call(handler, json=body) == expected


def test_a_mutable_default_is_new_for_each_request():
    app = build("POST", "/", default_list)
    assert [ask(app, "POST", "/", json={}).json() for _ in range(3)] == [[1]] * 3


@pytest.mark.parametrize(
    ("handler", "body", "place"),
    [
        (constrained, {"count": 0}, ["body", "count"]),
        (aliased, {"count": 1, "s": 1}, ["body", "n"]),
        (typed, {**TYPED, "items": [{}]}, ["body", "items", 0, "name"]),
        (strange_names, {"schema": "x", "copy": 2, "_hidden": 3, "model_dump": 4}, ["body", "schema"]),
    ],
)
def test_a_422_names_the_place_as_the_client_knows_it(handler, body, place):
    answer = ask(build("POST", "/", handler), "POST", "/", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == place


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_body_method_gathers(method):
    assert call(untyped, method, json={"a": 1}) == [1, 2]


def test_path_parameters_stay_out_of_the_body():
    def handler(number: int, name: str, rest: str):
        return [number, name, rest]

    assert call(handler, path="/{number}/{rest:path}", url="/3/a/b", json={"name": "n"}) == [3, "n", "a/b"]


def test_a_handler_with_keywords_gets_the_path_parameters_there():
    def handler(**values):
        return values

    assert call(handler, "GET", "/{a}/{b}", "/1/2") == {"a": "1", "b": "2"}


def test_fastapis_own_parameters_are_left_to_fastapi():
    async def shared(q: int = 1):
        return q

    def handler(
        request: Request,
        name: str,
        agent: Annotated[str, Header(alias="user-agent")],
        limit: int = Query(3),
        more: int = Depends(shared),
    ):
        return [request.method, name, agent, limit, more]

    headers = {"user-agent": "me"}
    got = call(handler, json={"name": "n"}, params={"limit": 5, "q": 7}, headers=headers)
    assert got == ["POST", "n", "me", 5, 7]


def test_uploads_in_fastapis_way_work_beside_the_vendors():
    async def handler(
        plain: bytes, whole: UploadFile, marked: Annotated[bytes, File()], note: str = Form("n")
    ):
        return [len(plain), whole.filename, len(marked), note]

    files = {"plain": b"1", "whole": ("a.txt", b"22"), "marked": b"333"}
    assert call(handler, files=files) == [1, "a.txt", 3, "n"]


def test_files_may_be_left_out_or_be_many_beside_another():
    def handler(first: bytes, other: bytes | None = None, more: list[bytes] = []):  # noqa: B006
        return [len(first), other and len(other), [len(each) for each in more]]

    assert call(handler, files={"first": b"1"}) == [1, None, []]
    files = [("first", b"1"), ("other", b"22"), ("more", b"333"), ("more", b"4444")]
    assert call(handler, files=files) == [1, 2, [3, 4]]


def test_a_form_in_fastapis_way_stays_a_form():
    def handler(name: str = Form(), size: int = Form(1)):
        return [name, size]

    assert call(handler, data={"name": "n"}) == ["n", 1]


# What comes back.


def test_a_return_annotation_is_enforced_where_fastapi_does_and_shown_everywhere():
    def get() -> Item:
        return {"name": "a", "secret": 1}

    def gathered(name: str) -> Item:
        return {"name": name, "extra": 1}

    assert call(get, "GET") == {"name": "a", "price": 1.0}
    assert call(gathered, json={"name": "a"}) == {"name": "a", "extra": 1}
    for handler, method in ((get, "get"), (gathered, "post")):
        document = build(method.upper(), "/", handler).openapi()
        content = document["paths"]["/"][method]["responses"]["200"]["content"]
        assert content["application/json"]["schema"]["$ref"].endswith("/Item")


def test_an_annotation_without_a_schema_is_not_shown_and_hurts_nobody():
    class Opaque:
        pass

    def handler(a: int) -> Opaque:
        return a

    assert call(handler, json={"a": 1}) == 1
    assert build("POST", "/", handler).openapi()


def test_a_response_passes_as_it_is():
    def handler(a: int):
        return PlainTextResponse("as it is", 201, {"x-a": str(a)})

    answer = ask(build("POST", "/", handler), "POST", "/", json={"a": 1})
    assert (answer.status_code, answer.text, answer.headers["x-a"]) == (201, "as it is", "1")


def words() -> Iterator[str]:
    yield "a"
    yield "é"


async def chunks() -> AsyncIterator[bytes]:
    yield b"\x00"
    yield b"\xff"


def objects():
    yield {"a": math.nan}
    yield Item(name="b")
    yield "text"


async def nothing():
    return
    yield


def expression():
    return (word for word in ("a", "b"))


async def from_async():
    return words()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("handler", "kind", "content"),
    [
        (words, "text/plain; charset=utf-8", "aé".encode()),
        (chunks, "application/octet-stream", b"\x00\xff"),
        (objects, "application/x-ndjson", b'{"a":null}\n{"name":"b","price":1.0}\n"text"\n'),
        (nothing, "application/x-ndjson", b""),
        (expression, "text/plain; charset=utf-8", b"ab"),
        (from_async, "text/plain; charset=utf-8", "aé".encode()),
    ],
)
def test_a_generator_is_streamed_in_the_form_of_its_items(handler, kind, content, method):
    answer = ask(build(method, "/", handler), method, "/")
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, kind, content)


def test_a_generator_that_fails_before_its_first_item_is_500():
    def handler():
        raise ValueError("early")
        yield

    assert ask(build("GET", "/", handler), "GET", "/").status_code == 500


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_generator_that_fails_later_leaves_the_response_unfinished(caplog, error, kind):
    def plain():
        yield "a"
        raise error("late")

    async def asynchronous():
        yield "a"
        raise error("late")

    handler = plain if kind == "plain" else asynchronous

    sent = []

    async def receive():
        await asyncio.sleep(5)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(build("GET", "/", handler)(scope, receive, send))
    assert [message.get("body") for message in sent] == [None, b"a"]
    assert sent[-1]["more_body"]
    assert f"{error.__name__}: late" in caplog.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_any_result_made_of_jsons_types_is_answered(value):
    answer = ask(build("GET", "/", lambda: value), "GET", "/")
    assert answer.status_code == 200

    def finite(part):
        if isinstance(part, float):
            return part if math.isfinite(part) else None
        if isinstance(part, list):
            return [finite(each) for each in part]
        return {key: finite(each) for key, each in part.items()} if isinstance(part, dict) else part

    assert answer.json() == finite(value)


# Failures.


def raising(error: BaseException):
    def handler():
        raise error

    return handler


async def raising_async():
    raise SystemExit(3)


@pytest.mark.parametrize(
    "handler",
    [
        raising(ValueError("a secret")),
        raising(SystemExit("a secret")),
        raising(KeyboardInterrupt("a secret")),
        raising(StopIteration("a secret")),
        raising(RecursionError("a secret")),
        raising_async,
        lambda: object,
    ],
)
def test_a_failure_is_500_without_its_text_and_logged_once(handler, caplog):
    answer = ask(build("GET", "/", handler), "GET", "/")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal Server Error", "request_id": None}
    (record,) = [each for each in caplog.records if each.name == "flash_runtime.failures"]
    assert record.exc_info


def test_the_logged_traceback_begins_in_the_users_code(caplog):
    ask(build("GET", "/", raising(ValueError("mine"))), "GET", "/")
    assert caplog.records[0].exc_info[2].tb_frame.f_code.co_name == "handler"


def test_an_http_exception_is_the_users_answer():
    answer = ask(build("GET", "/", raising(HTTPException(418, {"tea": True}, {"x-a": "1"}))), "GET", "/")
    assert (answer.status_code, answer.json(), answer.headers["x-a"]) == (418, {"detail": {"tea": True}}, "1")


# What cannot be served.


def test_every_path_parameter_that_is_not_taken_is_in_one_report():
    routes = [
        (Route("api", "GET", "/{a}/{b}", "main", "one"), lambda a: a),
        (Route("api", "GET", "/{c}", "main", "two"), lambda: 1),
        (Route("api", "GET", "/x/{d}", "main", "three"), lambda d: d),
    ]
    with pytest.raises(ManifestFault) as caught:
        application.build(routes, title="t", threads=Threads(1))
    assert [problem.rpartition(" (")[0] for problem in caught.value.problems] == [
        "GET /{a}/{b}: `main.one` does not take b",
        "GET /{c}: `main.two` does not take c",
    ]
    assert "test_fastapi_app.py:" in caught.value.problems[0]


def unresolved(a: "Decimal"):
    return a


class Opaque:
    pass


def opaque(a: Opaque):
    return a


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("handler", [unresolved, opaque])
def test_a_signature_that_cannot_be_served_names_the_handler_and_its_place(handler, method):
    with pytest.raises(UserCodeFault, match=r"main\.handler") as caught:
        build(method, "/", handler)
    assert "test_fastapi_app.py:" in caught.value.where
    assert "`a`" in caught.value.what or "Decimal" in caught.value.what


# The document.


def test_the_document_shows_docstring_parameters_and_types():
    def create(name: str, size: int = 3):
        """Makes a thing.

        At length.
        """

    document = build("POST", "/things", create).openapi()
    operation = document["paths"]["/things"]["post"]
    assert operation["summary"] == "Handler"
    assert operation["description"] == "Makes a thing.\n\nAt length."
    body = document["components"]["schemas"]["CreateBody"]
    assert body["properties"]["size"] == {"default": 3, "title": "Size", "type": "integer"}
    assert body["required"] == ["name"]


def test_a_handler_may_take_the_paths_of_the_document():
    app = build("GET", "/docs", lambda: "mine")
    assert ask(app, "GET", "/docs").json() == "mine"
    assert ask(app, "GET", "/openapi.json").status_code == 200
