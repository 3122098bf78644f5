"""Compiled routes: nobody can tell them from FastAPI's way, but for the differences that are meant.

| Difference | Test |
|---|---|
| a key that begins with `_sa`, which FastAPI drops, stays where all else is JSON's own | `test_a_key_…` |
| a validator may run twice for what does not fit | `test_a_validator_may_run_twice_…` |
| an enum's value that is a UUID or an enum: encoded, where FastAPI fails | `test_an_enum_of_…` |
| a result nested nearly as deep as Python can go: encoded, where FastAPI fails | `test_a_deep_result_…` |
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compiled_shapes import SHAPES, Shape
from tests.compiled_ways import Answer, Request, Ways

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
)
KEYS = st.sampled_from(["", "a", "b", "x", "name", "items", "kind", "value", "self", "p0", "__proto__", "é"])
OTHERS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "1.0",
        "1e3",
        "007",
        "nan",
        "inf",
        "true",
        "on",
        "None",
        "null",
        "red",
        "ok",
        "value",
    ]
    + ["http", "runtime", "a b", "a+b", "a;b", "a=b", "é", "\ud800", "\x00", "%", "%zz", "9" * 30, "9" * 4400]
    + ["2026-01-31", "2026-01-31T12:00:00Z", "12:00", "P1D", "4d1b0f0c-7a4d-4a0e-9d43-0f0c7a4d4a0e", "x"]
)
CONTENT_TYPES = st.sampled_from(
    [JSON] * 12
    + [
        b"application/json; charset=utf-8",
        b"Application/JSON",
        b"application/json;",
        b"application/json ;a=b",
    ]
    + [
        b"application/vnd.api+json",
        b"application/json, text/plain",
        b"application/jsonp",
        b"application",
        b"",
    ]
    + [b"text/plain", b"text/json", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"]
    + [b"application/json/x", b"\xff/json", b";application/json", None]
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
    with known.running():
        yield known


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
    assert ways.why_not() == expected


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@FEW
@given(data=st.data())
def test_any_request_gets_fastapis_answer(ways, shape, data):
    for answer in same(ways, data.draw(requests(shape), "request")):
        assert len(answer.calls) <= 1
        if answer.status == 422:
            assert not answer.calls
