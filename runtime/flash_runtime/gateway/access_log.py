"""The access log: a line for each request, built cheaply and written in batches.

The lines of one turn of the I/O loop are written at its end: none is held back, none is lost by a stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

import orjson

from flash_runtime.gateway.request import GatewayRequest
from flash_runtime.logs import setup as logs
from flash_runtime.monitoring.scoreboard import Outcome

NAME = "flash_runtime.access"
_BATCH_BYTES = 4096
"""Bytes that a pipe takes at once without mixing them with other processes' lines (pipe(7))."""
_GONE = 499
"""The status of a request whose client left before the response."""


class AccessLog:
    """Writes access lines to where the runtime's other lines go, in the same style."""

    def __init__(self, style: Literal["json", "text"], slot: int) -> None:
        self._slot = slot
        self._line = self._json if style == "json" else self._text
        self._write = logs.write
        self._lines: list[bytes] = []
        self._second = 0
        self._time = ""

    @classmethod
    def make(cls, style: Literal["json", "text"], slot: int) -> AccessLog | None:
        """An access log, unless the log level leaves its lines out."""
        return cls(style, slot) if logging.getLogger(NAME).isEnabledFor(logging.INFO) else None

    def add(self, request: GatewayRequest, outcome: Outcome, seconds: float) -> None:
        """Note that the request has ended, `seconds` after it came."""
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(self._line(request, outcome, seconds))

    def flush(self) -> None:
        """Write what is still to be written."""
        lines, self._lines = self._lines, []
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if size + len(line) > _BATCH_BYTES and batch:
                self._write(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            self._write(b"".join(batch))

    def _json(self, request: GatewayRequest, outcome: Outcome, seconds: float) -> bytes:
        method, status = request.head.method, request.status or _GONE
        # Still percent-encoded, so that no client can forge a log line.
        path = request.head.raw_path.decode("latin-1")
        line = {
            "time": self._now(),
            "level": "INFO",
            "logger": NAME,
            "message": f"{method} {path} {status}",
            "slot": self._slot,
            "request_id": request.request_id,
            "method": method,
            "route": request.target.path or None if request.target is not None else None,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if outcome is not Outcome.ANSWERED:
            line["outcome"] = outcome.name.lower()
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def _text(self, request: GatewayRequest, outcome: Outcome, seconds: float) -> bytes:
        method, status = request.head.method, request.status or _GONE
        path = request.head.raw_path.decode("latin-1")
        route = request.target.path or None if request.target is not None else None
        line = f"{self._now()[11:23]} INFO    [{self._slot}] ({request.request_id}) {method} {path} {status}"
        line += f" method={method} route={route} status={status} ms={seconds * 1000:.2f}"
        if outcome is not Outcome.ANSWERED:
            line += f" outcome={outcome.name.lower()}"
        return line.encode() + b"\n"

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = logs.timestamp(second)[:-4]  # without milliseconds and zone
        return f"{self._time}{int((now - second) * 1000):03d}Z"
