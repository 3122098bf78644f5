"""The framework: workers import nothing of it after the fork."""

import subprocess
import sys

PROGRAM = """
import sys
import flash_runtime.worker.worker
from flash_runtime.commands.serve import import_framework

import_framework()
before = set(sys.modules)

from flash_runtime.handlers import fastapi_app as app
from flash_runtime.artifact.selection import Route
from flash_runtime.dispatch.threads import Threads


async def coroutine(a: int, b: dict[str, float] | None = None) -> dict[str, int]: ...
def plain(item_id: int, q: str = ""): ...


routes = [
    (Route("api", "POST", "/add", "main", "coroutine"), coroutine),
    (Route("api", "GET", "/items/{item_id}", "main", "plain"), plain),
]
app.build(routes, title="t", threads=Threads(1))
print(*sorted(set(sys.modules) - before))
"""


def test_mounting_handlers_imports_nothing_that_workers_would_not_share():
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
