"""Rules for the path of a route, for `Endpoint` and for the build."""

from __future__ import annotations

RESERVED_PATHS = ("/execute", "/ping")


def path_problem(path: str) -> tuple[str, str] | None:
    """What is wrong with the path and how to correct it, or `None` if a route can have it."""
    if not path.startswith("/"):
        return f"path must start with '/', got: {path!r}", f"write {'/' + path!r}"
    if path in RESERVED_PATHS:
        reserved = " and ".join(RESERVED_PATHS)
        return (
            f"path {path!r} is reserved by the framework. The reserved paths are {reserved}",
            "choose another path",
        )
    return None
