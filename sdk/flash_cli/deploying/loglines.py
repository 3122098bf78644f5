"""Workers' logs: lines of a stream, several streams at once, and JSON lines as text for a person."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator

Line = tuple[str, str]
"""The endpoint, and a line of its log."""


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream; the last one may lack its end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def merged(sources: Iterable[Callable[[], Iterator[Line]]]) -> Iterator[Line]:
    """What all of them give, as it comes, to the last one's end; a thread each, which ends as we do."""
    lines: queue.Queue[Line | None] = queue.Queue(1000)

    def read(source: Callable[[], Iterator[Line]]) -> None:
        try:
            for line in source():
                lines.put(line)
        finally:
            lines.put(None)

    left = 0
    for source in sources:
        threading.Thread(target=read, args=(source,), daemon=True).start()
        left += 1
    while left:
        line = lines.get()
        if line is None:
            left -= 1
        else:
            yield line


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
