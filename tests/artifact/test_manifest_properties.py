"""The manifest, whatever it is: accepted, and then as the published schema says, or a `ManifestFault`."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flash_runtime.artifact import manifest
from flash_runtime.artifact.manifest import Manifest
from flash_runtime.artifact.selection import routes_for
from flash_runtime.errors import ManifestFault

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "manifest_schema.json").read_text()))
RESERVED = ("/ping", "/execute", "/healthz")
VALID = [json.loads(path.read_text()) for path in sorted(ROOT.glob("examples/*/flash_manifest.json"))]
MANY = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

KEYS = [*Manifest.model_fields, *manifest.Resource.model_fields, *manifest.Function.model_fields]
WORDS = ["GET", "get", "POST", "HEAD", "/", "/a", "/{a}", "/{a:path}", "/ping", "{", "a.b", "a..b", "main.py"]
WORDS += ["1.0", "3.12", "٣.١٢", "3.12\n", "", "\0", "é", "x" * 201, "__proto__", "*"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**63, 2**70)
    | st.floats(allow_nan=True)
    | st.sampled_from(WORDS)
    | st.text(max_size=10)
)
keys = st.sampled_from(KEYS) | st.text(max_size=5)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=25,
)
functions = st.fixed_dictionaries(
    {"name": st.sampled_from(WORDS), "module": st.sampled_from(WORDS)},
    optional={
        "http_method": st.sampled_from(["GET", "POST", "get", "HEAD", None, 1]),
        "http_path": st.sampled_from(WORDS) | st.none() | st.text(max_size=8).map("/".__add__),
        "is_async": st.booleans() | scalars,
        "is_class": st.booleans(),
        "other": documents,
    },
)
resources = st.fixed_dictionaries(
    {"is_load_balanced": st.booleans(), "functions": st.lists(functions, max_size=4)},
    optional={"file_path": scalars, "target_python_version": scalars, "other": documents},
)
manifests = st.fixed_dictionaries(
    {"resources": st.dictionaries(st.text(max_size=5), resources, max_size=3)},
    optional={
        "version": st.sampled_from(WORDS),
        "python_version": st.sampled_from(WORDS),
        "project_name": scalars,
        "function_registry": st.dictionaries(st.text(max_size=5), scalars, max_size=2),
        "routes": st.dictionaries(
            st.text(max_size=5), st.dictionaries(st.text(max_size=5), scalars, max_size=2), max_size=2
        ),
    },
)


def load(content: bytes) -> Manifest | None:
    """The manifest of these bytes; `None` where it is refused. Any other exception is the test's failure."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "flash_manifest.json")
        path.write_bytes(content)
        try:
            return manifest.load(path, RESERVED)
        except ManifestFault as fault:
            problems = fault.problems
    assert problems
    assert all(problem.startswith(("$", "and ")) for problem in problems)
    return None


def judge(content: bytes) -> None:
    """Where it is accepted it fits the schema, and its routes are routes or a fault."""
    read = load(content)
    if read is None:
        return
    SCHEMA.validate(as_written(json.loads(content)))
    for name in (None, "*", *read.resources):
        try:
            routes = routes_for(read, name)
        except ManifestFault:
            continue
        everything = name == "*" and "*" not in read.resources
        meant = list(read.resources.values()) if everything else [read.resources.get(name)]
        queue_based = all(each is not None and not each.is_load_balanced for each in meant)
        assert bool(routes) is not queue_based
        assert all(route.path.startswith("/") and route.method in manifest.METHODS for route in routes)


def as_written(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what the reader takes and the schema does not: see the reasons."""
    document = copy.deepcopy(document)
    for resource in document["resources"].values():
        for function in resource.get("functions", []):
            if not resource.get("is_load_balanced"):
                # They are no routes of this runtime's, and not looked at.
                function.pop("http_method", None)
                function.pop("http_path", None)
            elif function.get("http_method") is not None:
                function["http_method"] = function["http_method"].upper()
    return document


@MANY
@given(documents)
def test_any_json_is_a_manifest_or_a_fault(document):
    judge(json.dumps(document).encode())


@MANY
@given(manifests)
@example({"resources": {}})
def test_what_looks_like_a_manifest_is_one_or_a_fault(document):
    judge(json.dumps(document).encode())


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in the document but itself."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, inner in below for each in ((*path, key), *spots(inner, (*path, key)))]


@MANY
@given(st.data())
def test_any_change_to_a_valid_manifest_is_a_manifest_or_a_fault(data):
    document = copy.deepcopy(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(spots(document)))
        parent = document
        for key in above:
            parent = parent[key]
        change = data.draw(st.sampled_from(["replace", "remove", "copy", "rename"]))
        if change == "replace":
            parent[last] = data.draw(documents)
        elif change == "remove":
            del parent[last]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            value = parent[last] if change == "copy" else parent.pop(last)
            parent[data.draw(keys)] = copy.deepcopy(value)
        if not spots(document):
            break
    judge(json.dumps(document).encode())


@MANY
@given(st.data())
def test_any_change_to_the_bytes_of_a_manifest_is_a_manifest_or_a_fault(data):
    content = bytearray(json.dumps(data.draw(st.sampled_from(VALID))).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        until = data.draw(st.integers(at, min(at + 20, len(content))))
        content[at:until] = data.draw(st.binary(max_size=3) | st.sampled_from([b"\\ud800", b"1e999", b"["]))
    judge(bytes(content))


@given(depth=st.sampled_from([10, 100, 250, 1_000, 100_000]), shape=st.sampled_from([b"[", b'{"a":']))
@settings(max_examples=20, deadline=None)
def test_any_depth_is_a_manifest_or_a_fault(depth, shape):
    end = b"]" if shape == b"[" else b"}"
    inner = shape * depth + (b"" if shape == b"[" else b"1") + end * depth
    for content in (inner, b'{"resources": {}, "other": ' + inner + b"}"):
        load(content)
        load(content[: len(content) // 2])
