"""The manifest: read as the vendor writes it; every problem named by its place."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.artifact import manifest
from flash_runtime.artifact.manifest import Manifest
from flash_runtime.artifact.selection import Route, functions_for, jobs_for, routes_for
from flash_runtime.errors import ManifestFault
from tests import vendor

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "manifest_schema.json").read_text())
RESERVED = ("/ping", "/execute", "/healthz")


def function(
    method: str | None, path: str | None, name: str = "handler", module: str = "api"
) -> dict[str, Any]:
    return {"name": name, "module": module, "http_method": method, "http_path": path}


def resource(*functions: dict[str, Any], served: bool = True) -> dict[str, Any]:
    return {"is_load_balanced": served, "functions": list(functions)}


def document(**resources: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1.0", "project_name": "shop", "resources": resources}


@pytest.fixture
def load(tmp_path):
    def read(content: object) -> Manifest:
        path = tmp_path / "flash_manifest.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return manifest.load(path, RESERVED)

    return read


def problems(load, content: object) -> list[str]:
    with pytest.raises(ManifestFault) as caught:
        load(content)
    return list(caught.value.problems)


@pytest.mark.vendor
@pytest.mark.parametrize("name", ["shop", "duo"])
def test_the_vendors_manifest_is_read_and_fits_the_published_schema(name):
    path = vendor.build(name).parent / "flash_manifest.json"
    content = json.loads(path.read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    read = manifest.load(path, RESERVED)
    for each, routes in content["routes"].items():
        assert {str(route): route.function for route in routes_for(read, each)} == routes


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/*/flash_manifest.json")), ids=lambda p: p.parent.name
)
@pytest.mark.vendor
def test_an_examples_manifest_is_what_the_vendor_builds(path):
    content = json.loads(path.read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    built = json.loads((vendor.build(path.parent).parent / "flash_manifest.json").read_text())
    for volatile in ("generated_at", "python_version", "source_fingerprint"):
        del built[volatile]
    for each in built["resources"].values():
        del each["target_python_version"]
    assert content == built


def test_the_schema_is_valid_and_speaks_to_people():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for part in (SCHEMA, *SCHEMA["$defs"].values()):
        assert part["title"]
        assert part["description"]
        for name, field in part["properties"].items():
            assert field.get("description"), name
            assert field.get("title"), name


def test_unknown_keys_are_kept(load):
    content = document(a=resource(function("GET", "/"))) | {"surprise": [1]}
    assert load(content).model_extra == {"surprise": [1]}


def test_all_wrong_values_are_named_by_their_json_path(load):
    content = document(**{"my api": {"is_load_balanced": "yes", "functions": [{"name": 3}]}})
    content["version"] = 1
    found = problems(load, content)
    assert [line.split(": ")[0] for line in found] == [
        "$.version",
        '$.resources["my api"].is_load_balanced',
        '$.resources["my api"].functions[0].name',
        '$.resources["my api"].functions[0].module',
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"not json", b"[]", b"3", b"\xff\xfe", b'{"resources": NaN}'])
def test_what_is_no_manifest_is_named(load, content):
    assert problems(load, content)[0].startswith("$")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ManifestFault, match=r"nothing\.json"):
        manifest.load(tmp_path / "nothing.json", RESERVED)


@pytest.mark.parametrize(
    ("given", "place", "text"),
    [
        (function("GET", "users"), "http_path", "does not start with `/`"),
        (function("FETCH", "/users"), "http_method", "is not one of GET"),
        (function("GET", "/ping"), "http_path", "reserved"),
        (function("POST", "/execute"), "http_path", "reserved"),
        (function("GET", "/healthz"), "http_path", "reserved"),
        (function("GET", "/a/{b"), "http_path", "brace"),
        (function("GET", "/a/{b-c}"), "http_path", "brace"),
        (function("GET", "/a/{class}"), "http_path", "cannot be a parameter"),
        (function("GET", "/a/{1}"), "http_path", "cannot be a parameter"),
        (function("GET", "/a b"), "http_path", "character"),
        (function("GET", "/a\r\nb"), "http_path", "character"),
        (function("GET", "/a?b"), "http_path", "character"),
        (function("GET", "/users", module="api.py"), "module", "Its module is 'api'"),
        (function("GET", "/{a}/{a}"), "http_path", "twice"),
        (function("GET", None), "http_path", "missing"),
        (function(None, "/users"), "http_method", "missing"),
        (function("GET", "/users", module="a..b"), "module", "not a module name"),
    ],
)
def test_what_the_schema_cannot_say_is_checked(load, given, place, text):
    (problem,) = problems(load, document(api=resource(given)))
    assert problem.startswith(f"$.resources.api.functions[0].{place}: ")
    assert text in problem


def test_a_report_is_cut_where_it_would_fill_the_screen_many_times(load):
    found = problems(load, document(api=resource(*(function("GET", "x") for _ in range(1000)))))
    assert len(found) == 51
    assert "more" in found[-1]


def test_a_route_taken_twice_is_named_with_its_owner(load):
    content = document(api=resource(function("GET", "/a", "first"), function("get", "/a", "second")))
    assert problems(load, content) == ["$.resources.api.functions[1]: GET /a is already the route of `first`"]


def test_the_only_load_balanced_resource_needs_no_name(load):
    read = load(document(jobs=resource(served=False), api=resource(function("post", "/a/{b}"))))
    (route,) = routes_for(read, None)
    assert route == Route("api", "POST", "/a/{b}", "api", "handler")
    assert route.path_parameters == ("b",)


@pytest.mark.parametrize(
    ("name", "text"),
    [(None, "several"), ("c", "no resource `c`")],
)
def test_a_resource_that_is_not_clear_is_a_fault_that_lists_them(load, name, text):
    one = resource(function("GET", "/"))
    read = load(document(a=one, b=one, jobs=resource(served=False)))
    with pytest.raises(ManifestFault, match=text) as caught:
        routes_for(read, name)
    assert "`a`, `b`" in str(caught.value)


def test_a_queue_based_resource_is_served_by_its_name_and_has_no_routes(load):
    read = load(document(a=resource(function("GET", "/")), jobs=resource(function("GET", "/"), served=False)))
    assert routes_for(read, "jobs") == ()
    own, elsewhere = functions_for(read, "jobs")
    assert [(each.resource, each.module) for each in own] == [("jobs", "api")]
    assert elsewhere == {}
    with pytest.raises(ManifestFault, match="no functions"):
        routes_for(load(document(jobs=resource(served=False))), "jobs")


def test_every_queue_based_resource_of_one_function_takes_jobs_under_its_name(load):
    one = function(None, None)
    jobs, two = resource(one, served=False), resource(one, one, served=False)
    read = load(document(jobs=jobs, two=two, api=resource(function("GET", "/"))))
    assert [each.path for each in jobs_for(read, "*")] == ["/jobs/runsync"]
    assert [each.path for each in jobs_for(read, "jobs")] == ["/runsync"]
    assert jobs_for(read, "two") == jobs_for(read, "api") == jobs_for(read, None) == ()
    alone = load(document(jobs=jobs))
    assert routes_for(alone, "*") == ()


@pytest.mark.parametrize("resources", [{}, {"jobs": resource(served=False)}, {"api": resource()}])
def test_nothing_to_serve_is_a_fault(load, resources):
    with pytest.raises(ManifestFault, match=r"no load-balanced|no routes"):
        routes_for(load(document(**resources)), None)


def test_every_resource_is_mounted_under_its_name(load):
    read = load(document(a=resource(function("GET", "/x")), b=resource(function("GET", "/x"))))
    assert [str(route) for route in routes_for(read, "*")] == ["GET /a/x", "GET /b/x"]


def test_paths_without_parameters_come_first(load):
    read = load(document(a=resource(function("GET", "/u/{id}", "one"), function("GET", "/u/me", "me"))))
    assert [route.path for route in routes_for(read, None)] == ["/u/me", "/u/{id}"]


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = "3.9"


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ([], True),
        (["a.py"], True),
        (["pkg/_speed.abi3.so"], True),
        (["pkg/_speed.cpython-39-x86_64-linux-gnu.so"], False),
        (
            ["a.cpython-39-x86_64-linux-gnu.so", f"a.cpython-{HERE.replace('.', '')}-x86_64-linux-gnu.so"],
            True,
        ),
    ],
)
def test_another_python_is_a_fault_only_with_its_compiled_extensions(load, tmp_path, caplog, files, usable):
    app = tmp_path / "app"
    for name in files:
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).touch()
    read = load(document() | {"python_version": OTHER})
    if usable:
        manifest.check_python(read, app)
        assert OTHER in caplog.text
    else:
        with pytest.raises(ManifestFault, match="_speed"):
            manifest.check_python(read, app)


def test_the_same_python_is_silent(load, tmp_path, caplog):
    manifest.check_python(load(document() | {"python_version": HERE}), tmp_path)
    assert not caplog.text


GOOD = document(api=resource(function("GET", "/a"), function("POST", "/b/{c}")))


@given(st.data())
def test_any_broken_manifest_is_a_fault_and_never_another_error(data):
    content = copy.deepcopy(GOOD)
    spot: Any = content
    while isinstance(spot, dict | list) and spot:
        keys = sorted(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(spot[key], dict | list) or data.draw(st.booleans()):
            spot[key] = data.draw(
                st.none()
                | st.integers()
                | st.text()
                | st.lists(st.text())
                | st.dictionaries(st.text(), st.text())
            )
            break
        spot = spot[key]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.json")
        path.write_text(json.dumps(content))
        with contextlib.suppress(ManifestFault):
            assert routes_for(manifest.load(path, RESERVED), None)
