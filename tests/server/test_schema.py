"""The API document: what the examples, served by real processes, answer is as it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.serving import Server, serve

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFORMS = [
    not_a_server_error,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = {
    "hello": ["GET /hello", "POST /add"],
    "search": [
        "POST /documents", "GET /documents/{id}", "DELETE /documents/{id}", "POST /upload", "POST /search",
        "GET /export",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("schema")
    with (
        serve(tmp_path, FLASH_APP_DIR=EXAMPLES / "hello", FLASH_WORKERS=1) as hello,
        serve(tmp_path, FLASH_APP_DIR=EXAMPLES / "search", FLASH_WORKERS=1) as search,
    ):
        yield {"hello": hello, "search": search}


def operations(server: Server) -> dict[str, schemathesis.APIOperation]:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", timeout=10)
    return {each.label: each for each in (found.ok() for found in schema.get_all_operations())}


def try_many(server: Server, label: str, mode: GenerationMode, *more: schemathesis.CheckFunction) -> None:
    """Send fifty requests that the document allows, or that it does not."""
    workers, logged = server.workers(), len(server.log)

    @settings(
        max_examples=50,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations(server)[label].as_strategy(generation_mode=mode))
    def attempt(case: schemathesis.Case) -> None:
        case.validate_response(case.call(timeout=10), checks=[*CONFORMS, *more])

    attempt()
    assert server.workers() == workers
    assert "Traceback" not in server.log[logged:]


@pytest.mark.parametrize("example", OPERATIONS)
def test_the_document_has_every_operation(servers, example):
    assert sorted(operations(servers[example])) == sorted(OPERATIONS[example])


@pytest.mark.parametrize(
    ("example", "label"), [(example, label) for example, labels in OPERATIONS.items() for label in labels]
)
def test_what_the_document_allows_is_answered_as_it_says(servers, example, label):
    if label == "GET /export":  # of nothing, no stream could be judged
        servers[example].client.post("/documents", json={"id": "a", "text": "b"}).raise_for_status()
    try_many(servers[example], label, GenerationMode.POSITIVE, checks.positive_data_acceptance)


@pytest.mark.parametrize(("example", "label"), [("search", "POST /documents")])
def test_what_the_document_does_not_allow_is_refused_as_it_says(servers, example, label):
    try_many(servers[example], label, GenerationMode.NEGATIVE, checks.negative_data_rejection)


@pytest.mark.parametrize(
    ("example", "label"),
    [("hello", "GET /hello"), ("hello", "POST /add"), ("search", "POST /upload"), ("search", "POST /search")],
)
def test_what_is_odd_is_answered_as_the_document_says(servers, example, label):
    """Any text is a name, any bytes are a file, `true` is a number, `false` a limit: some of it is taken."""
    try_many(servers[example], label, GenerationMode.NEGATIVE)
