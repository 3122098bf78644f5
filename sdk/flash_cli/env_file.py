"""`.env`: variables of a project that are not part of its source."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dotenv.parser import Original, parse_stream

from flash_cli.faults import ConfigFault

FILE = ".env"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read(root: Path) -> dict[str, str]:
    """The variables of the project's `.env`, or none if there is no such file.

    python-dotenv parses the file: `NAME=value`, with an optional `export` before it and a comment (` # …`)
    behind it. In double quotes `\\n`, `\\t` and `\\"` are a new line, a tab and a quote. Nothing is
    interpolated: `$NAME` stays as it is.

    Raises `ConfigFault` with the line's number. The fault does not show the line, which may hold a secret.
    """
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigFault(
            f"The {FILE} file cannot be read: {type(error).__name__}.",
            where=str(path),
            remedy="make it a readable file of UTF-8 text.",
        ) from None
    return dict(_variables(path, text))


def enter(root: Path) -> None:
    """Set the project's variables in this process, except those that are set already.

    Raises `ConfigFault`.
    """
    for name, value in read(root).items():
        os.environ.setdefault(name, value)


def _variables(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for binding in parse_stream(io.StringIO(text)):
        name, value = binding.key, binding.value
        if binding.error or (name is not None and (value is None or not _NAME.fullmatch(name))):
            raise ConfigFault(
                "A line cannot be read as NAME=value.",
                where=f"{path}:{_line(binding.original)}",
                remedy="write NAME=value, NAME='value' or NAME=\"value\". A name has letters, digits and _. "
                "Every quote that opens needs one that closes.",
            )
        if name is not None and value is not None:
            yield name, value


def _line(original: Original) -> int:
    """The line where a statement begins: python-dotenv counts the empty lines above it as part of it."""
    text: str = original.string
    return int(original.line) + text[: len(text) - len(text.lstrip())].count("\n")
