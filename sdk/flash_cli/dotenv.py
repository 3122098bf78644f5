"""`.env`: variables of a project that are no part of its source."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flash_cli.faults import ConfigFault

NAME = ".env"
_LINE = re.compile(
    r"""
    (?:export\s+)? (?P<name>[A-Za-z_][A-Za-z0-9_]*) \s*=\s*
    (?: '(?P<literal>[^']*)' | "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<bare>[^'"#\s](?:.*?))?? )
    \s* (?:(?:^|(?<=\s))\#.*)?
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read(root: Path) -> dict[str, str]:
    """The variables of the project's `.env`; none where there is no such file.

    A line is `NAME=value`, perhaps with `export` before it and a comment (` # …`) behind. In double quotes
    `\\n`, `\\t` and `\\"` are a new line, a tab and a quote; in single quotes everything is itself. Raises
    `ConfigFault` naming the line, and not its value, which may be a secret.
    """
    path = root / NAME
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigFault(
            f"The {NAME} cannot be read: {type(error).__name__}.",
            where=str(path),
            remedy="make it UTF-8 text.",
        ) from None
    variables = {}
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigFault(
                "A line is none of NAME=value, NAME='value' and NAME=\"value\".",
                where=f"{path}:{number}",
                remedy="write a value of several lines in double quotes, with \\n.",
            )
        variables[match["name"]] = _value(match)
    return variables


def enter(root: Path) -> None:
    """Have the project's variables in this process; those that it has already stay. Raises `ConfigFault`."""
    for name, value in read(root).items():
        os.environ.setdefault(name, value)


def _value(match: re.Match[str]) -> str:
    if match["quoted"] is not None:
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match["quoted"])
    return match["literal"] if match["literal"] is not None else match["bare"] or ""
