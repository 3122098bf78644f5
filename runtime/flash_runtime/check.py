"""`flash-runtime check`: everything that `serve` does, short of listening."""

from __future__ import annotations

import os
import sys

from flash_runtime import app as application
from flash_runtime import artifact, devices, importer, logs, manifest
from flash_runtime.errors import EXIT_OK
from flash_runtime.settings import Settings


def check(settings: Settings) -> int:
    """Validate settings, artifact, manifest and handlers, and print the routes. Raises the first `Fault`."""
    logs.configure(settings.log_level, settings.log_format)
    slots = devices.slots(
        devices.discover(settings.cuda_visible_devices, settings.nvidia_visible_devices), settings.workers
    )
    app_dir = artifact.prepare(settings)
    found = manifest.load(settings.manifest_path, reserved=("/ping", "/execute", settings.health_path))
    manifest.check_python(found, app_dir)
    routes = manifest.routes_for(found, settings.resource_name)
    os.environ.update(slots[0].environ())
    os.chdir(app_dir)
    importer.enter(app_dir, settings.sdk)
    bound = [(route, importer.load(route.module, route.function)) for route in routes]
    application.build(bound, title=found.project_name)
    for route in routes:
        sys.stdout.write(f"{route.method:<7} {route.path:<40} {route.module}.{route.function}\n")
    sys.stdout.write(f"ok: {len(routes)} routes, {len(slots)} worker slots\n")
    return EXIT_OK
