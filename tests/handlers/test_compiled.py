"""Compiled routes: nobody can tell them from FastAPI's way, but for the differences that are meant.

| Difference | Test |
|---|---|
| a key that begins with `_sa`, which FastAPI drops, stays where all else is JSON's own | `test_a_key_…` |
| a validator may run twice for what does not fit | `test_a_validator_may_run_twice_…` |
| an enum's value that is a UUID or an enum: encoded, where FastAPI fails | `test_an_enum_of_…` |
| a result nested nearly as deep as Python can go: encoded, where FastAPI fails | `test_a_deep_result_…` |
"""

from __future__ import annotations

import asyncio
import collections
import copy
import datetime
import enum
import gc
import inspect
import ipaddress
import itertools
import json
import os
import re
import types
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pydantic
import pytest
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from tests.handlers import compiled_shapes as shapes
from tests.handlers.compiled_shapes import SHAPES, Box, Item, Number, Order, Plain, Point, Shape, Text, Tree
from tests.handlers.compiled_ways import Answer, Request, Ways

EXAMPLES = int(os.environ.get("COMPILED_EXAMPLES", "30"))
"""Of each shape; with more, at random."""
FEW = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 30,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
JSON = b"application/json"
KINDS = ("sync", "async")
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")

# Requests that do not fit, or barely.

RAW = {
    '"<1e999>"': "1e999",
    '"<-0>"': "-0",
    '"<-0.0>"': "-0.0",
    '"<1.0>"': "1.0",
    '"<1E2>"': "1E+2",
    '"<20>"': "12345678901234567890",
    '"<5000>"': "9" * 5000,
    '"<half>"': '"\\ud800"',
    '"<pair>"': '"\\ud83d\\ude00"',
    '"<nul>"': '"\\u0000"',
    '"<deep>"': "[" * 150 + "]" * 150,
    '"<deeper>"': '{"a":' * 300 + "1" + "}" * 300,
    '"<long>"': "0." + "1" * 400,
    '"<decimal>"': "0.1000000000000000055511151231257827021181583404541015625",
}
"""What `json.dumps` does not write."""
ODD = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.0, 1.5, 1e300, float("nan"), float("inf"), -float("inf"), 2**53 + 1]
    + [10**19, -(2**63), "", " ", "1", "1.0", " 1", "true", "off", "null", "red", "RED", "x" * 300, "é", "\0"]
    + ["2026-01-31", "2026-01-31T12:00:00Z", "12:00", "P1D", "4d1b0f0c-7a4d-4a0e-9d43-0f0c7a4d4a0e", "cat"]
    + [[], {}, [1], ["a"], [[]], {"a": 1}, {"x": 1}, {"name": "n"}, {"kind": "cat"}, {"": None}]
    + [name.strip('"') for name in RAW]
).map(copy.deepcopy)
KEYS = st.sampled_from(["", "a", "b", "x", "name", "items", "kind", "value", "self", "p0", "__proto__", "é"])
WORDS = (
    "0 1 -1 1.0 1e3 007 nan inf true on None null red ok value http runtime a+b a;b a=b é % %zz P1D x "
    "2026-01-31 2026-01-31T12:00:00Z 12:00 4d1b0f0c-7a4d-4a0e-9d43-0f0c7a4d4a0e"
)
OTHERS = st.sampled_from([*WORDS.split(), "", "a b", "\ud800", "\x00", "9" * 30, "9" * 4400])
CONTENT_TYPES = st.sampled_from([JSON]) | st.sampled_from(
    [
        *(JSON, b"application/json; charset=utf-8", b"Application/JSON", b"application/json;"),
        *(b"application/json ;a=b", b"application/vnd.api+json", b"application/json, text/plain"),
        *(b"application/jsonp", b"application", b"", b"text/plain", b"text/json", b"application/json/x"),
        *(b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"\xff/json"),
        *(b";application/json", None),
    ]
)


@st.composite
def changed(draw: st.DrawFn, fits: st.SearchStrategy[Any]) -> Any:
    """What fits, or one or two changes away from it."""
    document = json.loads(json.dumps(draw(fits)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        places = [()] if draw(st.integers(0, 9)) == 0 else spots(document)
        if not places or not (place := draw(st.sampled_from(places))):
            return draw(ODD)
        parent = document
        for key in place[:-1]:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "add", "rename"]))
        last = place[-1]
        if change == "replace":
            parent[last] = draw(ODD)
        elif change == "remove":
            del parent[last]
        elif isinstance(parent, list):
            parent.append(draw(ODD))
        else:
            parent[draw(KEYS)] = draw(ODD) if change == "add" else parent.pop(last)
    return document


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in the document but itself."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, inner in below for each in ((*path, key), *spots(inner, (*path, key)))]


@st.composite
def bodies(draw: st.DrawFn, fits: st.SearchStrategy[Any]) -> bytes:
    """A document as bytes, or something like it."""
    document = draw(changed(fits))
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    for written, meant in RAW.items():
        text = text.replace(written, meant)
    if text.startswith('{"') and draw(st.integers(0, 9)) == 0:  # a key twice: the last one counts
        key = draw(st.sampled_from(list(document)))
        text = f"{{{json.dumps(key)}:{json.dumps(draw(ODD))},{text[1:]}"
    encoded = text.encode("utf-8", "surrogatepass")
    form = draw(
        st.sampled_from(["as it is"] * 14 + ["code", "cut", "tail", "space", "noise", "none", "other"])
    )
    if form == "code":
        code = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-32-be"]))
        return text.encode(code, "surrogatepass")
    if form == "cut":
        return encoded[: draw(st.integers(0, len(encoded)))]
    if form == "tail":
        return encoded + draw(st.sampled_from([b"x", b",", b"}", b"\0", b"{}", b"\xff", b" 1"]))
    if form == "space":
        around = st.sampled_from([b" ", b"\n\t\r ", b"\x0b", b"\x0c", b"\xa0", b"\xe2\x80\xa8"])
        return draw(around) + encoded + draw(around)
    if form == "noise":
        at = draw(st.integers(0, len(encoded)))
        until = draw(st.integers(at, min(at + 3, len(encoded))))
        put = draw(
            st.binary(max_size=2) | st.sampled_from([b"\\ud800", b"\xed\xa0\x80", b"NaN", b"-NaN", b"//"])
        )
        return encoded[:at] + put + encoded[until:]
    if form == "none":
        return b""
    if form == "other":
        return draw(
            st.sampled_from([b"null", b"NaN", b"-Infinity", b"[]", b"{}", b"1", b'"a"', b"01", b"1.", b"+1"])
            | st.sampled_from([b"nan", b"Infinity", b"-NaN", b"{'a':1}", b"{a:1}", b"[1,]", b"True", b" "])
        )
    return encoded


@st.composite
def query_strings(draw: st.DrawFn, fits: dict[str, st.SearchStrategy[Any]]) -> bytes:
    """What fits, with parameters left out, changed, repeated and added, encoded in one way or another."""
    pairs = []
    for name, values in fits.items():
        for _ in range(draw(st.sampled_from([1, 1, 1, 1, 1, 0, 2]))):
            value = draw(values)
            text = json.dumps(value) if isinstance(value, bool | None) else str(value)
            pairs.append((name, draw(OTHERS) if draw(st.integers(0, 5)) == 0 else text))
    if draw(st.integers(0, 5)) == 0:
        pairs.append((draw(KEYS), draw(OTHERS)))
    text = ""
    for name, value in pairs:
        encode = draw(st.sampled_from([quote_plus, quote_plus, quote_plus, quote, _raw]))
        equals = draw(st.sampled_from(["="] * 12 + ["", "=="]))
        text += f"{encode(name)}{equals}{encode(value, errors='surrogatepass')}"
        text += draw(st.sampled_from(["&"] * 12 + [";", "&&"]))
    return (text if draw(st.booleans()) else text[:-1]).encode("latin-1", "replace")


def _raw(text: str, errors: str = "") -> str:
    return "".join(each for each in text if each not in "\r\n #\0")


@st.composite
def requests(draw: st.DrawFn, shape: Shape) -> Request:
    path = shape.route
    for name, values in shape.path.items():
        value = draw(OTHERS) if draw(st.integers(0, 5)) == 0 else draw(values)
        for convertor in ("", ":int", ":float", ":uuid", ":path"):
            path = path.replace(f"{{{name}{convertor}}}", quote(value, errors="surrogatepass"))
    content_type = draw(CONTENT_TYPES)
    return Request(
        shape.method,
        path.encode(),
        draw(query_strings(shape.query)),
        draw(bodies(shape.body)) if shape.body is not None else b"",
        [] if content_type is None else [(b"content-type", content_type)],
    )


# Sending it both ways.


@pytest.fixture(scope="module")
def ways():
    known = Ways()
    for shape in SHAPES:
        known.add(shape.method, shape.route, shape.handler)
    known.add("POST", "/result", made)
    known.add("POST", "/named_self", lambda self: self)
    known.add("POST", "/named_function", lambda function: function)
    for number, annotation in enumerate(RETURNS):
        known.add("GET", f"/returns/{number}", returning(annotation))
        known.add("POST", f"/enforced/{number}", returning(annotation, item=Item))
    with known.running():
        yield known
    gc.collect()  # what was never awaited


def same(ways: Ways, request: Request) -> list[Answer]:
    """The answers of the plain function and the coroutine function; each is the same both ways."""
    path, answers = request.raw_path, []
    for kind in KINDS:
        request.raw_path = f"/{kind}".encode() + path
        compiled, fastapis = [ways.ask(request, compiled=each) for each in (True, False)]
        assert compiled == fastapis
        answers.append(compiled)
    request.raw_path = path
    return answers


def test_every_shape_is_compiled_or_goes_fastapis_way_for_a_known_reason(ways):
    expected = {f"/{kind}{shape.route}": shape.why_not for shape in SHAPES for kind in KINDS}
    assert {path: why for path, why in ways.why_not().items() if path in expected} == expected
    others = {path: why for path, why in ways.why_not().items() if path not in expected}
    assert len(others) == 2 * (3 + 2 * len(RETURNS))
    assert set(others.values()) == {None}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@FEW
@given(data=st.data())
def test_any_request_gets_fastapis_answer(ways, shape, data):
    for answer in same(ways, data.draw(requests(shape), "request")):
        assert len(answer.calls) <= 1
        if answer.status == 422:
            assert not answer.calls


# Results.

result: Callable[[], Any] = lambda: None  # noqa: E731
"""Makes what the handlers under `/result`, `/returns` and `/enforced` return; it may also raise."""


def made() -> Any:
    return result()


def returning(annotation: Any, **parameters: Any) -> Callable[..., Any]:
    def handler(**values: Any) -> Any:
        return result()

    names = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=each)
        for name, each in parameters.items()
    ]
    handler.__signature__ = inspect.Signature(names, return_annotation=annotation)  # type: ignore[attr-defined]
    return handler


class Bag:
    """An object of a class of the user's own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Loose(pydantic.BaseModel):
    inner: Any
    renamed: Any = pydantic.Field(None, serialization_alias="as")


class Word(str):
    __slots__ = ()


class Many(dict[Any, Any]):
    pass


CET = datetime.timezone(datetime.timedelta(hours=1))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(), max_size=4),
    st.sampled_from([*Text, *Number, *Plain]),
    st.datetimes(timezones=st.sampled_from([None, datetime.UTC, CET])),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.binary(max_size=3),
    st.sampled_from(
        [
            *(Path("/a/b"), ipaddress.ip_address("::1"), re.compile("a"), pydantic.SecretStr("s"), Word("w")),
            *(
                bytearray(b"a"),
                memoryview(b"a"),
                range(2),
                1j,
                object(),
                int,
                len,
                ...,
                types.SimpleNamespace(a=1),
            ),
            *(-0.0, 1e16, 5e-324, 2**63, 2**64, -(2**63) - 1, "\ud83d\ude00", "\u2028", "x" * 3000),
        ]
    ),
)
NAMES = st.text(max_size=4).filter(lambda name: not name.startswith("_sa"))
HASHABLE = st.one_of(
    NAMES, st.integers(), st.booleans(), st.none(), st.floats(), st.sampled_from([*Text, *Number, *Plain])
) | st.one_of(
    st.uuids(),
    st.dates(),
    st.tuples(st.integers()),
    st.decimals(allow_nan=False),
    st.binary(max_size=2),
    st.just(Word("w")),
)
RESULTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=2).map(collections.deque),
        st.dictionaries(NAMES, inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3).map(Many),
        st.dictionaries(NAMES, inner, max_size=3).map(types.MappingProxyType),
        st.dictionaries(HASHABLE, inner, max_size=2),
        st.sets(HASHABLE, max_size=2),
        st.frozensets(HASHABLE, max_size=2),
        st.builds(Point, inner, inner),
        st.builds(Box, inner, tags=inner),
        st.builds(Bag, inner),
        st.builds(lambda one, two: Loose(inner=one, renamed=two), inner, inner),
    ),
    max_leaves=6,
)
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
RETURNS: list[Any] = [
    *(Item, Order, shapes.Renamed, Tree, shapes.Validated, Loose, shapes.Pet, Item | None, Item | Box, Point),
    *(
        list[Item],
        dict[str, int],
        dict[str, Item],
        dict[int, Any],
        tuple[int, str],
        set[int],
        shapes.Movie,
        Box,
    ),
    *(int, float, str, bool, int | str, str | None, bytes, Decimal, datetime.datetime, datetime.timedelta),
    *(uuid.UUID, Text, Plain, Any, None, dict, list, Any | None, shapes.Checked),
]


@st.composite
def results_for(draw: st.DrawFn) -> Any:
    """What one of the annotations takes, as objects or as JSON, or anything else."""
    documents = st.one_of(
        *(
            shapes.items,
            shapes.orders,
            shapes.renamed,
            shapes.trees,
            shapes.pets,
            shapes.boxes,
            shapes.points,
        ),
        *(
            shapes.movies,
            st.lists(shapes.items, max_size=2),
            st.dictionaries(NAMES, shapes.items, max_size=2),
        ),
    )
    objects = st.one_of(
        st.builds(Item, name=NAMES, price=st.floats()),
        st.builds(Box, st.integers(), NAMES),
        st.builds(Point, st.integers(), st.floats()),
        st.builds(lambda name: shapes.Renamed(itemName=name, o=2), NAMES),
        st.builds(lambda name: shapes.Validated.model_construct(text=name), shapes.judged),
        st.builds(lambda name: types.SimpleNamespace(name=name, price=2), NAMES | st.integers()),
        st.builds(lambda items: Order(items=items), st.lists(st.builds(Item, name=NAMES), max_size=2)),
    )
    return draw(documents | objects | RESULTS)


def returned(ways: Ways, path: str, make: Callable[[], Any]) -> list[Answer]:
    """The answers where the handlers on `path` return what is made, anew for each."""
    global result
    result = make
    method = "GET" if path.startswith("/returns") else "POST"
    headers = [(b"content-type", JSON)] if path.startswith("/enforced") else []
    answers = same(ways, Request(method, path.encode(), b"", b'{"name":"n"}', headers))
    assert [len(answer.calls) for answer in answers] >= [1, 1]
    return answers


@settings(FEW, max_examples=EXAMPLES * 10)
@given(value=RESULTS)
def test_any_result_is_encoded_as_fastapi_encodes_it(ways, value):
    returned(ways, "/result", lambda: value)


@settings(FEW, max_examples=EXAMPLES * 3)
@given(value=PLAIN_JSON)
def test_what_is_json_is_encoded_as_fastapi_encodes_it(ways, value):
    for answer in returned(ways, "/result", lambda: value):
        assert answer.status == 200


@settings(FEW, max_examples=EXAMPLES * 20)
@given(
    number=st.integers(0, len(RETURNS) - 1),
    path=st.sampled_from(["returns", "enforced"]),
    value=results_for(),
)
def test_a_return_annotation_does_what_it_does_at_fastapi(ways, number, path, value):
    returned(ways, f"/{path}/{number}", lambda: value)


def test_a_body_that_is_gathered_has_its_result_as_it_is(ways):
    # As FastAPI's way has it, too: `returned` has compared them.
    for answer in returned(ways, "/result", lambda: {"name": 1, "extra": 2}):
        assert answer.json == {"name": 1, "extra": 2}


def cookies() -> Response:
    response = PlainTextResponse("c", 202, {"x-a": "1", "X-B": "2"})
    response.set_cookie("a", "1", max_age=5)
    response.set_cookie("b", "é".encode().hex(), httponly=True)
    response.delete_cookie("c")
    return response


async def chunks():
    for each in ("a", b"b", memoryview(b"c")):
        yield each
        await asyncio.sleep(0)


async def late():
    yield "a"
    raise ValueError("late")


def late_plain():
    yield "a"
    raise SystemExit("late")


def early():
    raise HTTPException(418, "early")
    yield


async def coroutine(value: Any) -> Any:
    await asyncio.sleep(0)
    return value() if callable(value) else value


class Awaited:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self):
        return coroutine(self.value).__await__()


def fail(error: BaseException) -> Any:
    raise error


class Odd(JSONResponse):
    media_type = "application/odd"

    async def __call__(self, scope, receive, send):
        self.headers["x-path"] = scope["path"]
        try:
            message = await asyncio.wait_for(receive(), 0.05)
            self.headers["x-received"] = message["type"]
        except TimeoutError:
            self.headers["x-received"] = "nothing"  # FastAPI has read the body
        await super().__call__(scope, receive, send)


def circle() -> Any:
    inside: list[Any] = []
    inside.append(inside)
    return inside


ANSWERS: dict[str, Callable[[], Any]] = {
    "response": lambda: Response(b"x", 201, {"x-a": "1"}, "image/png"),
    "empty": Response,
    "no content": lambda: Response(status_code=204),
    "not modified": lambda: Response(status_code=304, headers={"etag": "x"}),
    "html": lambda: HTMLResponse("<p>é"),
    "json": lambda: JSONResponse({"a": [1, 1.0, True]}, 500, {"location": "/x"}),
    "redirect": lambda: RedirectResponse("/é?a=b c"),
    "stream": lambda: StreamingResponse(chunks(), 206, media_type="text/plain"),
    "stream of a plain generator": lambda: StreamingResponse(iter(["a", b"b"])),
    "stream that fails": lambda: StreamingResponse(late()),
    "file": lambda: FileResponse(__file__, filename="x é.py", headers={"x-a": "1"}),
    "no file": lambda: FileResponse("/nowhere"),
    "cookies": cookies,
    "odd": lambda: Odd({"a": 1}),
    "a class": lambda: Response,
    "generator": lambda: (each for each in ("a", "b")),
    "generator of bytes": lambda: (each for each in (b"a", b"\xff")),
    "generator of objects": lambda: (each for each in ({"a": float("nan")}, Item(name="b"), 1)),
    "generator of nothing": lambda: (each for each in ()),
    "generator that fails": late_plain,
    "generator that fails at once": early,
    "async generator": chunks,
    "async generator that fails": late,
    "iterator": lambda: iter([1, 2]),
    "generator within": lambda: {"a": (each for each in (1, 2))},
    "map": lambda: map(str, [1, 2]),
    "none": lambda: None,
    "circle": circle,
    "5,000 digits": lambda: [10**5000],
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize(
    "path", ["/result", f"/returns/{RETURNS.index(Item)}", f"/enforced/{RETURNS.index(Any)}"]
)
def test_a_response_or_a_generator_is_sent_as_fastapi_sends_it(ways, name, path):
    returned(ways, path, ANSWERS[name])


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("made_by", [coroutine, Awaited])
def test_an_awaitable_of_a_plain_function_is_awaited_as_fastapis_way_does(ways, name, made_by):
    returned(ways, "/result", lambda: made_by(ANSWERS[name]))


def test_what_is_awaited_is_no_awaitable_again_and_may_raise(ways):
    plain, of_coroutine = returned(ways, "/result", lambda: coroutine(1))
    assert (plain.status, plain.json, of_coroutine.status) == (200, 1, 500)
    assert [each.status for each in returned(ways, "/result", lambda: coroutine(lambda: coroutine(1)))] == [
        500
    ] * 2
    plain, _ = returned(ways, "/result", lambda: coroutine(lambda: fail(HTTPException(418))))
    assert plain.status == 418


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    "error",
    [None, ValueError("late"), SystemExit("late")],
)
def test_a_background_task_runs_after_the_response_and_once(ways, error, many):
    def make() -> Response:
        task: Any = BackgroundTask(note)
        return PlainTextResponse("x", background=BackgroundTasks([task, task]) if many else task)

    async def note() -> None:
        ways.note("in the background")
        if error is not None:
            raise error

    for answer in returned(ways, "/result", make):
        assert answer.status == 200
        assert answer.calls.count("in the background") == (2 if many and error is None else 1)


def test_an_http_exception_after_the_response_is_logged_both_ways(ways):
    """Only in other words: FastAPI raises a RuntimeError from it."""

    async def late() -> None:
        raise HTTPException(418)

    global result
    result = lambda: PlainTextResponse("x", background=BackgroundTask(late))  # noqa: E731
    for kind in KINDS:
        for compiled in (True, False):
            answer = ways.ask(Request("POST", f"/{kind}/result".encode(), b"", b"", []), compiled=compiled)
            assert (answer.status, answer.body, len(answer.logged)) == (200, b"x", 1)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def caught(action: Callable[[], Any]) -> BaseException:
    try:
        action()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


def wrapped() -> BaseException:
    error = ValueError("outer")
    error.__cause__ = SystemExit(3)
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "http": lambda: HTTPException(404, "no such thing"),
    "http with headers": lambda: HTTPException(401, {"a": [1]}, {"www-authenticate": "Bearer", "X-A": "1"}),
    "http without content": lambda: HTTPException(204),
    "http not modified": lambda: HTTPException(304, headers={"etag": "x"}),
    "http of starlette": lambda: StarletteHTTPException(418, "tea"),
    "http with an odd detail": lambda: HTTPException(400, {1, 2}),
    "http with NaN": lambda: HTTPException(400, float("nan")),
    "http with an odd header": lambda: HTTPException(400, "x", {"x-a": "\u2028"}),
    "invalid request": lambda: RequestValidationError(
        [{"type": "t", "loc": ("body", 1), "msg": "m", "input": b"\xff", "ctx": {"error": 1}}], body={"a": 1}
    ),
    "invalid request that is none": lambda: RequestValidationError([object]),
    "invalid response": lambda: ResponseValidationError([]),
    "validation": lambda: caught(lambda: Item(name=1)),  # type: ignore[arg-type]
    "value": lambda: ValueError("a secret"),
    "key": KeyError,
    "unprintable": Unprintable,
    "exit": lambda: SystemExit("a secret"),
    "interrupt": KeyboardInterrupt,
    "stop": lambda: StopIteration(1),
    "stop async": StopAsyncIteration,
    "recursion": RecursionError,
    "memory": MemoryError,
    "timeout": TimeoutError,
    "group": lambda: ExceptionGroup("g", [HTTPException(418), ValueError()]),
    "base group": lambda: BaseExceptionGroup("g", [SystemExit(1)]),
    "wrapped": wrapped,
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_is_answered_and_logged_as_in_fastapis_way(ways, name):
    for answer in returned(ways, "/result", lambda: fail(ERRORS[name]())):
        assert answer.status == 500 or name.startswith(("http", "invalid request"))


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_what_ends_a_task_is_a_500_for_its_client_alone(ways, error):
    # The log says it in other words: in FastAPI's way it ends the task, and that is all that is known.
    global result
    result = lambda: fail(error())  # noqa: E731
    for kind, compiled in itertools.product(KINDS, (True, False)):
        answer = ways.ask(Request("POST", f"/{kind}/result".encode()), compiled=compiled)
        assert (answer.status, answer.json) == (
            500,
            {"detail": "Internal Server Error", "request_id": "the-id"},
        )


def test_a_validator_that_exits_is_a_500_both_ways(ways):
    request = Request("POST", b"/validated_model", body=b'{"text":"exit"}', headers=[(b"content-type", JSON)])
    for answer in same(ways, request):
        assert (answer.status, answer.calls) == (500, ())


@pytest.mark.parametrize("name", ["self", "function"])
def test_a_parameter_may_have_the_name_of_one_of_ours(ways, name):
    request = Request("POST", f"/named_{name}".encode(), body=b'{"%s": 1}' % name.encode())
    request.headers = [(b"content-type", JSON)]
    for answer in same(ways, request):
        assert (answer.status, answer.json) == (200, 1)


def test_a_path_with_more_digits_than_an_integer_may_have_is_answered(ways):
    for answer in same(ways, Request("GET", f"/path/1/{uuid.UUID(int=1)}/{'9' * 4301}/x".encode())):
        assert (answer.status, answer.calls) == (500, ())


# What is meant to differ.


def both(
    ways: Ways, path: str, make: Callable[[], Any] | None = None, **values: Any
) -> list[tuple[Answer, Answer]]:
    """The compiled answer and FastAPI's, of the plain function and of the coroutine function."""
    global result
    result = make or result
    requests = [Request("POST", f"/{kind}{path}".encode(), **values) for kind in KINDS]
    return [(ways.ask(each, compiled=True), ways.ask(each, compiled=False)) for each in requests]


def test_a_key_that_begins_with_sa_stays_where_all_else_is_jsons_own(ways):
    for compiled, fastapis in both(ways, "/result", lambda: {"_sa": 1, "b": [{"_sab": 2}]}):
        assert compiled.json == {"_sa": 1, "b": [{"_sab": 2}]}
        assert fastapis.json == {"b": [{}]}
    # And not where FastAPI's encoder is needed.
    for answer in returned(ways, "/result", lambda: {"_sa": 1, "b": {2}}):
        assert answer.json == {"b": [2]}
    # A return annotation has it kept both ways.
    at = RETURNS.index(dict[str, int])
    for answer in returned(ways, f"/returns/{at}", lambda: {"_sa": 2**70}):
        assert answer.json == {"_sa": 2**70}


class Ids(enum.Enum):
    FIRST = uuid.UUID(int=1)
    SECOND = Plain.RED


@pytest.mark.parametrize(("member", "expected"), [(Ids.FIRST, str(uuid.UUID(int=1))), (Ids.SECOND, "red")])
def test_an_enum_of_uuids_or_enums_is_encoded(ways, member, expected):
    for compiled, fastapis in both(ways, "/result", lambda: member):
        assert (compiled.status, compiled.json) == (200, expected)
        assert fastapis.status == 500


def test_a_deep_result_is_encoded_while_fastapis_way_has_less_room(ways):
    def deep(depth: int) -> Any:
        value: Any = []
        for _ in range(depth):
            value = [value]
        return value

    for depth in (10, 250, 253, 254, 255, 256, 300, 400):
        assert {each.status for each in returned(ways, "/result", lambda: deep(depth))} == {200}  # noqa: B023
    assert {each.status for each in returned(ways, "/result", lambda: deep(20_000))} == {500}
    found = set()
    for depth in range(800, 1000, 4):
        for compiled, fastapis in both(ways, "/result", lambda: deep(depth)):  # noqa: B023
            found.add((compiled.status, fastapis.status))
    assert (200, 500) in found
    assert (500, 200) not in found


def test_a_validator_may_run_twice_for_what_does_not_fit(ways):
    headers = [(b"content-type", JSON)]
    body = b'{"a": "value", "b": {"text": "ok"}}'
    for compiled, fastapis in both(ways, "/validators", body=body, headers=headers):
        assert compiled == fastapis
        assert (compiled.status, compiled.calls) == (422, ())
    for kind, compiled in itertools.product(KINDS, (True, False)):
        shapes.judgements.clear()
        ways.ask(
            Request("POST", f"/{kind}/validators".encode(), body=body, headers=headers), compiled=compiled
        )
        assert shapes.judgements == ["value", "ok"] * (2 if compiled else 1)
