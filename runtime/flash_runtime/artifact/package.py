"""The package: what is to be served, found by following the settings from artifact to manifest to routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flash_runtime.artifact import manifest
from flash_runtime.artifact import unpacking as artifact
from flash_runtime.artifact.manifest import Manifest
from flash_runtime.artifact.selection import FunctionRef, Job, Route, functions_for, jobs_for, routes_for
from flash_runtime.config.settings import EVERY_RESOURCE, Settings
from flash_runtime.errors import SettingFault


@dataclass(frozen=True, slots=True)
class Package:
    """An application in its place, and what to serve of it: routes, jobs, and what can be called by name.

    `elsewhere` has the resource of each function that is another container's.
    """

    app_dir: Path
    title: str
    routes: tuple[Route, ...]
    functions: tuple[FunctionRef, ...]
    elsewhere: Mapping[str, str]
    jobs: tuple[Job, ...]
    together: frozenset[str]
    """Functions of queue-based resources that are served beside the resources which await them."""


def open_package(settings: Settings) -> Package:
    """Find, unpack and read the application. Raises `Fault`.

    An artifact whose manifest cannot be served is refused before it replaces anything.
    """

    def accept(path: Path, app_dir: Path, where: str) -> tuple[Manifest, tuple[Route, ...]]:
        return _accept(settings, path, app_dir, where)

    app_dir, (found, routes) = artifact.prepare(settings, accept)
    return _package(settings, app_dir, found, routes)


def read_again(settings: Settings, package: Package) -> Package:
    """The package as its manifest is now, where it is no artifact's, which stays as it is. Raises `Fault`."""
    if not settings.disable_unpack:
        return package
    path = settings.manifest_path
    found, routes = _accept(settings, path, package.app_dir, str(path))
    return _package(settings, package.app_dir, found, routes)


def _accept(settings: Settings, path: Path, app_dir: Path, where: str) -> tuple[Manifest, tuple[Route, ...]]:
    reserved = ("/ping", "/execute", settings.health_path)
    found = manifest.load(path, reserved, where)
    manifest.check_python(found, app_dir)
    routes = routes_for(found, settings.resource_name)
    _check_timeouts(settings, routes)
    timeouts = dict(settings.route_timeouts)
    return found, tuple(
        replace(route, timeout=timeouts.get(str(route), settings.request_timeout)) for route in routes
    )


def _package(settings: Settings, app_dir: Path, found: Manifest, routes: tuple[Route, ...]) -> Package:
    functions, elsewhere = functions_for(found, settings.resource_name)
    jobs = jobs_for(found, settings.resource_name)
    queue_based = {each.name for each in functions if not found.resources[each.resource].is_load_balanced}
    together = frozenset(queue_based if settings.resource_name == EVERY_RESOURCE else ())
    return Package(app_dir, found.project_name, routes, functions, elsewhere, jobs, together)


def _check_timeouts(settings: Settings, routes: tuple[Route, ...]) -> None:
    known = [str(route) for route in routes]
    unknown = [name for name, _ in settings.route_timeouts if name not in known]
    if unknown:
        raise SettingFault(
            f"FLASH_ROUTE_TIMEOUTS names {', '.join(unknown)}, and the application has no such route.",
            where="the environment (FLASH_ROUTE_TIMEOUTS)",
            remedy=f"the routes are: {', '.join(known[:20])}{', …' if len(known) > 20 else ''}.",
        )
