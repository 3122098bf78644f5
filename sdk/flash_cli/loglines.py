"""A worker's log for a person: its JSON lines as text; all others as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable


def readable(lines: Iterable[str]) -> list[str]:
    """Each line's level, logger and message, and the traceback below; several lines for one, then."""
    text: list[str] = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "message" not in record:
            text.append(line)
            continue
        text += f"{record.get('level', '')} {record['message']}".strip().splitlines()
        text += str(record.get("traceback", "")).splitlines()
    return text


def last(lines: Iterable[str], count: int) -> str:
    """The last of them, readable, as they stand below a fault."""
    return "\n".join(f"    {line[:500]}" for line in readable(lines)[-count:]) or "    (its log is empty)"
