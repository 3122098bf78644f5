"""The worker: one process a slot, two loops in it.

The application loop is the main thread's: it imports user code and runs the handlers, as user code expects.
The I/O loop is uvicorn's in a thread of its own: it accepts, parses and answers health, so that a handler
which blocks holds up the other handlers of its worker, and neither health nor the network. The thread starts
once the application is ready; until then the health process answers.
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

import uvloop
from gunicorn.workers.base import Worker

from flash_runtime.artifact.package import Package, read_again
from flash_runtime.config.settings import Settings
from flash_runtime.dispatch.admission import SMALL_CONCURRENCY, Admission, Kind, limits
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
from flash_runtime.monitoring.timeline import Startup
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
from flash_runtime.worker.server import Server, ServerSettings
from flash_runtime.worker.sharing import Turn

log = logging.getLogger("flash_runtime.worker")

_HELD_SECONDS = 1.0
"""How long a handler may hold the application loop once nothing is left to answer."""
_DESCRIPTORS_KEPT = 256
"""Files that may be open besides connections: the user's, mostly."""


@dataclass(frozen=True, slots=True)
class Launch:
    """All that the workers are forked with."""

    settings: Settings
    package: Package
    board: Scoreboard
    health_listeners: tuple[socket.socket, ...]
    """The health process's own: a worker that kept them open would hold connections in a drain."""
    startup: Startup

    def read_again(self) -> Launch:
        """The same for the application as it is now. Raises `Fault`."""
        return replace(self, package=read_again(self.settings, self.package))


class FlashWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker class; the supervisor sets these attributes before the fork."""

    slot: Slot
    record: Record
    stack_file: StackFile
    launch: Launch
    _server: Server | None = None
    _takes_few = False
    """Whether siblings share connections by how many requests they have, of which each takes few at once."""

    def init_process(self) -> None:
        """Be the worker, from the fork to the end of the process."""
        logs.set_slot(self.slot.number)
        code = EXIT_SOFTWARE
        try:
            self._become()
            loaded = self._load()
            self.record.note_imported()
            code = self._serve(loaded)
        except Fault as fault:
            code = fault.exit_code
            self.record.report_fault(code, str(fault))
        except BaseException:  # noqa: BLE001  whatever user code raises, its traceback must reach the supervisor
            self.record.report_fault(code, traceback.format_exc())
        finally:
            _end(code)

    def _become(self) -> None:
        """Turn the fresh copy of the supervisor into a worker of its slot."""
        launch = self.launch
        die_with_parent(self.ppid, signal.SIGTERM)
        os.setpgid(0, 0)  # so that what user code starts can be found, and ended, when this has ended
        be_first_to_run_out_of_memory()
        self._init_signals()
        for listener in launch.health_listeners:
            listener.close()
        os.environ.update(self.slot.environ())
        os.chdir(launch.package.app_dir)
        capture_prints()
        self.record.set_state(State.BOOTING, os.getpid())
        self.record.note_forked()

    def _init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.stack_file.listen()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(-1)
        let_stop_signals_through()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.record.pid:
            # A process that user code has forked, with a copy of this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._server is None:
            os._exit(0)  # still importing: nothing was accepted, so nothing is lost
        else:
            self._server.drain()

    @property
    def _on_gpu(self) -> bool:
        return self.slot.device is not None

    def _load(self) -> Loaded:
        """Import the handlers and mount them; raises `Fault`."""
        settings = self.launch.settings
        own = limits(Kind.SYNC, settings.max_concurrency, settings.max_queue, on_gpu=self._on_gpu)
        self._threads = Threads(own.concurrency)
        addresses = Addresses(dict(settings.peers), settings.peer_url, settings.execute_token)
        loaded = load(self.launch.package, settings.sdk, self._threads, self._on_device_lost, addresses)
        # User code may have set signals and logging up for itself while it was imported.
        self._init_signals()
        logs.restore()
        if self.slot.number == 0:  # the others have the same
            _log_routes(loaded.application)
        gc.freeze()  # what is imported stays: no collection during a request looks through it
        return loaded

    def _on_device_lost(self, why: str) -> None:
        if self._server is not None:
            self._server.lose_device(why)

    def _serve(self, loaded: Loaded) -> int:
        """Serve until told to stop; returns the exit code."""
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        server, gate = self._build_server(loaded, loop)
        self._server = server
        ended = threading.Event()
        server.start(gate, on_end=lambda: _stop_loop(loop, ended, server.exit_code))
        while not ended.is_set():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # From a task or a callback of user code's own, which asyncio lets through.
                log.error("user code on the application loop meant to end the process", exc_info=True)
        return server.exit_code

    def _build_server(self, loaded: Loaded, loop: asyncio.AbstractEventLoop) -> tuple[Server, Gate]:
        app = loaded.application
        settings, board = self.launch.settings, self.launch.board
        routes = RouteTable(
            app.routes,
            settings.request_timeout,
            dict(settings.route_timeouts),
            app.documents,
            own_targets(loaded, settings),
        )
        admission = Admission(
            settings.max_concurrency,
            settings.max_queue,
            routes.kinds,
            self._on_admission_change,
            on_gpu=self._on_gpu,
        )
        narrow = admission.narrowest.limits.concurrency
        self._takes_few = board.slots > 1 and narrow <= SMALL_CONCURRENCY
        turn = Turn(self.record, board, narrow if self._takes_few else 0) if board.slots > 1 else None
        descriptors = raise_descriptor_limit()
        bridge = Bridge(app.asgi, loop, self._threads)
        server = Server(
            ServerSettings(
                settings.drain_timeout,
                max(descriptors - _DESCRIPTORS_KEPT, descriptors // 2),
                turn,
                one_at_a_time=self._takes_few,
            ),
            bridge,
            self.sockets,
            self.record,
            board,
        )
        gate = Gate(
            GateSettings(
                settings.health_path, settings.max_body_bytes, settings.api_key, settings.execute_token
            ),
            routes,
            admission,
            bridge,
            lambda: verdict(board),
            server,
            AccessLog.make(settings.log_format, self.slot.number) if settings.access_log else None,
            time.monotonic,
            # A kept connection would bring its next request here, whoever is idle then.
            keep_alive=not self._takes_few,
        )
        return server, gate

    def _on_admission_change(self, admission: Admission) -> None:
        self.record.set_requests(admission.running, admission.waiting)
        if not self._takes_few:
            return
        before, load = self.record.load, admission.narrowest.running + admission.narrowest.waiting
        self.record.set_load(load)
        if load < before and self._server is not None:
            self._server.on_room()


def _log_routes(app: Application) -> None:
    """Say which routes are compiled, and why the others are not."""
    log.info(
        "routes",
        extra={
            "compiled": [str(each.route) for each in app.routes if each.compiled is not None],
            "by_fastapi": {str(each.route): each.why_not for each in app.routes if each.compiled is None},
        },
    )


def _stop_loop(loop: asyncio.AbstractEventLoop, ended: threading.Event, code: int) -> None:
    """End the application loop, and with it the process; without it where a handler holds it."""
    ended.set()
    loop.call_soon_threadsafe(loop.stop)
    time.sleep(_HELD_SECONDS)
    log.warning("a handler holds the application loop; the worker ends without it")
    os._exit(code)


def _end(code: int) -> None:
    """End the process as an interpreter does, except that no thread of user code is waited for."""
    if code == EXIT_OK:
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
