"""Parsers: what the text of each variable may be.

Each function takes the text of a variable and returns its value, or raises `Refused`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from flash_runtime.config.fields import Refused

MEBIBYTE = 1024 * 1024
_WEEK = 7 * 86400


def _whole_number(text: str, low: int, high: int, allowed: str) -> int:
    # int() also takes "1_000", "+5" and digits of other scripts, which nobody means here.
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and low <= int(text) <= high):
        raise Refused(allowed)
    return int(text)


def whole(low: int, high: int) -> Callable[[str], int]:
    return lambda text: _whole_number(text, low, high, f"a whole number from {low} to {high}")


def port(text: str) -> int:
    return _whole_number(text, 1, 65535, "a TCP port from 1 to 65535")


def mebibytes(text: str) -> int:
    return _whole_number(text, 1, 2**24, "a whole number of MiB from 1 to 16777216") * MEBIBYTE


def workers(text: str) -> int | None:
    if text == "auto":
        return None
    return _whole_number(text, 1, 512, "`auto` or a whole number from 1 to 512")


def seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= _WEEK:
        raise Refused("a number of seconds from 0 to 604800 (a week)")
    return value


def positive_seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value <= _WEEK:
        raise Refused("a number of seconds above 0, at most 604800 (a week)")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def route_timeouts(text: str) -> tuple[tuple[str, float], ...]:
    allowed = 'a JSON object of routes and seconds, such as {"POST /predict": 60}'
    pairs = _json_object(text, allowed)
    if not all(_is_seconds(value) for value in pairs.values()):
        raise Refused(allowed)
    return tuple((" ".join(route.split()), float(value)) for route, value in pairs.items())


def _json_object(text: str, allowed: str) -> dict[str, Any]:
    import json  # not for every start

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(allowed)
    return found


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _WEEK


def switch(text: str) -> bool:
    word = text.lower()
    if word in ("1", "on", "true", "yes"):
        return True
    if word in ("0", "off", "false", "no"):
        return False
    raise Refused("1/on/true/yes or 0/off/false/no")


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise Refused(" or ".join(f"`{word}`" for word in words))
        return text.lower()

    return parse


log_format = one_of("json", "text")


def default_log_format() -> Literal["json", "text"]:
    return "text" if sys.stderr.isatty() else "json"


def level(text: str) -> str:
    names = {"WARN": "WARNING", "FATAL": "CRITICAL"}
    name = names.get(text.upper(), text.upper())
    if name not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise Refused("DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return name


def absolute_path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise Refused("an absolute path")
    return path


def url_path(text: str) -> str:
    if (
        not text.startswith("/")
        or not text.isascii()
        or not text.isprintable()
        or any(c in text for c in " ?#{}%")
    ):
        raise Refused("a plain URL path that starts with `/`, such as /ping")
    return text


def _is_base_url(text: object) -> bool:
    from urllib.parse import urlsplit  # not for every start

    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or set(" ?#@") & set(text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, or half of an IPv6 address
        return False


def peer_url(text: str) -> str:
    if "{resource}" not in text or not _is_base_url(text.replace("{resource}", "resource")):
        raise Refused("a URL with {resource} in it, such as http://{resource}:80")
    return text


def peers(text: str) -> tuple[tuple[str, str], ...]:
    allowed = 'a JSON object of resources and URLs, such as {"gpu-worker": "http://10.0.0.7:80"}'
    pairs = _json_object(text, allowed)
    if not all(_is_base_url(url) for url in pairs.values()):
        raise Refused(allowed)
    return tuple(pairs.items())


def sha256(text: str) -> str:
    digest = text.lower()
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        raise Refused("64 hexadecimal digits, as `sha256sum` prints them")
    return digest


def names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise Refused("module names separated by commas, such as torch,transformers")
    return names


def secret_in_file(text: str) -> str:
    try:
        path = Path(text)
        if not path.is_file() and path.exists():  # reading a pipe could wait for ever
            raise OSError
        content = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Refused(f"the path of a file that can be read ({error.__class__.__name__})") from None
    if not content:
        raise Refused("the path of a file that contains the secret, and this file is empty")
    return secret(content)


def secret(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise Refused("printable ASCII without spaces, since it travels in an HTTP header")
    return text
