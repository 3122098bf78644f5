"""Logs: one line for each event, as JSON or text, on standard error.

Every line of a request has its id, also the lines of the user's own `logging` and `print` calls. A worker's
lines have its slot.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import time
from typing import Literal

from flash_runtime.logs.context import request_id, show_to_reader

_STDERR = 2
_OWN = ("flash_runtime", "stdout", "stderr")
"""The loggers that belong to the runtime."""
_PRINTED = _OWN[1:]
# Every LogRecord has these. Anything else on a record came with `extra=`, and is shown.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(level: str, style: Literal["json", "text"]) -> None:
    """Send every record of this process to standard error, one line each."""
    formatter = _JsonFormatter() if style == "json" else _TextFormatter()
    # A copy of the descriptor, with a high number: if user code closes a low one, a client's connection could
    # get that number, and with it the log.
    handler = _DescriptorHandler(fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, 64))
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # User code may configure the root logger. These loggers do not depend on it.
    for name in _OWN:
        own = logging.getLogger(name)
        own.handlers, own.propagate = [handler], False
        own.setLevel(level)
    # Their start and stop lines only repeat the supervisor's.
    for name in ("uvicorn", "gunicorn"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def restore() -> None:
    """Enable loggers that the user's `logging.config` has disabled. Call it after user imports."""
    for name in tuple(logging.getLogger().manager.loggerDict):
        if name.partition(".")[0] in _OWN:
            logging.getLogger(name).disabled = False


def write(data: bytes) -> None:
    """Write lines that are already formatted to the runtime's log."""
    for handler in logging.getLogger(_OWN[0]).handlers:
        if isinstance(handler, _DescriptorHandler):
            handler.write(data)


def set_slot(slot: int) -> None:
    """Show the worker's slot in every line from now on. Call it once, in the worker."""
    for handler in logging.getLogger(_OWN[0]).handlers:
        if isinstance(handler.formatter, _JsonFormatter | _TextFormatter):
            handler.formatter.show_slot(slot)


class _DescriptorHandler(logging.Handler):
    """Writes a whole line with one system call, so that lines of several processes do not mix."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not record.name.startswith(_OWN[0]) and record.name not in _PRINTED:
                show_to_reader(record.getMessage())
            data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except BaseException:  # noqa: BLE001  a record's `__str__` may raise anything, and the request goes on
            data = f"a log call of {record.pathname}:{record.lineno} cannot be formatted\n".encode()
        self.write(data)

    def write(self, data: bytes) -> None:
        """Write all of it, unless the log was closed."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], 1.0)
            except OSError:
                return  # the log was closed; serving goes on


class _JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, message, then everything else that the record has."""

    slot: int | None = None

    def show_slot(self, slot: int) -> None:
        """Show the slot in every line."""
        self.slot = slot

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self.slot is not None:
            line["slot"] = self.slot
        current = request_id.get()
        if current is not None:
            line["request_id"] = current
        line.update(_extras(record))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    """A line for people: time, level, slot, request id, message, extras. A traceback follows."""

    slot: int | None = None

    def show_slot(self, slot: int) -> None:
        """Show the slot in every line."""
        self.slot = slot

    def format(self, record: logging.LogRecord) -> str:
        parts = [timestamp(record.created)[11:23], f"{record.levelname:<7}"]
        if self.slot is not None:
            parts.append(f"[{self.slot}]")
        current = request_id.get()
        if current is not None:
            parts.append(f"({current})")
        if record.name in _PRINTED:
            parts.append("|")
        parts.append(record.getMessage())
        parts += [f"{key}={value}" for key, value in _extras(record).items()]
        text = " ".join(parts)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + record.stack_info
        return text


def timestamp(seconds: float) -> str:
    """The time in ISO 8601, UTC, with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
