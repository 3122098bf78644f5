"""Loading: imports the handlers and builds what a worker serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flash_runtime.artifact.package import Package
from flash_runtime.artifact.selection import Job
from flash_runtime.config.settings import Settings
from flash_runtime.dispatch.admission import Kind
from flash_runtime.dispatch.responder import Responder
from flash_runtime.dispatch.target import RouteTarget
from flash_runtime.dispatch.threads import Threads
from flash_runtime.handlers.fastapi_app import Application, build
from flash_runtime.jobs import runsync
from flash_runtime.jobs.runsync import Runsync
from flash_runtime.rpc.execute import PATH as EXECUTE_PATH
from flash_runtime.rpc.execute import Execute, Functions
from flash_runtime.rpc.stubs import NOWHERE, Addresses, LocalStubs, RemoteStubs, original
from flash_runtime.usercode import importer


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker serves: the routes' application, and what is not called by a route."""

    application: Application
    functions: Functions
    """What can be called by name."""
    jobs: tuple[tuple[Job, Callable[..., Any]], ...]
    """What answers jobs of queue-based resources."""


def load(
    package: Package,
    sdk: Literal["image", "artifact"],
    threads: Threads,
    device_lost: Callable[[str], None] = lambda why: None,
    addresses: Addresses = NOWHERE,
) -> Loaded:
    """Import the package's handlers, in this process and for good, and build their application.

    Functions of other resources become calls to them, at their `addresses`. Plain functions run in the
    `threads`. `device_lost` is called with the reason when this process can no longer use the GPU.

    Raises `UserCodeFault` and `ManifestFault` like `importer.enter`, `importer.load` and `build`.
    """
    importer.enter(package.app_dir, sdk)
    stubs = LocalStubs(package.together) if package.together else RemoteStubs(addresses, package.elsewhere)
    _stand_in_for_others(sdk, stubs.stand_in)
    bound = [(route, importer.load(route.module, route.function)) for route in package.routes]
    own = {each.name: original(importer.load(each.module, each.name)) for each in package.functions}
    application = build(bound, title=package.title, threads=threads, device_lost=device_lost)
    jobs = [(job, original(importer.load(job.function.module, job.function.name))) for job in package.jobs]
    jobs = [(job, function) for job, function in jobs if not isinstance(function, type)]
    for job, function in jobs:
        application.asgi.add_api_route(
            job.path,
            _answered_before,
            methods=["POST"],
            name=job.function.name,
            description=inspect.getdoc(function),
            openapi_extra=runsync.documented(function),
        )
    return Loaded(application, Functions(own, package.elsewhere), tuple(jobs))


async def _answered_before() -> dict[str, Any]:
    """Puts a job's path into the API document. The runtime's own target responds before it."""
    raise NotImplementedError


def _stand_in_for_others(sdk: Literal["image", "artifact"], stand_in: Callable[[Any], Any]) -> None:
    """Have the SDK's decorators replace functions of other resources by stubs."""
    from runpod_flash import Endpoint  # the image's or the artifact's: `importer.enter` decides

    if sdk == "image":
        Endpoint.stand_in = stand_in  # type: ignore[method-assign, assignment]
        return
    # The vendor's own stubs would call its cloud, also for the functions that are here.
    decorate = Endpoint.__call__

    def call(self: Endpoint, function_or_class: Any) -> Any:
        decorate(self, function_or_class)
        return stand_in(function_or_class)

    Endpoint.__call__ = call  # type: ignore[method-assign]


def own_targets(loaded: Loaded, settings: Settings) -> list[RouteTarget]:
    """The runtime's own targets of POST requests: /execute and jobs."""

    def target(path: str, responder: Responder, *, is_internal: bool) -> RouteTarget:
        name, seconds = f"POST {path}", settings.request_timeout
        return RouteTarget(name, "POST", path, Kind.SYNC, seconds, responder, is_internal=is_internal)

    execute = Execute(loaded.functions, loaded.application.failures, live=settings.live)
    targets = [target(EXECUTE_PATH, execute, is_internal=True)]
    for job, function in loaded.jobs:
        runsync = Runsync(job.path, job.function.name, function, loaded.application.failures)
        targets.append(target(job.path, runsync, is_internal=False))
    return targets
