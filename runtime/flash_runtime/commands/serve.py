"""`flash-runtime serve`: from the environment to a running supervisor, in the order in which things happen.

Health answers first. Then come the framework, the artifact and its manifest, and what FLASH_PRELOAD names.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flash_runtime.config.settings import SECRETS, Settings, log_format
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE, Fault
from flash_runtime.logs import setup as logs
from flash_runtime.logs.prints import capture_prints
from flash_runtime.monitoring.health_process import HealthKeeper
from flash_runtime.monitoring.scoreboard import Scoreboard
from flash_runtime.monitoring.timeline import Timeline
from flash_runtime.system import devices
from flash_runtime.system.processes import STOP_SIGNALS
from flash_runtime.system.sockets import listen

log = logging.getLogger("flash_runtime.serve")


_STOPPED_EARLY = "stopped before the application was started"


class _Stopped(BaseException):
    """A stop signal came before the supervisor took over; no handler of `Exception` may swallow it."""


def serve(environ: Mapping[str, str], began: float) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code, or ends in the arbiter's `SystemExit`.

    `began` is when the program was entered (`time.monotonic()`). Every fault is logged, bad settings too.
    """
    timeline = Timeline(began)
    timeline.end("library")
    try:
        settings = Settings.from_environ(environ)
    except Fault as fault:
        logs.configure("INFO", log_format(environ))
        log.critical("%s", fault)
        return fault.exit_code
    logs.configure(settings.log_level, settings.log_format)
    timeline.end("settings")
    _handle_stop(_on_stop)
    health: HealthKeeper | None = None
    try:
        slots = devices.slots(
            devices.discover(settings.cuda_visible_devices, settings.nvidia_visible_devices), settings.workers
        )
        listeners = [listen("PORT", settings.host, settings.port)]
        separate = settings.port_health != settings.port
        health_listeners = [listen("PORT_HEALTH", settings.host, settings.port_health)] if separate else []
        board = Scoreboard(len(slots), settings.stall_timeout)
        health = HealthKeeper(settings, board, listeners, health_listeners)
        health.start()
        timeline.end("health")
        _supervise(settings, slots, listeners, health_listeners, board, health, timeline)
    except Fault as fault:
        log.critical("%s", fault)
        return fault.exit_code
    except _Stopped:
        log.info(_STOPPED_EARLY)
        return EXIT_OK
    finally:
        if health is not None:
            health.kill()


def _supervise(
    settings: Settings,
    slots: tuple[devices.Slot, ...],
    listeners: list[socket.socket],
    health_listeners: list[socket.socket],
    board: Scoreboard,
    health: HealthKeeper,
    timeline: Timeline,
) -> NoReturn:
    settings.warn(log)
    for secret in SECRETS:
        os.environ.pop(secret, None)  # the gate has it; a handler that shows its environment must not
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time
    # Imported here, since each costs more than all that went before: health answers meanwhile.
    with _stop_held_back():
        from flash_runtime.artifact.package import open_package
        from flash_runtime.supervisor.arbiter import FlashArbiter
        from flash_runtime.worker.worker import Launch

        import_framework()
    timeline.end("framework")
    package = open_package(settings)
    timeline.end("unpack")
    if settings.preload:
        _preload(settings, package.app_dir, health)
    timeline.end("preload")
    gc.freeze()  # so that a collection in a worker does not touch, and so copy, the pages that are shared
    gc.enable()
    launch = Launch(settings, package, board, tuple(health_listeners), timeline)
    try:
        FlashArbiter(launch, slots, listeners, health).run()
    except SystemExit as end:
        if not settings.preload:
            raise
        _end(health, end.code if isinstance(end.code, int) else EXIT_SOFTWARE)
    raise AssertionError("the arbiter ends in SystemExit")


_FRAMEWORK = (
    "uvicorn.lifespan.off",
    "fastapi.openapi.docs",
    "pydantic.v1",  # FastAPI imports it at the first route, to refuse handlers that take its models
)


def import_framework() -> None:
    """Import other packages that every worker needs, in the supervisor: the workers share their memory."""
    for name in _FRAMEWORK:
        importlib.import_module(name)


def _preload(settings: Settings, app_dir: Path, health: HealthKeeper) -> None:
    """Import what FLASH_PRELOAD names. A fault, a stop and the boot timeout end the process.

    None of these is an exception in the middle of an import, which user code could catch.
    """
    from flash_runtime.usercode.preload import late_fault, preload

    parent = os.getpid()

    def on_stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != parent:
            # A process that a module has forked, with a copy of this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        log.info(_STOPPED_EARLY)
        _end(health, EXIT_OK)

    def on_late(number: int, frame: FrameType | None) -> None:
        log.critical("%s", late_fault(settings.preload, settings.boot_timeout, frame))
        _end(health, EXIT_SOFTWARE)

    _handle_stop(on_stop)
    signal.signal(signal.SIGALRM, on_late)
    signal.setitimer(signal.ITIMER_REAL, settings.boot_timeout)
    capture_prints()
    with chdir(app_dir):
        try:
            preload(settings.preload, app_dir, settings.sdk)
        except Fault as fault:
            log.critical("%s", fault)
            _end(health, fault.exit_code)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _handle_stop(_on_stop)
    # The modules may have set signals and logging up for themselves.
    logs.restore()
    gc.collect()


def _end(health: HealthKeeper, code: int) -> NoReturn:
    """End the process at once, without waiting for threads that a preloaded module has left behind."""
    health.kill()
    logging.shutdown()
    os._exit(code)


@contextmanager
def _stop_held_back() -> Iterator[None]:
    """Obey a stop only at the block's end: an exception in the middle of an import can crash the process."""
    requested = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        requested = True

    _handle_stop(note)
    yield
    _handle_stop(_on_stop)
    if requested:
        raise _Stopped


def _handle_stop(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, handler)


def _on_stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped
