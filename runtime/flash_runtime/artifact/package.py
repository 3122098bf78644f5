"""The package: what to serve, found by following the settings from artifact to manifest to routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flash_runtime.artifact import manifest, staging
from flash_runtime.artifact.contract import RESERVED_PATHS
from flash_runtime.artifact.manifest import Manifest
from flash_runtime.artifact.selection import FunctionRef, Job, Route, functions_for, jobs_for, routes_for
from flash_runtime.config.settings import EVERY_RESOURCE, Settings
from flash_runtime.errors import SettingFault


@dataclass(frozen=True, slots=True)
class Package:
    """An application in its place, and what to serve of it: routes, jobs, and what can be called by name."""

    app_dir: Path
    title: str
    routes: tuple[Route, ...]
    functions: tuple[FunctionRef, ...]
    elsewhere: Mapping[str, str]
    """The resource of each function that another container serves."""
    jobs: tuple[Job, ...]
    together: frozenset[str]
    """Functions of queue-based resources that are served along with the resources that call them."""


def open_package(settings: Settings) -> Package:
    """Find, unpack and read the application. Raises `Fault`.

    An artifact whose manifest cannot be served is refused before it replaces anything.
    """
    with staging.stage(settings) as staged:
        found = _read(settings, staged.manifest, staged.files, staged.where)
        package = _select(settings, staged.app_dir, found)
        staged.commit()
    return package


def read_again(settings: Settings, package: Package) -> Package:
    """The package by its present manifest. One that came from an artifact does not change. Raises `Fault`."""
    if not settings.disable_unpack:
        return package
    path = settings.manifest_path
    return _select(settings, package.app_dir, _read(settings, path, package.app_dir, str(path)))


def _read(settings: Settings, path: Path, files: Path, where: str) -> Manifest:
    reserved = (*RESERVED_PATHS, settings.health_path)
    found = manifest.load(path, reserved, where)
    manifest.check_python(found, files)
    return found


def _select(settings: Settings, app_dir: Path, found: Manifest) -> Package:
    routes = _with_timeouts(settings, routes_for(found, settings.resource_name))
    functions, elsewhere = functions_for(found, settings.resource_name)
    jobs = jobs_for(found, settings.resource_name)
    queue_based = {each.name for each in functions if not found.resources[each.resource].is_load_balanced}
    together = frozenset(queue_based if settings.resource_name == EVERY_RESOURCE else ())
    return Package(app_dir, found.project_name, routes, functions, elsewhere, jobs, together)


def _with_timeouts(settings: Settings, routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """The routes, each with its timeout."""
    timeouts = dict(settings.route_timeouts)
    known = [str(route) for route in routes]
    unknown = [name for name in timeouts if name not in known]
    if unknown:
        raise SettingFault(
            f"FLASH_ROUTE_TIMEOUTS names {', '.join(unknown)}, and the application has no such route.",
            where="the environment (FLASH_ROUTE_TIMEOUTS)",
            remedy=f"the routes are: {', '.join(known[:20])}{', …' if len(known) > 20 else ''}.",
        )
    return tuple(
        replace(route, timeout=timeouts.get(str(route), settings.request_timeout)) for route in routes
    )
