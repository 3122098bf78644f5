"""Routing: the I/O loop finds what the application itself routes to."""

import asyncio

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from flash_runtime.artifact.manifest import METHODS, Function, Manifest, Resource
from flash_runtime.artifact.selection import Route, routes_for
from flash_runtime.dispatch.admission import Kind
from flash_runtime.dispatch.target import RouteTarget
from flash_runtime.gateway.routing import RouteTable

NOTHING = "no handler"


def routes(*texts):
    """The routes of a manifest whose handlers are `m.f0`, `m.f1`, … for these texts."""
    functions = []
    for number, text in enumerate(texts):
        method, path = text.split(" ", 1)
        functions.append(Function(name=f"f{number}", module="m", http_method=method, http_path=path))
    resource = Resource(is_load_balanced=True, functions=tuple(functions))
    return routes_for(Manifest(resources={"api": resource}), None)


def target(route, kind=Kind.SYNC):
    return RouteTarget(name(route), route.method, route.path, kind, route.timeout)


def table(found, timeout=10.0):
    return RouteTable(map(target, found), timeout)


def name(route):
    return f"{route} ({route.module}.{route.function})"


class Served:
    """A FastAPI application with these routes, whose handlers only say that they were called."""

    def __init__(self, found):
        self.called = []
        self.app = FastAPI(openapi_url=None)
        for route in found:
            self.app.add_api_route(route.path, self.handler(name(route)), methods=[route.method])

    def handler(self, known):
        async def handle():
            self.called.append(known)

        return handle

    async def ask(self, method, path):
        """The name of the route that was called."""
        self.called.clear()
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"test")],
            "server": ("test", 80),
        }

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            pass

        await self.app(scope, receive, send)
        return self.called[0] if self.called else NOTHING


def asked(found, requests):
    async def ask_all():
        served = Served(found)
        return [await served.ask(method, path) for method, path in requests]

    return asyncio.run(ask_all())


WORDS = st.sampled_from(["a", "b", "me", "1", "x.json", "é"])
PARTS = st.sampled_from(
    ["{?}", "{?:int}", "{?:float}", "{?:uuid}", "{?:str}", "{?:path}", "v{?}", "{?:int}.json"]
)
SEGMENTS = st.lists(st.one_of(WORDS, PARTS), max_size=3)
METHOD = st.sampled_from(["GET", "POST"])
ASKED = st.one_of(
    WORDS,
    st.sampled_from(
        ["", "2", "007", "1.5", "v", "v1", "va", "1.json", "a b", "a\nb", "\n", "{p0}", ".", "..", "%61"]
    ),
    st.uuids().map(str),
)


@st.composite
def route_texts(draw):
    """A route, each parameter of it with a name of its own."""
    segments = [segment.replace("?", f"p{index}") for index, segment in enumerate(draw(SEGMENTS))]
    slash = draw(st.sampled_from(["", "", "/"])) if segments else ""
    return f"{draw(METHOD)} /{'/'.join(segments)}{slash}"


@st.composite
def requests(draw):
    """A method and a path. No path ends in a line feed: that has a test of its own."""
    path = "/" + "/".join(draw(st.lists(ASKED, max_size=4)))
    return draw(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"])), path.rstrip("\n")


@given(
    st.lists(route_texts(), min_size=1, max_size=6, unique=True),
    st.lists(requests(), min_size=1, max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_the_table_finds_what_fastapi_routes_to(texts, wanted):
    found = routes(*texts)
    known = table(found)
    assert [known.find(*each)[0].name for each in wanted] == asked(found, wanted)


@given(st.lists(route_texts(), min_size=1, max_size=6, unique=True), st.data())
@settings(max_examples=50, deadline=None)
def test_a_routes_own_path_finds_it_or_one_before_it(texts, data):
    found = routes(*texts)
    known = table(found)
    route = data.draw(st.sampled_from(found))
    path = route.path
    for index in range(3):
        for part, value in {"": "a", ":str": "a", ":int": "1", ":float": "1.5", ":path": "a/b"}.items():
            path = path.replace(f"{{p{index}{part}}}", value)
        path = path.replace(f"{{p{index}:uuid}}", "12345678-1234-1234-1234-123456789abc")
    names = [name(each) for each in found]
    assert known.find(route.method, path)[0].name in names[: names.index(name(route)) + 1]


def test_a_line_feed_after_a_path_hides_no_handler():
    found = routes("GET /a", "GET /b/{x}")
    wanted = [("GET", "/a\n"), ("GET", "/b/c\n")]
    known = table(found)
    assert [known.find(*each)[0].name for each in wanted] == asked(found, wanted)


def test_a_number_of_more_digits_than_python_reads_is_for_no_handler():
    target, values = table(routes("GET /n/{number:int}")).find("GET", "/n/" + "9" * 5000)
    assert (target.name, values) == (NOTHING, {})


def test_a_route_without_parameters_comes_before_one_with_them_wherever_it_was_written():
    found = routes("GET /users/{id}", "GET /users/me", "GET /{rest:path}", "GET /")
    assert [str(route) for route in found] == [
        "GET /users/me",
        "GET /",
        "GET /users/{id}",
        "GET /{rest:path}",
    ]
    known = table(found)
    paths = ["/users/me", "/users/you", "/users/me/x", "/"]
    assert [known.find("GET", path)[0].path for path in paths] == [
        "/users/me",
        "/users/{id}",
        "/{rest:path}",
        "/",
    ]


def test_of_routes_that_match_the_first_is_found():
    found = routes("GET /{x:int}", "GET /{y}", "GET /{z:path}")
    known = table(found)
    assert [known.find("GET", path)[0].path for path in ("/1", "/a", "/a/b")] == [
        "/{x:int}",
        "/{y}",
        "/{z:path}",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_method_decides_which_handler_of_a_path(method):
    known = table(routes(*(f"{each} /a" for each in METHODS), *(f"{each} /b/{{x}}" for each in METHODS)))
    assert known.find(method, "/a")[0].name == f"{method} /a (m.f{METHODS.index(method)})"
    assert known.find(method, "/b/c")[0].name.startswith(f"{method} /b/{{x}} ")


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/a"), ("HEAD", "/a"), ("GET", "/a/"), ("GET", "/A"), ("GET", "/n/x")]
)
def test_what_no_handler_takes_is_of_no_kind_and_has_the_common_timeout(method, path):
    target = table(routes("GET /a", "GET /n/{n:int}"), 7.0).find(method, path)[0]
    assert (target.name, target.path, target.kind, target.timeout) == (NOTHING, "", Kind.NONE, 7.0)


def test_a_target_has_the_routes_path_and_its_handlers_kind():
    made = [Route("api", "GET", "/a", "m", "f"), Route("api", "GET", "/b/{x}", "m", "g")]
    known = RouteTable(map(target, made, (Kind.SYNC, Kind.ASYNC)), 1.0)
    first, second = known.find("GET", "/a")[0], known.find("GET", "/b/7")[0]
    assert (first.name, first.path, first.kind) == ("GET /a (m.f)", "/a", Kind.SYNC)
    assert (second.name, second.path, second.kind) == ("GET /b/{x} (m.g)", "/b/{x}", Kind.ASYNC)
    assert known.kinds == {Kind.SYNC, Kind.ASYNC}
    assert RouteTable([], 1.0).kinds == set()


def test_a_target_has_its_routes_timeout():
    made = [Route("api", "GET", "/a", "m", "f", 1.0), Route("api", "GET", "/b/{x}", "m", "g", 2.0)]
    known = table(made, 10.0)
    wanted = [("GET", "/a"), ("GET", "/b/1"), ("GET", "/c")]
    assert [known.find(*each)[0].timeout for each in wanted] == [1.0, 2.0, 10.0]


def test_the_documents_come_before_any_pattern_and_have_no_handler():
    route = Route("api", "GET", "/{name}", "main", "any_name")
    table = RouteTable([target(route)], 330, ["/openapi.json"])
    assert table.find("GET", "/openapi.json")[0].kind is Kind.NONE
    assert table.find("GET", "/other")[0].kind is Kind.SYNC
