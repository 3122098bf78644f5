"""A route's path: the names in it, and the rules for it, which the build and the worker share."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

_PARAMETER = re.compile(r"\{(\w+)(?::(?:str|path|int|float|uuid))?\}")
"""A name, and one of Starlette's convertors."""


def parameters_of(path: str) -> tuple[str, ...]:
    """The names in braces in the path, in their order."""
    return tuple(_PARAMETER.findall(path))


def path_problems(path: str) -> Iterator[str]:
    """What is wrong with a path that starts with `/`. Each problem begins with what is wrong, quoted."""
    if not path.isprintable() or any(mark in path for mark in " ?#"):
        yield f"{path!r} has a character that a path cannot have unescaped"
    parameters = parameters_of(path)
    for word in parameters:
        if not word.isidentifier() or keyword.iskeyword(word):
            yield f"{word!r} cannot be a parameter's name"
    for twice in sorted({each for each in parameters if parameters.count(each) > 1}):
        yield f"{path!r} names {twice!r} twice"
    if set("{}") & set(_PARAMETER.sub("", path)):
        yield f"{path!r} has a brace that belongs to no parameter"
