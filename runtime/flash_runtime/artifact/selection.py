"""Resources: what of the manifest this container serves: routes, jobs and functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flash_runtime.artifact.contract import JOB_PATH
from flash_runtime.artifact.manifest import Manifest, Resource
from flash_runtime.artifact.paths import parameters_of
from flash_runtime.config.settings import EVERY_RESOURCE
from flash_runtime.errors import ManifestFault


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, and the handler that answers them."""

    resource: str
    method: str
    path: str
    module: str
    function: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def path_parameters(self) -> tuple[str, ...]:
        """The names in braces in the path, in its order."""
        return parameters_of(self.path)


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """A function or a class of the application's, and where it is defined."""

    resource: str
    name: str
    module: str


@dataclass(frozen=True, slots=True)
class Job:
    """The function that does a queue-based resource's jobs, and the path where they are handed in."""

    path: str
    function: FunctionRef


def routes_for(manifest: Manifest, resource_name: str | None) -> tuple[Route, ...]:
    """The routes of one resource, those without path parameters first; a queue-based one has none.

    `resource_name` is a name, `None` for the only load-balanced resource, or `*` for all of them, each under
    `/{name}`. Raises `ManifestFault` where that names no resource, or none in particular.
    """
    named = manifest.resources.get(resource_name) if resource_name is not None else None
    if named is not None and not named.is_load_balanced:
        if not named.functions:
            raise ManifestFault(
                "The queue-based resource has no functions.", where=f"$.resources.{resource_name}"
            )
        return ()
    served = {name: each for name, each in manifest.resources.items() if each.is_load_balanced}
    if not served and resource_name == EVERY_RESOURCE and any(functions_for(manifest, resource_name)[0]):
        return ()
    if not served:
        others = _listed(manifest.resources) or "them"
        raise ManifestFault(
            "The application has no load-balanced resource.",
            where=f"$.resources: `is_load_balanced` is true for none of {others}",
            remedy="give an Endpoint routes: @endpoint.get(path), @endpoint.post(path), …",
        )
    if resource_name == EVERY_RESOURCE:
        chosen = [route for name in served for route in _routes(name, served[name], prefix=f"/{name}")]
    else:
        name = _choose(served, manifest, resource_name)
        chosen = list(_routes(name, served[name]))
    if not chosen:
        raise ManifestFault(
            "The load-balanced resource has no routes.",
            where=f"$.resources: {_listed(served)}",
            remedy="give its Endpoint routes: @endpoint.get(path), @endpoint.post(path), …",
        )
    # Without this, `/users/{id}` would take requests for `/users/me`.
    return tuple(sorted(chosen, key=lambda route: "{" in route.path))


def jobs_for(manifest: Manifest, resource_name: str | None) -> tuple[Job, ...]:
    """The jobs of the queue-based resource of that name, or with `*` of each, under `/{name}`.

    A resource has jobs where it is one function: of several, only /execute names the one that is meant.
    """
    prefixes = {name: f"/{name}" for name in manifest.resources} if resource_name == EVERY_RESOURCE else {}
    if resource_name in manifest.resources:
        prefixes = {resource_name: ""}
    jobs = []
    for name, prefix in prefixes.items():
        resource = manifest.resources[name]
        plain = [function for function in resource.functions if not function.is_class]
        if not resource.is_load_balanced and len(plain) == 1:
            (function,) = plain
            jobs.append(Job(f"{prefix}{JOB_PATH}", FunctionRef(name, function.name, function.module)))
    return tuple(jobs)


def functions_for(
    manifest: Manifest, resource_name: str | None
) -> tuple[tuple[FunctionRef, ...], dict[str, str]]:
    """The functions of the resources that are served, and the resource of each other function by its name.

    Call `routes_for` before, which refuses a name that is none.
    """
    served = set(_served(manifest, resource_name))
    own = [
        FunctionRef(name, function.name, function.module)
        for name, resource in manifest.resources.items()
        if name in served
        for function in resource.functions
    ]
    names = {each.name for each in own}
    others = {
        function.name: name
        for name, resource in manifest.resources.items()
        if name not in served
        for function in resource.functions
        if function.name not in names
    }
    return tuple(own), others


def _served(manifest: Manifest, resource_name: str | None) -> Iterable[str]:
    if resource_name == EVERY_RESOURCE:
        return manifest.resources
    if resource_name is not None:
        return (resource_name,)
    return (name for name, each in manifest.resources.items() if each.is_load_balanced)


def _routes(name: str, resource: Resource, prefix: str = "") -> Iterator[Route]:
    for function in resource.functions:
        if function.http_method is not None and function.http_path is not None:
            path = prefix + function.http_path
            yield Route(name, function.http_method.upper(), path, function.module, function.name)


def _choose(served: dict[str, Resource], manifest: Manifest, resource_name: str | None) -> str:
    if resource_name is None:
        if len(served) == 1:
            return next(iter(served))
        raise ManifestFault(
            f"The application has several load-balanced resources: {_listed(served)}.",
            where="FLASH_RESOURCE_NAME is not set",
            remedy=f"set FLASH_RESOURCE_NAME to one of them, or to {EVERY_RESOURCE} for all, each under its "
            "name.",
        )
    if resource_name in served:
        return resource_name
    raise ManifestFault(
        f"The resource `{resource_name}` is unknown.",
        where=f"FLASH_RESOURCE_NAME={resource_name}",
        remedy=f"the application's resources are: {_listed(manifest.resources)}.",
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
