"""The worker: one process per slot, with two loops.

The application loop is the main thread's: it imports user code and runs the handlers, as user code expects.
The I/O loop runs in a thread of its own: it accepts, parses and answers health. A handler that blocks holds
up the other handlers of its worker, and neither health nor the network. The I/O thread starts once the
application is ready; until then the health process answers.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import uvloop
from gunicorn.workers.base import Worker

from flash_runtime.artifact.package import Package, read_again
from flash_runtime.config.settings import Settings
from flash_runtime.dispatch.admission import Admission, Kind, limits, smallest_concurrency
from flash_runtime.dispatch.bridge import Bridge
from flash_runtime.dispatch.threads import Threads
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE, Fault
from flash_runtime.gateway.access_log import AccessLog
from flash_runtime.gateway.gate import Gate, GateSettings
from flash_runtime.gateway.routing import RouteTable
from flash_runtime.handlers.fastapi_app import Application
from flash_runtime.logs import setup as logs
from flash_runtime.logs.prints import capture_prints
from flash_runtime.monitoring.scoreboard import Record, Scoreboard, State
from flash_runtime.monitoring.timeline import Timeline
from flash_runtime.monitoring.verdict import verdict
from flash_runtime.rpc.stubs import Addresses
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import (
    be_first_to_run_out_of_memory,
    die_with_parent,
    let_stop_signals_through,
    raise_descriptor_limit,
)
from flash_runtime.system.stack_dump import StackFile
from flash_runtime.worker.loading import Loaded, load, own_targets
from flash_runtime.worker.observer import RequestObserver
from flash_runtime.worker.server import Server, ServerSettings
from flash_runtime.worker.sharing import sharing_for
from flash_runtime.worker.watchdog import Watchdog

log = logging.getLogger("flash_runtime.worker")

_HELD_SECONDS = 1.0
"""How long a handler may hold the application loop once every request is answered."""
_DESCRIPTORS_KEPT = 256
"""Files that may be open besides connections: the user's, mostly."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What every worker is forked with."""

    settings: Settings
    package: Package
    board: Scoreboard
    health_listeners: tuple[socket.socket, ...]
    """The health process's own: a worker that kept them open would hold connections in a drain."""
    timeline: Timeline

    def read_again(self) -> Launch:
        """The same for the application as it is now. Raises `Fault`."""
        return replace(self, package=read_again(self.settings, self.package))


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker is forked for: its slot, and where it writes."""

    launch: Launch
    slot: Slot
    record: Record
    stack_file: StackFile

    @property
    def on_gpu(self) -> bool:
        """Whether the worker has a device."""
        return self.slot.device is not None


class FlashWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker class: from the fork to the end of the process. gunicorn gives all but the
    assignment."""

    def __init__(self, assignment: Assignment, *given: Any) -> None:
        super().__init__(*given)
        self._assignment = assignment
        self._server: Server | None = None
        """There is none while user code is imported."""

    def init_process(self) -> None:
        """Be the worker, from the fork to the end of the process."""
        record = self._assignment.record
        logs.set_slot(self._assignment.slot.number)
        code = EXIT_SOFTWARE
        try:
            self._become()
            threads = _threads_for(self._assignment)
            loaded = self._load(threads)
            record.note_imported()
            code = self._serve(loaded, threads)
        except Fault as fault:
            code = fault.exit_code
            record.report_fault(code, str(fault))
        except BaseException:  # noqa: BLE001  whatever user code raises, its traceback must reach the supervisor
            record.report_fault(code, traceback.format_exc())
        finally:
            _end(code)

    def _become(self) -> None:
        """Turn the fresh copy of the supervisor into a worker of its slot."""
        launch, record = self._assignment.launch, self._assignment.record
        die_with_parent(self.ppid, signal.SIGTERM)
        os.setpgid(0, 0)  # so that what user code starts can be found, and ended, when this has ended
        be_first_to_run_out_of_memory()
        self._init_signals()
        for listener in launch.health_listeners:
            listener.close()
        os.environ.update(self._assignment.slot.environ())
        os.chdir(launch.package.app_dir)
        capture_prints()
        record.set_state(State.BOOTING, os.getpid())
        record.note_forked()

    def _init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._assignment.stack_file.listen()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(-1)
        let_stop_signals_through()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._assignment.record.pid:
            # A process that user code has forked, with a copy of this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._server is None:
            os._exit(0)  # still importing: nothing was accepted, so nothing is lost
        else:
            self._server.drain()

    def _load(self, threads: Threads) -> Loaded:
        """Import the handlers and mount them; raises `Fault`."""
        launch = self._assignment.launch
        settings = launch.settings
        addresses = Addresses(dict(settings.peers), settings.peer_url, settings.execute_token)
        loaded = load(launch.package, settings.sdk, threads, self._on_device_lost, addresses)
        # User code may have set signals and logging up for itself while it was imported.
        self._init_signals()
        logs.restore()
        if self._assignment.slot.number == 0:  # the others have the same
            _log_routes(loaded.application)
        gc.freeze()  # what is imported stays: no collection during a request looks through it
        return loaded

    def _on_device_lost(self, why: str) -> None:
        if self._server is not None:
            self._server.lose_device(why)

    def _serve(self, loaded: Loaded, threads: Threads) -> int:
        """Serve until SIGTERM; returns the exit code."""
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        self._server = server = _build_server(self._assignment, loaded, threads, loop, self.sockets)
        ended = threading.Event()
        server.start(on_end=lambda: _stop_loop(loop, ended, server.exit_code))
        while not ended.is_set():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # From a task or a callback of user code's own, which asyncio lets through.
                log.error("user code on the application loop meant to end the process", exc_info=True)
        return server.exit_code


def _threads_for(assignment: Assignment) -> Threads:
    settings = assignment.launch.settings
    room = limits(Kind.SYNC, settings.max_concurrency, settings.max_queue, on_gpu=assignment.on_gpu)
    return Threads(room.concurrency)


def _build_server(
    assignment: Assignment,
    loaded: Loaded,
    threads: Threads,
    app_loop: asyncio.AbstractEventLoop,
    listeners: list[socket.socket],
) -> Server:
    """The worker's parts, each made of those before it."""
    settings, board, record = assignment.launch.settings, assignment.launch.board, assignment.record
    on_gpu = assignment.on_gpu
    application = loaded.application
    routes = RouteTable(
        application.targets,
        settings.request_timeout,
        application.documents,
        own_targets(loaded, settings),
    )
    concurrency = smallest_concurrency(routes.kinds, settings.max_concurrency, on_gpu=on_gpu)
    sharing = sharing_for(record, board, concurrency)
    access_log = AccessLog.make(settings.log_format, assignment.slot.number) if settings.access_log else None
    observer = RequestObserver(record, sharing, access_log)
    admission = Admission(
        settings.max_concurrency,
        settings.max_queue,
        routes.kinds,
        observer.on_admission_change,
        on_gpu=on_gpu,
    )
    io_loop = uvloop.new_event_loop()
    bridge = Bridge(application.asgi, app_loop, io_loop, threads)
    gate = Gate(
        GateSettings(
            settings.health_path,
            settings.max_body_bytes,
            settings.api_key,
            settings.execute_token,
            keep_alive=sharing.keeps_connections,
        ),
        routes,
        admission,
        bridge,
        observer,
        lambda: verdict(board),
    )
    descriptors = raise_descriptor_limit()
    max_connections = max(descriptors - _DESCRIPTORS_KEPT, descriptors // 2)
    return Server(
        ServerSettings(io_loop, tuple(listeners), max_connections, settings.drain_timeout),
        gate,
        sharing,
        Watchdog(bridge),
        record,
        board,
    )


def _log_routes(application: Application) -> None:
    """Log which routes are compiled, and why the others are not."""
    compiled = [each for each in application.targets if each.why_not_compiled is None]
    others = [each for each in application.targets if each.why_not_compiled is not None]
    log.info(
        "routes",
        extra={
            "compiled": [f"{each.method} {each.path}" for each in compiled],
            "by_fastapi": {f"{each.method} {each.path}": each.why_not_compiled for each in others},
        },
    )


def _stop_loop(loop: asyncio.AbstractEventLoop, ended: threading.Event, code: int) -> None:
    """End the application loop, and with it the process; without it if a handler holds it."""
    ended.set()
    loop.call_soon_threadsafe(loop.stop)
    time.sleep(_HELD_SECONDS)
    log.warning("a handler holds the application loop; the worker ends without it")
    os._exit(code)


def _end(code: int) -> None:
    """End the process as an interpreter does, but without waiting for threads of user code."""
    if code == EXIT_OK:
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
