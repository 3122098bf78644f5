"""Workers' logs: splits streams into lines, merges streams, and shows JSON lines as text for people."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator

Line = tuple[str, str]
"""An endpoint's name and a line of its log."""


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream. The last line need not end with a newline."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def merged(sources: Iterable[Callable[[], Iterator[Line]]]) -> Iterator[Line]:
    """The lines of all sources in the order in which they arrive. A daemon thread reads each source."""
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
    """Log lines as text: the level and message of each, with its traceback in the lines below."""
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
    """The last `count` lines as text, indented to stand below a fault."""
    return "\n".join(f"    {line[:500]}" for line in readable(lines)[-count:]) or "    (the log is empty)"
