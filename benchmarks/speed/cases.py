"""What is asked of each side: requests, their right answers, and a wrong one that must be refused."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

_SMALL = {"a": 1, "b": 2}
_ANSWER = {"sum": 3}
_ASYNC = "async"
_GET = "get"
_BARE = "bare"


@dataclass(frozen=True)
class Case:
    """A request that is sent over and over on a number of connections.

    `needs` names what a side must have for it: `async` handlers, a `get` with a path parameter, a `bare`
    result without an annotation. `large` bodies are sent one by one, by a client that waits for each.
    """

    name: str
    title: str
    method: str
    path: str
    body: bytes | None
    answer: Any
    wrong: bytes | str
    """A body or a path of the wrong type."""
    connections: int
    needs: str = ""
    large: bool = False


def numbers(count: int) -> list[float]:
    """Floats with all their digits, the same ones in every run."""
    chance = random.Random(1)
    return [chance.uniform(-1000, 1000) for _ in range(count)]


def items(size: int) -> tuple[bytes, dict[str, int]]:
    """A body of about, and at most, `size` bytes with a list of objects, and its answer."""
    chance = random.Random(2)
    found: list[dict[str, Any]] = []
    length = len('{"items": []}')
    while True:
        number = len(found)
        item = {
            "id": number,
            "name": f"item number {number}",
            "price": round(chance.uniform(1, 100), 2),
            "quantity": chance.randrange(1, 10),
            "tags": ["new", "blue", f"shelf-{chance.randrange(100)}"],
        }
        length += len(json.dumps(item)) + 2
        if length > size:
            break
        found.append(item)
    answer = {"count": len(found), "total": sum(each["quantity"] for each in found)}
    return json.dumps({"items": found}).encode(), answer


def all_cases() -> list[Case]:
    small = json.dumps(_SMALL).encode()
    wrong = b'{"a": "one", "b": 2}'
    bulk, bulk_answer = items(100_000)
    huge, huge_answer = items(10_000_000)
    values = numbers(1000)
    floats = json.dumps({"values": values}).encode()
    scaled = {"values": [value * 2 for value in values]}
    wrong_items, wrong_values = b'{"items": [{"id": "x"}]}', b'{"values": ["x"]}'

    def add(connections: int) -> Case:
        count = "1 connection" if connections == 1 else f"{connections} connections"
        title = f"small typed POST, async, {count}"
        return Case(f"add-{connections}", title, "POST", "/add", small, _ANSWER, wrong, connections, _ASYNC)

    return [
        add(16),
        Case("sync", "small typed POST, sync", "POST", "/add-sync", small, _ANSWER, wrong, 16),
        Case("get", "GET with a path parameter", "GET", "/items/7", None, {"id": 7}, "/items/x", 16, _GET),
        Case("floats", "1,000 floats in and out", "POST", "/scale", floats, scaled, wrong_values, 16),
        Case(
            "floats-bare",
            "1,000 floats in and out, the result not annotated",
            "POST",
            "/scale-bare",
            floats,
            scaled,
            wrong_values,
            16,
            _BARE,
        ),
        Case("100-kb", "100 kB of JSON in", "POST", "/bulk", bulk, bulk_answer, wrong_items, 16),
        Case("10-mb", "10 MB of JSON in", "POST", "/bulk", huge, huge_answer, wrong_items, 1, large=True),
        add(1),
        add(256),
    ]
