"""Examples: a command that calls a server, made from the API document that the server has of itself."""

from __future__ import annotations

import http.client
import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_DEEPEST = 6
_OF_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": []}
_JSON = "application/json"


def document_of(url: str, key: str | None = None, timeout: float = 5.0) -> dict[str, Any] | None:
    """The API document of the server at `url`, or `None` where it shows none."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request("GET", f"{parts.path.rstrip('/')}/openapi.json", headers=headers)
        response = connection.getresponse()
        found = json.loads(response.read()) if response.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) and isinstance(found.get("paths"), dict) else None


def curl(document: Mapping[str, Any], url: str, *, with_key: bool = False) -> str | None:
    """A curl command for the first POST route, else for the first route; `None` where there is none.

    `with_key` is for a server that asks for FLASH_API_KEY, which the command takes from the environment.
    """
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict)
    ]
    operations.sort(key=lambda each: each[0] != "post")
    if not operations:
        return None
    method, path, operation = operations[0]
    for parameter in operation.get("parameters", ()):
        if parameter.get("in") == "path":
            value = sample(parameter.get("schema", {}), document)
            path = path.replace(f"{{{parameter['name']}}}", str(value))
    words = ["curl", *([] if method == "get" else ["-X", method.upper()]), shlex.quote(url + path)]
    if with_key:
        words += ["-H", '"Authorization: Bearer $FLASH_API_KEY"']
    content = operation.get("requestBody", {}).get("content", {})
    if _JSON in content:
        body = sample(content[_JSON].get("schema", {}), document)
        words += ["-H", f"'Content-Type: {_JSON}'", "-d", shlex.quote(json.dumps(body, ensure_ascii=False))]
    elif "multipart/form-data" in content:
        form = _resolved(content["multipart/form-data"].get("schema", {}), document)
        for name in form.get("required", ()):
            words += ["-F", shlex.quote(f"{name}=@FILE")]
    return " ".join(words)


def sample(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int = _DEEPEST) -> Any:
    """A value that fits the schema, as far as its types say: what is required, and all where nothing is."""
    schema = _resolved(schema, document)
    for key in ("example", "default", "const"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return sample(schema[key][0], document, depth - 1) if depth else None
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind == "object":
        properties = schema.get("properties", {})
        names = schema.get("required") or properties
        return (
            {name: sample(properties.get(name, {}), document, depth - 1) for name in names} if depth else {}
        )
    if kind == "array" and schema.get("items") and depth:
        return [sample(schema["items"], document, depth - 1)]
    return _OF_TYPE.get(str(kind), "text")


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}
