"""Sample calls: a curl command that calls an endpoint, for a person to try.

The values come from the server's API document or, without one, from the endpoint's source.
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from flash_cli.application import DeclaredEndpoint, Function
from flash_runtime.artifact.contract import JOB_PATH, parameters_of, variable

_DEEPEST = 6
_OF_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": []}
_OF_ANNOTATION = {"": "text", "str": "text", "int": 1, "float": 1.5, "bool": True, "list": [], "dict": {}}
"""By how an annotation begins. Others, such as a model or a file, have no sample without the API document."""
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """A request: its path has no parameters left."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    """Sent as JSON. `None` sends no body."""
    files: tuple[str, ...] = ()
    """Names of a form's fields, each for a file."""


def document_of(url: str, key: str | None = None, timeout: float = 5.0) -> dict[str, Any] | None:
    """The API document of the server at `url`, or `None` if it has none."""
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


def from_document(document: Mapping[str, Any]) -> Call | None:
    """A call of the first POST route in an API document, else of its first route, if it has any."""
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
    query = {}
    for parameter in operation.get("parameters", ()):
        value = sample(parameter.get("schema", {}), document)
        if parameter.get("in") == "path":
            path = path.replace(f"{{{parameter['name']}}}", _text(value))
        elif parameter.get("in") == "query" and parameter.get("required"):
            query[parameter["name"]] = value
    body, files = None, ()
    content = operation.get("requestBody", {}).get("content", {})
    if _JSON in content:
        body = sample(content[_JSON].get("schema", {}), document)
    elif "multipart/form-data" in content:
        form = _resolved(content["multipart/form-data"].get("schema", {}), document)
        files = tuple(form.get("required", ()))
    return Call(method.upper(), path, query, body, files)


def from_source(endpoint: DeclaredEndpoint) -> Call | None:
    """A call of the endpoint by its source alone: of a GET route without path parameters, if there is one.

    `None` for an endpoint whose functions are only called by name.
    """
    routes = [each for each in endpoint.functions if each.path is not None and each.method is not None]
    routes.sort(key=lambda each: (each.method != "GET", "{" in (each.path or "")))
    if routes:
        method, path, values = str(routes[0].method), str(routes[0].path), _values(routes[0])
        for name in parameters_of(path):
            path = re.sub(rf"\{{{name}(:\w+)?\}}", _text(values.pop(name, "text")), path)
        return Call(method, path, values) if method == "GET" else Call(method, path, body=values)
    functions = [each for each in endpoint.functions if not each.is_class]
    return Call("POST", JOB_PATH, body={"input": _values(functions[0])}) if len(functions) == 1 else None


def curl(url: str, call: Call, *, with_key: bool = False) -> str:
    """The call as a curl command, of the server at `url`.

    With `with_key` the command sends FLASH_API_KEY, which the shell takes from the environment.
    """
    address = url + call.path
    if call.query:
        address += f"?{urlencode({name: _text(value) for name, value in call.query.items()})}"
    words = ["curl", *([] if call.method == "GET" else ["-X", call.method]), shlex.quote(address)]
    if with_key:
        words += ["-H", f'"Authorization: Bearer ${variable("api_key")}"']
    if call.body is not None:
        body = json.dumps(call.body, ensure_ascii=False)
        words += ["-H", f"'Content-Type: {_JSON}'", "-d", shlex.quote(body)]
    for name in call.files:
        words += ["-F", shlex.quote(f"{name}=@FILE")]
    return " ".join(words)


def _values(function: Function) -> dict[str, Any]:
    """Values for the function's required parameters, as far as plain annotations tell what they take."""
    known = ((name, _OF_ANNOTATION.get(re.split(r"[\[ |]", kind)[0])) for name, kind in function.required)
    return {name: value for name, value in known if value is not None}


def _text(value: Any) -> str:
    """A value as a part of a URL."""
    return value if isinstance(value, str) else json.dumps(value)


def sample(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int = _DEEPEST) -> Any:
    """A value that fits a schema's types: with the required properties, or with all if none is required."""
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
