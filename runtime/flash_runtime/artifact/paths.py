"""A route's path: the names in it, and what it may not be. The build and the worker judge by this alone."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

_PARAMETER = re.compile(r"\{(\w+)(?::(?:str|path|int|float|uuid))?\}")
"""A name, and how it is read: Starlette's convertors."""


def parameters_of(path: str) -> tuple[str, ...]:
    """The names in braces in the path, in its order."""
    return tuple(_PARAMETER.findall(path))


def path_problems(path: str) -> Iterator[str]:
    """What is wrong with the text of a path that starts with `/`; each begins with the path, quoted."""
    if not path.isprintable() or any(mark in path for mark in " ?#"):
        yield f"{path!r} has a character that no path has as it is"
    parameters = parameters_of(path)
    for word in parameters:
        if not word.isidentifier() or keyword.iskeyword(word):
            yield f"{word!r} cannot be a parameter of a function"
    for twice in sorted({each for each in parameters if parameters.count(each) > 1}):
        yield f"{path!r} names {twice!r} twice"
    if set("{}") & set(_PARAMETER.sub("", path)):
        yield f"{path!r} has a brace that belongs to no parameter"
