"""The API document: what it promises is what the examples, served by real processes, answer."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import Server, serve

with warnings.catch_warnings():
    # Of its own imports.
    warnings.simplefilter("ignore", DeprecationWarning)
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        unsupported_method,
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module", params=["hello", "search"])
def server(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp(request.param)
    with serve(tmp_path, FLASH_APP_DIR=EXAMPLES / request.param, FLASH_WORKERS=1) as running:
        yield running


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda m: m.value)
def test_every_answer_is_as_the_document_says_and_none_is_5xx(server: Server, mode: GenerationMode):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert operations
    workers = server.workers()
    for op in operations:
        print(op.label)
        seen = []
        @settings(
            max_examples=50,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=op.as_strategy(generation_mode=mode))
        def check(case):
            r = case.call(timeout=10)
            seen.append(r.status_code)
            case.validate_response(r, checks=CHECKS)
        import time, collections
        t=time.monotonic()
        try: check()
        except BaseException as e: print(type(e), str(e)[:1500], getattr(e,'exceptions',None))
        print(time.monotonic()-t, collections.Counter(seen))
    assert server.workers() == workers
    assert "Traceback" not in server.log
