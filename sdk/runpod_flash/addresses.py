"""Addresses: the URL of an endpoint, and the key to send there. The SDK reads the environment only here.

The first of these gives the URL: an id that is a URL itself; `FLASH_ENDPOINT_URL`, a template with `{id}` in
it; a deploy target of the nearest `pyproject.toml`; the vendor's cloud. Ids are checked, so that no id can
lead to a host that the template's author did not mean.

There are two keys. `RUNPOD_API_KEY` goes only to the vendor's cloud, over https. `FLASH_API_KEY` goes to all
other endpoints, and never to the vendor's cloud.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runpod_flash.errors import EndpointAddressError

_VENDOR_ROUTES = "https://{id}.api.runpod.ai"
_VENDOR_JOBS = "https://api.runpod.ai/v2/{id}"
_VENDOR_HOST = "api.runpod.ai"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def resolve(id_: str, *, jobs: bool = False, vendors: bool = True) -> str:
    """The base URL of an endpoint, without a slash at its end.

    `jobs` is for queue-based endpoints, which the vendor serves at another host. Without `vendors`, the id
    does not belong to the vendor's cloud. Raises `EndpointAddressError`.
    """
    if not isinstance(id_, str):
        raise EndpointAddressError(f"an endpoint's id must be a string, got {id_!r}")
    if id_.startswith(("http://", "https://")):
        return _checked(id_, "the endpoint's id")
    if not _NAME.fullmatch(id_):
        raise EndpointAddressError(
            f"{id_!r} is not an endpoint's id: an id has letters, digits, - and _. "
            "Fix: give only the id, or the whole URL (http://… or https://…)"
        )
    template = os.environ.get("FLASH_ENDPOINT_URL", "").strip()
    if template:
        return _filled(template, id_, "FLASH_ENDPOINT_URL")
    target = _in_targets(id_)
    if target is not None:
        return target
    if not vendors:
        raise EndpointAddressError(
            f"no deploy target has an endpoint {id_!r}. Fix: flash deploy, or set FLASH_ENDPOINT_URL"
        )
    return (_VENDOR_JOBS if jobs else _VENDOR_ROUTES).replace("{id}", id_)


def is_vendors(url: str) -> bool:
    """Whether the URL leads to the vendor's cloud, over https."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and (host == _VENDOR_HOST or host.endswith(f".{_VENDOR_HOST}"))


def key_for(url: str) -> str | None:
    """The bearer key to send to this URL, or `None`. Raises `EndpointAddressError` if it cannot be used."""
    name = "RUNPOD_API_KEY" if is_vendors(url) else "FLASH_API_KEY"
    key = os.environ.get(name, "").strip()
    file = os.environ.get(f"{name}_FILE", "").strip()
    if not key and file:
        name = f"{name}_FILE"
        try:
            key = Path(file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise EndpointAddressError(f"{name}={file} cannot be read: {type(error).__name__}") from None
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointAddressError(f"{name} has characters that a key cannot have. The value is not shown")
    return key or None


def _filled(template: str, id_: str, where: str) -> str:
    if "{id}" not in template:
        raise EndpointAddressError(
            f"{where}={template!r} has no {{id}}. Fix: write it like https://{{id}}.example.com"
        )
    return _checked(template.replace("{id}", id_), where)


def _checked(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    plain = url.isascii() and url.isprintable() and not any(mark in url for mark in ' \\@?#"<>')
    if not (fine and plain):
        # The URL may contain a password, so it is not shown.
        raise EndpointAddressError(
            f"{where} is not a plain http(s) URL: a host, with an optional port and path, and without "
            "user, query or fragment"
        )
    return url.rstrip("/")


# Deploy targets.


def _in_targets(id_: str) -> str | None:
    """The endpoint's URL at the deploy target of FLASH_ENV, or at the only target that has the endpoint."""
    root, tables = _targets(Path.cwd())
    chosen = os.environ.get("FLASH_ENV", "").strip()
    if chosen and tables:
        if chosen not in tables:
            raise EndpointAddressError(
                f"FLASH_ENV={chosen} is not a deploy target of {root / 'pyproject.toml'}. Its targets are: "
                f"{', '.join(tables)}"
            )
        tables = {chosen: tables[chosen]}
    found = {name: url for name, table in tables.items() if (url := _in_target(root, name, table, id_))}
    if len(set(found.values())) > 1:
        raise EndpointAddressError(
            f"several deploy targets have an endpoint {id_!r}: {', '.join(found)}. Fix: set FLASH_ENV to one"
        )
    return next(iter(found.values()), None)


def _in_target(root: Path, name: str, table: dict[str, Any], id_: str) -> str | None:
    record = root / ".flash" / "deployed" / f"{name}.json"
    try:
        deployed = json.loads(record.read_bytes())["endpoints"].get(id_)
    except FileNotFoundError:
        deployed = None
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise EndpointAddressError(
            f"{record} cannot be read ({type(error).__name__}). Fix: flash deploy --env {name}"
        ) from None
    if isinstance(deployed, str):
        return _checked(deployed, f"{record}: {id_}")
    template = table.get("url")
    where = f"{root / 'pyproject.toml'}: [tool.flash.env.{name}] url"
    return _filled(template, id_, where) if isinstance(template, str) else None


@functools.cache
def _targets(directory: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The nearest project in this directory or above, and its tables `[tool.flash.env.NAME]`. Read once."""
    for root in (directory, *directory.parents):
        file = root / "pyproject.toml"
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise EndpointAddressError(f"{file} cannot be read: {error}") from None
        table: Any = content
        for key in ("tool", "flash", "env"):
            table = table.get(key) if isinstance(table, dict) else None
        tables = table if isinstance(table, dict) else {}
        named = {n: each for n, each in tables.items() if isinstance(each, dict) and _NAME.fullmatch(n)}
        return root, named
    return directory, {}
