"""The framework: what a worker imports of it after the fork, and what not."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from fastapi import FastAPI
from fastapi.exceptions import PydanticV1NotSupportedError
from flash_runtime.framework import import_framework, without_pydantic_v1
import_framework()
{before}
app = FastAPI()
with without_pydantic_v1():
    {during}
assert sys.modules.get("pydantic.v1", "absent") is not None
{after}
"""
ROUTE = "app.get('/x')(lambda x: x)"


def run(before: str = "", during: str = ROUTE, after: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(before=before, during=during, after=after)
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    "case",
    [
        {"after": "assert 'pydantic.v1' not in sys.modules"},
        {"after": "from pydantic import v1; v1.BaseModel"},
        {"before": "import pydantic.v1", "after": "assert sys.modules['pydantic.v1'] is pydantic.v1"},
        {
            "before": "import threading; threading.Thread(target=input, daemon=True).start()",
            "during": "import pydantic.v1",
        },
    ],
    ids=["not imported", "imported by the user later", "imported by the user before", "beside a thread"],
)
def test_pydantics_old_models_are_imported_by_user_code_alone(case):
    done = run(**case)
    assert done.returncode == 0, done.stderr


def test_a_handler_that_takes_an_old_model_is_refused_as_fastapi_does():
    model = "from pydantic.v1 import BaseModel\nclass Old(BaseModel): pass\ndef handler(x: Old): pass\n"
    done = run(before=model, during="app.post('/x')(handler)")
    assert "PydanticV1NotSupportedError" in done.stderr.splitlines()[-1]
