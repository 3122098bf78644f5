"""Handlers of every shape, with what a client may send them that fits."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from fastapi import Body, HTTPException, Query
from hypothesis import strategies as st
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, constr, field_validator
from typing_extensions import TypedDict

# Types.


class Text(str, enum.Enum):  # noqa: UP042  the older form, which users write
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Plain(enum.Enum):
    RED = "red"
    ONE = 1
    HALF = 0.5
    NONE = None


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Movie(TypedDict, total=False):
    title: str
    year: int


@dataclass
class Box:
    width: int
    label: str = "none"
    tags: list[str] = field(default_factory=list)


@pydantic.dataclasses.dataclass
class Checked:
    size: Annotated[int, Field(ge=0)] = 1


class Item(BaseModel):
    name: str
    price: float = 1.0


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    number: int
    word: str | None = None


class Order(BaseModel):
    items: list[Item] = []
    first: Item | None = None
    by_name: dict[str, Item] = {}
    when: datetime | None = None


class Renamed(BaseModel):
    item_name: str = Field(alias="itemName")
    other: int = Field(1, validation_alias=AliasChoices("o", "other"), serialization_alias="out")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    age: float


class Tree(BaseModel):
    value: int | str
    children: list[Tree] = []


judgements: list[str] = []
"""What the validator has been asked about."""


class Validated(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def check(cls, text: str) -> str:
        judgements.append(text)
        if text == "value":
            raise ValueError("it is no good")
        if text == "http":
            raise HTTPException(418, {"tea": text}, {"x-tea": "yes"})
        if text == "runtime":
            raise RuntimeError("a secret")
        if text == "exit":
            raise SystemExit(3)
        return text.strip()


def picky(text: str) -> str:
    return Validated(text=text).text


Picky = Annotated[str, AfterValidator(picky)]
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

# What fits them, as JSON.

words = st.text(max_size=6)
ints = st.integers(-(2**70), 2**70) | st.integers(-3, 3)
floats = st.floats(allow_nan=False, allow_infinity=False) | ints
booleans = st.booleans()
uuids = st.uuids().map(str)
dates = st.dates().map(str)
datetimes = st.datetimes().map(lambda when: when.isoformat()) | st.integers(0, 2**31)
times = st.times().map(str)
spans = st.integers(0, 10**6) | st.sampled_from(["P1DT2H", "1 day, 00:00:01", "00:30"])
decimals = st.decimals(allow_nan=False, allow_infinity=False).map(str) | floats
texts = st.sampled_from(["red", "blue"])
numbers = st.sampled_from([1, 2])
plains = st.sampled_from(["red", 1, 0.5, None])
anything = st.recursive(
    st.none() | booleans | ints | floats | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def some(required: dict[str, Any], optional: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(required, optional=optional or {})


points = st.tuples(ints, floats).map(list) | some({"x": ints}, {"y": floats})
movies = some({}, {"title": words, "year": ints})
boxes = some({"width": ints}, {"label": words, "tags": st.lists(words, max_size=2)})
items = some({"name": words}, {"price": floats})
orders = some(
    {},
    {
        "items": st.lists(items, max_size=2),
        "first": st.none() | items,
        "by_name": st.dictionaries(words, items, max_size=2),
        "when": datetimes,
    },
)
cats = some({"kind": st.just("cat")}, {"lives": ints})
dogs = some({"kind": st.just("dog"), "age": floats})
pets = cats | dogs
renamed = some({"itemName": words}, {"o": ints, "other": ints, "item_name": words})
trees = st.recursive(
    some({"value": ints | words}),
    lambda inner: some({"value": ints | words}, {"children": st.lists(inner, max_size=2)}),
    max_leaves=3,
)
stricts = some({"number": ints}, {"word": words})
judged = st.sampled_from(["ok", " ok ", "value", "http", "runtime"])


@dataclass(frozen=True)
class Shape:
    """A handler on its route. `body` and `query` are what fits, `path` what may stand for its parameters."""

    handler: Callable[..., Any]
    method: str
    suffix: str
    body: st.SearchStrategy[Any] | None
    query: dict[str, st.SearchStrategy[Any]]
    path: dict[str, st.SearchStrategy[str]]
    why_not: str | None
    """The reason's words, where it is not compiled."""

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def route(self) -> str:
        return f"/{self.name}{self.suffix}"


SHAPES: list[Shape] = []


def shape(
    method: str = "POST",
    suffix: str = "",
    body: Any = None,
    query: dict[str, Any] | None = None,
    path: dict[str, Any] | None = None,
    why_not: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(handler: Callable[..., Any]) -> Callable[..., Any]:
        fits = some(body) if isinstance(body, dict) else body
        SHAPES.append(Shape(handler, method, suffix, fits, query or {}, path or {}, why_not))
        return handler

    return keep


# Parameters from one object.


@shape(body={"i": ints, "f": floats, "s": words, "b": booleans})
def scalars(i: int, f: float, s: str, b: bool):
    return [i, f, s, b]


@shape(
    body={
        "a": st.lists(ints, max_size=3),
        "b": st.dictionaries(words, floats, max_size=3),
        "c": st.lists(words, max_size=3),
        "d": st.tuples(ints, words).map(list),
        "e": st.lists(st.lists(booleans, max_size=2), max_size=2),
        "f": st.dictionaries(st.integers(0, 9).map(str), ints, max_size=2),
    }
)
def containers(
    a: list[int],
    b: dict[str, float],
    c: set[str],
    d: tuple[int, str],
    e: list[list[bool]],
    f: dict[int, int],
):
    return [a, b, sorted(c), d, e, f]


@shape(body=some({}, {"a": ints, "b": st.none() | words, "c": st.lists(ints, max_size=2), "d": anything}))
def optional(a: int = 1, b: str | None = None, c: list[int] = [], d: Any = {"x": 1}):  # noqa: B006
    c.append(7)
    return [a, b, c, d]


@shape(body={"a": anything, "b": anything})
def untyped(a, b: Any):
    return {"a": a, "b": b}


@shape("PUT", body={"data": st.dictionaries(words, anything, max_size=3)})
def wrapped(data: dict):
    return data


@shape("PATCH", body={"box": boxes, "movie": movies, "point": points, "checked": some({}, {"size": ints})})
def records(box: Box, movie: Movie, point: Point, checked: Checked):
    return [box, movie, point, checked]


@shape("DELETE", body={"a": texts, "b": numbers, "c": plains, "d": st.sampled_from(["x", 1, True])})
def enums(a: Text, b: Number, c: Plain, d: Literal["x", 1, True]):
    return [a, b, c, d]


@shape(body={"a": datetimes, "b": dates, "c": times, "d": spans, "e": uuids, "f": decimals})
def moments(a: datetime, b: date, c: time, d: timedelta, e: uuid.UUID, f: Decimal):
    return [a, b, c, d, e, f]


@shape(body={"a": words, "b": words, "c": st.lists(words, max_size=2)})
def bytes_or_text(a: bytes | str, b: str | bytes, c: list[bytes | str]):
    return [a, b, c]


@shape(body={"a": ints | words, "b": floats | booleans, "c": datetimes | words, "d": booleans | ints})
def unions(a: int | str, b: float | int | bool, c: datetime | str, d: bool | int | None):
    return [a, b, c, d]


@shape(body={"a": ints | words, "b": texts | words, "c": uuids | ints, "d": dates | datetimes | times})
def more_unions(a: str | int, b: Text | str, c: uuid.UUID | int, d: date | datetime | time):
    return [a, b, c, d]


@shape(body={"a": cats | items, "b": pets, "c": st.lists(pets, max_size=2), "d": items | boxes | words})
def unions_of_models(a: Cat | Item, b: Pet, c: list[Pet], d: Item | Box | str):
    return [a, b, c, d]


@shape(body={"n": ints, "s": words, "v": ints, "second": ints, "p": words})
def aliased(
    a: Annotated[int, Field(alias="n")],
    b: str = Body(alias="s"),
    c: int = Field(validation_alias="v"),
    d: int = Field(1, validation_alias=AliasChoices("first", "second")),
    e: str = Field("e", alias="q", validation_alias="p"),
):
    return [a, b, c, d, e]


@shape(body={"a": ints, "b": words, "c": st.lists(ints, max_size=3), "d": words})
def constrained(
    a: Annotated[int, Field(gt=0, multiple_of=2)],
    b: str = Field("w", max_length=3),
    c: Annotated[list[int], Field(min_length=1)] = [1],  # noqa: B006
    d: constr(pattern="^[a-z]*$", strip_whitespace=True) = "d",  # type: ignore[valid-type]
):
    return [a, b, c, d]


@shape(body=some({}, {"a": ints, "b": words, "c": st.lists(ints)}))
def odd_defaults(
    a: int = "one",  # type: ignore[assignment]
    b: Annotated[int, Field(validate_default=True)] = "two",  # type: ignore[assignment]
    c: list[int] = Field(default_factory=lambda: [3]),  # noqa: B008
):
    return [a, b, c]


@shape(body={"a": judged, "b": some({"text": judged})})
def validators(a: Picky, b: dict[str, Picky]):
    return [a, b]


@shape(body={"a": ints, "b": ints, "c": ints})
def kinds(a: int, /, b: int, *, c: int = 3):
    return [a, b, c]


@shape(body={"a": ints, "more": ints, "rest": ints})
def variadic(a: int, *more: int, **rest: int):
    return [a, list(more), rest]


@shape(body=dict.fromkeys(("model_config", "json", "_x", "schema", "values", "flash_body", "p0"), ints))
def awkward(model_config: int, json: int, _x: int, schema: int, values: int, flash_body: int, p0: int):
    return [model_config, json, _x, schema, values, flash_body, p0]


@shape(
    body={"tree": st.none() | trees, "orders": st.lists(orders, max_size=2), "strict": st.none() | stricts}
)
def nested(tree: Tree | None, orders: list[Order], strict: Strict | None):
    return [tree, orders, strict]


@shape()
def nothing():
    return "nothing"


# A model that is the body.


@shape(body=items)
def model(item: Item):
    return item


@shape("PUT", body=orders)
def nested_model(order: Order):
    return order


@shape(body=renamed)
def renamed_model(item: Renamed):
    return item


@shape(body=some({"text": judged}))
def validated_model(item: Validated):
    return item


@shape(body=stricts)
def strict_model(item: Strict):
    return [item.number, item.word]


@shape(body=items, query={"limit": ints, "word": words})
def model_beside_query(item: Item, limit: int = 3, word: str | None = None):
    return [item, limit, word]


@shape("PATCH", "/{number}", body=items, query={"flag": booleans}, path={"number": ints.map(str)})
def model_beside_path(number: int, item: Item, flag: bool = False):
    return [number, item, flag]


@shape(body=items, query={"judged": judged})
def model_beside_validator(item: Item, judged: Picky):
    return [item, judged]


@shape(body=some({"a": items, "b": items}), why_not="its body is embedded, or a form")
def two_models(a: Item, b: Item):
    return [a, b]


# Paths.


@shape(
    "GET",
    "/{a}/{b}/{c:int}/{d:path}",
    path={"a": ints.map(str), "b": uuids, "c": st.integers(0, 99).map(str), "d": st.just("x/y")},
)
def path(a: int, b: uuid.UUID, c: int, d: str):
    return [a, b, c, d]


@shape("POST", "/{a}/{b}", body={"x": ints}, path={"a": words, "b": texts})
def path_and_body(a: str, b: Text, x: int):
    return [a, b, x]


@shape("GET", "/{a:float}/{b:uuid}/{c}", path={"a": st.just("1.5"), "b": uuids, "c": numbers.map(str)})
def converted(a: str, b: str, c: Literal["1"] | Number):
    return [a, b, c]


@shape("GET", "/{a}/{b}", path={"a": words, "b": words})
def keywords(**values: Any):
    return values


@shape("GET", "/{judged}", query={"other": judged}, path={"judged": judged})
def path_validator(judged: Picky, other: Picky = "ok"):
    return [judged, other]


# Queries.


@shape("GET", query={"i": ints, "f": floats, "s": words, "b": booleans})
def query(i: int, f: float, s: str, b: bool):
    return [i, f, s, b]


@shape("GET", query={"a": ints, "b": words, "c": booleans, "d": floats, "e": words})
def query_defaults(
    a: int = 1,
    b: str | None = None,
    c: bool | None = True,
    d: float = "half",  # type: ignore[assignment]
    e: Any = None,
):
    return [a, b, c, d, e]


@shape(
    "GET",
    query={
        "a": datetimes,
        "b": dates,
        "c": times,
        "d": spans,
        "e": uuids,
        "f": decimals,
        "g": texts,
        "h": numbers,
        "j": plains,
        "k": st.sampled_from(["x", "y"]),
    },
)
def query_types(
    a: datetime,
    b: date,
    c: time,
    d: timedelta,
    e: uuid.UUID,
    f: Decimal,
    g: Text,
    h: Number | None = None,
    j: Plain = Plain.RED,
    k: Literal["x", "y"] = "x",
):
    return [a, b, c, d, e, f, g, h, j, k]


@shape("GET", query={"a": ints | words, "b": ints | booleans, "c": datetimes})
def query_unions(a: int | str, b: bool | int | None = None, c: datetime | date | str = ""):
    return [a, b, c]


@shape("GET", query={"a": ints, "b": words, "c": ints, "word": judged})
def query_constrained(
    a: Annotated[int, Field(gt=0)],
    b: Annotated[str, Field(max_length=3)] = "b",
    c: int = 5,
    word: Picky = "ok",
):
    return [a, b, c, word]


@shape("GET", query={"n": ints, "v": ints})
def query_aliased(a: Annotated[int, Field(alias="n")], b: Annotated[int, Field(validation_alias="v")] = 2):
    return [a, b]


@shape("GET", query={"model_config": ints, "json": ints, "_x": ints, "schema": ints, "request": ints})
def query_awkward(model_config: int, json: int, _x: int = 3, schema: int = 4, request: int = 5):
    return [model_config, json, _x, schema, request]


@shape("GET", query={"a": ints}, body=items)
def get_with_a_model(item: Item, a: int = 1):
    return [item, a]


@shape("GET", query={"one": ints, "two": ints}, why_not="`a` has several aliases")
def query_choices(a: Annotated[int, Field(validation_alias=AliasChoices("one", "two"))] = 1):
    return a


@shape("GET", query={"a": ints}, why_not="`a` is provided by FastAPI")
def query_list(a: list[int] = Query([])):  # noqa: B008
    return a


@shape("GET", query={"a": words}, why_not="`a` is of a type that FastAPI reads in its own way")
def query_secret(a: pydantic.SecretStr):
    return a.get_secret_value()
