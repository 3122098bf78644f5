"""What the path of a route may be: one rule for where it is written and for the build."""

from __future__ import annotations

RESERVED_PATHS = ("/execute", "/ping")


def path_problem(path: str) -> tuple[str, str] | None:
    """What is wrong with the path, and how to mend it; None where it can be a route's."""
    if not path.startswith("/"):
        return f"path must start with '/', got: {path!r}", f"write {'/' + path!r}"
    if path in RESERVED_PATHS:
        reserved = " and ".join(RESERVED_PATHS)
        return f"path {path!r} is reserved by the framework, as are {reserved}", "choose another path"
    return None
