"""The framework: what every worker needs of other people's packages."""

from __future__ import annotations

import importlib

_NAMES = (
    "uvicorn.lifespan.off",
    "fastapi.openapi.docs",
    "pydantic.v1",  # FastAPI imports it at the first route, to refuse handlers that take its models
)


def import_framework() -> None:
    """Import it, in the supervisor, so that all workers share its memory."""
    for name in _NAMES:
        importlib.import_module(name)
