"""Results to JSON that every client can read."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi.responses import JSONResponse


class FiniteJSONResponse(JSONResponse):
    """JSON as RFC 8259 has it: NaN and the infinities, which it lacks, are `null`."""

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(content: Any) -> bytes:
    """`content`, made of JSON's own types, as UTF-8. Raises `TypeError` or `ValueError` for other types."""
    try:
        text = _dumps(content)
    except ValueError:
        text = _dumps(_finite(content))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can carry
        return _dumps(_finite(content), ascii_only=True).encode()


def _dumps(content: Any, *, ascii_only: bool = False) -> str:
    return json.dumps(content, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
