"""`flash-runtime serve`: from the environment to a running supervisor, in the order in which things happen.

Health answers first; then come the artifact, the manifest and the framework.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from flash_runtime import artifact, devices, logs
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE, Fault, SettingFault
from flash_runtime.health import HealthProcess
from flash_runtime.scoreboard import Phase, Scoreboard
from flash_runtime.settings import Settings

log = logging.getLogger("flash_runtime.serve")

_BACKLOG = 2048


class _Stopped(BaseException):
    """SIGTERM or SIGINT came before the supervisor took over; no handler of `Exception` may swallow it."""


def serve(settings: Settings) -> int:
    """Serve until told to stop; returns the exit code, or ends in the supervisor's `SystemExit`."""
    logs.configure(settings.log_level, settings.log_format)
    _handle_stop(_on_stop)
    keeper: _HealthKeeper | None = None
    try:
        slots = devices.slots(
            devices.discover(settings.cuda_visible_devices, settings.nvidia_visible_devices), settings.workers
        )
        listeners = [_listen("PORT", settings.host, settings.port)]
        separate = settings.port_health != settings.port
        health_listeners = [_listen("PORT_HEALTH", settings.host, settings.port_health)] if separate else []
        board = Scoreboard(len(slots))
        keeper = _HealthKeeper(settings, board, listeners, health_listeners)
        keeper.start()
        _supervise(settings, slots, listeners, health_listeners, board, keeper)
    except Fault as fault:
        log.critical("%s", fault)
        return fault.exit_code
    except _Stopped:
        log.info("stopped before the application was started")
        return EXIT_OK
    finally:
        if keeper is not None:
            keeper.stop()


def _supervise(
    settings: Settings,
    slots: tuple[devices.Slot, ...],
    listeners: list[socket.socket],
    health_listeners: list[socket.socket],
    board: Scoreboard,
    keeper: _HealthKeeper,
) -> NoReturn:
    _warn_of_settings_without_effect(settings)
    app_dir = artifact.prepare(settings)
    # Imported here, since each costs more than all that went before: health answers meanwhile.
    with _stop_held_back():
        from flash_runtime import manifest
        from flash_runtime.supervisor import Supervisor
        from flash_runtime.worker import Launch, import_framework

        import_framework()
    found = manifest.load(settings.manifest_path, reserved=("/ping", "/execute", settings.health_path))
    manifest.check_python(found, app_dir)
    routes = manifest.routes_for(found, settings.resource_name)
    launch = Launch(settings, app_dir, routes, found.project_name, board, tuple(health_listeners))
    Supervisor(launch, slots, listeners, keeper.start, keeper.pid).run()
    raise AssertionError("the supervisor ends in SystemExit")


class _HealthKeeper:
    """Starts and stops the health process."""

    def __init__(
        self,
        settings: Settings,
        board: Scoreboard,
        listeners: list[socket.socket],
        health_listeners: list[socket.socket],
    ) -> None:
        self._board = board
        self._process = HealthProcess(board, settings.health_path, listeners, health_listeners)
        self.pid = 0

    def start(self) -> int:
        """Fork the health process; returns its pid."""
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._process.run(parent)
            except BaseException:
                log.critical("the health process failed", exc_info=True)
            finally:
                os._exit(EXIT_SOFTWARE)
        return self.pid

    def stop(self) -> None:
        """End the health process where nobody has yet."""
        if self._board.phase is Phase.STARTING:
            self._board.phase = Phase.FAILED
        try:
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _listen(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingFault(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            where=f"the environment ({name}={port})",
            remedy=_listen_remedy(name, error.errno),
        ) from error
    listener.setblocking(False)
    return listener


def _listen_remedy(name: str, number: int | None) -> str:
    if number == errno.EADDRINUSE:
        return f"end the process that has the port, or set {name} to a free one."
    if number == errno.EACCES:
        return f"ports below 1024 may need privileges here: set {name} to one above."
    return f"set {name} (and FLASH_HOST) to an address of this machine."


def _warn_of_settings_without_effect(settings: Settings) -> None:
    """Say which of the given settings this version only reads, so that nobody relies on them."""
    named = {
        "FLASH_MAX_CONCURRENCY": settings.max_concurrency,
        "FLASH_MAX_QUEUE": settings.max_queue,
        "FLASH_EXECUTE_TOKEN": settings.execute_token,
        "FLASH_PRELOAD": settings.preload,
        "FLASH_REQUEST_TIMEOUT": settings.request_timeout != 330,
    }
    for name, value in named.items():
        if value:
            log.warning("%s is set, but has no effect in this version", name)


@contextmanager
def _stop_held_back() -> Iterator[None]:
    """Obey a stop only at the block's end: an exception in the midst of an import can end in a crash."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    _handle_stop(note)
    yield
    _handle_stop(_on_stop)
    if asked:
        raise _Stopped


def _handle_stop(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _on_stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped
