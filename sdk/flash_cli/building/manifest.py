"""The manifest: how the worker reads an application. The same source gives the same bytes."""

from __future__ import annotations

import json
from typing import Any

from flash_cli.application import Application, DeclaredEndpoint, Function
from flash_cli.discovery.vendor_keys import placement_of, resource_type
from runpod_flash import Endpoint, ServerlessScalerType

VERSION = "1.0"
"""The version of the format, which `manifest_schema.json` describes."""


def manifest_of(application: Application, python: str) -> dict[str, Any]:
    """The manifest of an application for a version of Python, such as `3.12`.

    It has the vendor's keys, except two: the time of the build, which would change the bytes at each build,
    and a digest of the source, since the artifact has a digest of its own.
    """
    endpoints = application.endpoints
    manifest: dict[str, Any] = {
        "version": VERSION,
        "python_version": python,
        "project_name": application.name,
        "resources": {each.name: _resource(each, python) for each in (*endpoints, *application.clients)},
        "function_registry": {function.name: each.name for each in endpoints for function in each.functions},
    }
    routes = {each.name: _routes(each) for each in endpoints if each.is_load_balanced}
    return {**manifest, **({"routes": routes} if routes else {})}


def encode(manifest: dict[str, Any]) -> bytes:
    """The bytes of `flash_manifest.json`."""
    return json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"


def _resource(declared: DeclaredEndpoint, python: str) -> dict[str, Any]:
    is_client = not declared.functions
    endpoint = Endpoint(declared.name, **declared.options)
    if declared.is_load_balanced and declared.options.get("scaler_type") is None:
        endpoint = Endpoint(
            declared.name, **{**declared.options, "scaler_type": ServerlessScalerType.REQUEST_COUNT}
        )
    resource = {
        "resource_type": resource_type(endpoint, declared.is_load_balanced),
        "file_path": declared.place.path,
        "local_path_prefix": f"/{declared.place.path.removesuffix('.py')}",
        "module_path": declared.module,
        "functions": [_function(each) for each in declared.functions],
        "is_load_balanced": declared.is_load_balanced,
        "is_live_resource": True,
        "config_variable": declared.variable,
        "makes_remote_calls": declared.calls_others,
        **({"client_mode": True} if is_client else {}),
        **dict(placement_of(endpoint, declared.is_load_balanced, python)),
    }
    if not is_client and not declared.is_load_balanced:
        resource["handler_file"] = f"handler_{declared.name}.py"
    return {**resource, "target_python_version": python}


def _function(function: Function) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": function.name,
        "module": function.module,
        "is_async": function.is_async,
        "is_class": function.is_class,
    }
    if function.class_methods:
        found["class_methods"] = list(function.class_methods)
    if function.path is not None:
        found |= {"http_method": function.method, "http_path": function.path}
    return found


def _routes(declared: DeclaredEndpoint) -> dict[str, str]:
    return {f"{each.method} {each.path}": each.name for each in declared.functions}
