"""`flash-runtime check`: what `serve` does up to the moment when it would listen, and no further.

An artifact is unpacked into a temporary directory. User code is imported in a process of its own, so that the
check can report whatever it does there.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import signal
import sys
import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path

from flash_runtime.artifact.package import Package, open_package
from flash_runtime.config.settings import Settings
from flash_runtime.dispatch.threads import Threads
from flash_runtime.errors import (
    EXIT_OK,
    EXIT_SOFTWARE,
    Fault,
    boot_crash_fault,
    boot_timeout_fault,
)
from flash_runtime.logs import setup as logs
from flash_runtime.system import devices
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import describe_end
from flash_runtime.system.sockets import listen
from flash_runtime.usercode.preload import preload
from flash_runtime.worker.loading import load


def check(settings: Settings) -> int:
    """Validate settings, artifact, manifest and handlers; returns the exit code. Raises the first `Fault`."""
    logs.configure(settings.log_level, settings.log_format)
    settings.warn(logging.getLogger("flash_runtime.check"))
    slots = devices.slots(
        devices.discover(settings.cuda_visible_devices, settings.nvidia_visible_devices), settings.workers
    )
    listen("PORT", settings.host, 0).close()  # the address must exist; the port may be in use
    with ExitStack() as stack:
        package = open_package(_elsewhere(settings, stack))
        code = _import_apart(settings, package, slots[0])
    if code == EXIT_OK:
        for route in package.routes:
            sys.stdout.write(f"{route.method:<7} {route.path:<40} {route.module}.{route.function}\n")
        sys.stdout.write(f"ok: routes: {len(package.routes)}, worker slots: {len(slots)}\n")
    return code


def _elsewhere(settings: Settings, stack: ExitStack) -> Settings:
    """The same settings with a temporary directory to unpack into: a server may use the other one."""
    if settings.disable_unpack or not settings.artifact_path.exists():
        return settings
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "app"
    manifest = settings.manifest_path
    if manifest.is_relative_to(settings.app_dir):
        manifest = scratch / manifest.relative_to(settings.app_dir)
    return dataclasses.replace(settings, app_dir=scratch, manifest_path=manifest)


def _import_apart(settings: Settings, package: Package, slot: Slot) -> int:
    """Import the handlers in a child, which prints what is wrong to standard error; returns the exit code."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = _import(settings, package, slot)
        os.write(writer, str(code).encode())
        os._exit(code)  # no thread that user code has left behind is waited for
    os.close(writer)
    in_time, _, _ = select.select([reader], [], [], settings.boot_timeout)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    answer = os.read(reader, 16)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if answer:
        return int(answer)
    if in_time:
        raise boot_crash_fault(describe_end(status))
    raise boot_timeout_fault(settings.boot_timeout)


def _import(settings: Settings, package: Package, slot: Slot) -> int:
    code = EXIT_SOFTWARE
    try:
        os.environ.update(slot.environ())
        os.chdir(package.app_dir)
        preload(settings.preload, package.app_dir, settings.sdk)
        load(package, settings.sdk, Threads(1))
        code = EXIT_OK
    except Fault as fault:
        code = fault.exit_code
        sys.stderr.write(f"flash-runtime: {fault}\n")
    except BaseException:  # noqa: BLE001  user code may raise anything
        sys.stderr.write(traceback.format_exc())
    sys.stdout.flush()
    sys.stderr.flush()
    return code
