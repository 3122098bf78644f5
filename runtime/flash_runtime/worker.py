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
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
import uvloop
from gunicorn.workers.base import Worker

from flash_runtime import app as application
from flash_runtime import health, logs
from flash_runtime.bridge import Bridge
from flash_runtime.devices import Slot
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE, Fault
from flash_runtime.gate import Gate, GateSettings
from flash_runtime.package import Package
from flash_runtime.processes import be_first_to_run_out_of_memory, die_with_parent, let_stop_signals_through
from flash_runtime.protocol import BoundedProtocol
from flash_runtime.scoreboard import Phase, Scoreboard, State
from flash_runtime.settings import SECRETS, Settings

log = logging.getLogger("flash_runtime.worker")

_CANCEL_SECONDS = 1.0
"""How long a handler that is cut off has for its `finally` blocks."""
_FLUSH_SECONDS = 0.1
"""How long the last answers have to leave."""
_KEEP_ALIVE_SECONDS = 600
"""As the vendor's image has it: a balancer's pool must be the side that closes idle connections."""


@dataclass(frozen=True, slots=True)
class Launch:
    """All that the workers are forked with."""

    settings: Settings
    package: Package
    board: Scoreboard
    health_listeners: tuple[socket.socket, ...]
    """The health process's own: a worker that kept them open would hold connections in a drain."""


class FlashWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker class; the supervisor sets `slot` before the fork."""

    slot: Slot
    launch: Launch
    _server: _Server | None = None

    def init_process(self) -> None:
        """Be the worker, from the fork to the end of the process."""
        logs.set_slot(self.slot.number)
        code = EXIT_SOFTWARE
        try:
            self._become()
            app = self._load()
            self._serve(app)
            code = EXIT_OK
        except Fault as fault:
            code = fault.exit_code
            self.launch.board.report_fault(self.slot.number, code, str(fault))
        except BaseException:  # noqa: BLE001  whatever user code raises, its traceback must reach the supervisor
            self.launch.board.report_fault(self.slot.number, code, traceback.format_exc())
        finally:
            _end(code)

    def _become(self) -> None:
        """Turn the fresh copy of the supervisor into a worker of its slot."""
        launch = self.launch
        die_with_parent(self.ppid, signal.SIGTERM)
        be_first_to_run_out_of_memory()
        self._init_signals()
        for listener in launch.health_listeners:
            listener.close()
        os.environ.update(self.slot.environ())
        for secret in SECRETS:
            os.environ.pop(secret, None)  # the gate has it; a handler that shows its environment must not
        os.chdir(launch.package.app_dir)
        logs.capture_prints()
        launch.board.set_state(self.slot.number, State.BOOTING, os.getpid())

    def _init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(-1)
        let_stop_signals_through()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._server is None:
            os._exit(0)  # still importing: nothing was accepted, so nothing is lost
        self._server.drain()

    def _load(self) -> Any:
        """Import the handlers and mount them; raises `Fault`."""
        app = application.load(self.launch.package, self.launch.settings.sdk)
        # User code may have set signals and logging up for itself while it was imported.
        self._init_signals()
        logs.restore()
        return app

    def _serve(self, app: Any) -> None:
        settings, board, number = self.launch.settings, self.launch.board, self.slot.number
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        bridge = Bridge(app, loop)
        gate = Gate(
            GateSettings(
                settings.health_path, settings.max_body_bytes, settings.api_key, settings.access_log
            ),
            bridge,
            verdict=lambda: health.verdict(board),
            in_flight_changed=lambda count: board.set_in_flight(number, count),
        )
        self._server = _Server(gate, bridge, self.sockets, board, number, settings.drain_timeout)
        ended = threading.Event()
        self._server.start(on_end=lambda: _stop_loop(loop, ended))
        while not ended.is_set():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # From a task or a callback of user code's own, which asyncio lets through.
                log.error("user code on the application loop meant to end the process", exc_info=True)


class _Server:
    """The I/O loop, in a thread: uvicorn from ready to drained."""

    def __init__(
        self,
        gate: Gate,
        bridge: Bridge,
        sockets: Sequence[Any],
        board: Scoreboard,
        slot: int,
        drain_timeout: float,
    ) -> None:
        self._gate = gate
        self._bridge = bridge
        self._sockets = list(sockets)
        self._board = board
        self._slot = slot
        self._drain_timeout = drain_timeout
        self._uvicorn = _Uvicorn(gate, board)

    def start(self, on_end: Any) -> None:
        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(self._main())
            except BaseException:  # noqa: BLE001  the main thread would wait for ever
                try:
                    log.critical("the I/O loop ended; the worker exits", exc_info=True)
                finally:
                    os._exit(EXIT_SOFTWARE)
            on_end()

        threading.Thread(target=run, name="flash-io", daemon=True).start()

    def drain(self) -> None:
        """Stop accepting, finish what was accepted, end. Safe in a signal handler."""
        self._uvicorn.should_exit = True

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        self._bridge.connect(loop)
        loop.set_exception_handler(self._on_loop_error)
        server = self._uvicorn
        await server.startup(sockets=self._sockets)
        self._board.set_state(self._slot, State.READY, os.getpid())
        log.info("ready")
        await server.main_loop()
        self._board.set_state(self._slot, State.DRAINING, os.getpid())
        try:
            await asyncio.wait_for(server.shutdown(sockets=self._sockets), self._drain_timeout)
        except TimeoutError:
            log.warning(
                "FLASH_DRAIN_TIMEOUT is over: requests are cut off", extra={"requests": self._gate.in_flight}
            )
            self._bridge.cancel_all()
            await asyncio.sleep(_CANCEL_SECONDS)
            self._bridge.abandon_all()
            await asyncio.sleep(_FLUSH_SECONDS)
            for connection in tuple(server.server_state.connections):
                connection.transport.abort()  # tells the gate, too, which may still wait for a body
            await asyncio.sleep(_FLUSH_SECONDS)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The supervisor shuts the listener down when it drains, which wakes the accept of every process.
        if self._board.phase is not Phase.DRAINING or not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, told by the scoreboard to drain even where no signal can be handled."""

    def __init__(self, gate: Gate, board: Scoreboard) -> None:
        config = uvicorn.Config(
            gate,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        config.load()
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)
        self._board = board
        self._parent = os.getppid()

    async def on_tick(self, counter: int) -> bool:
        # A handler that holds the main thread also keeps it from handling SIGTERM.
        if self._board.phase is Phase.DRAINING or os.getppid() != self._parent:
            self.should_exit = True
        return await super().on_tick(counter)


def _stop_loop(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    """End the application loop, and with it the process; without it where a handler holds it."""
    ended.set()
    loop.call_soon_threadsafe(loop.stop)
    time.sleep(_CANCEL_SECONDS)
    log.warning("a handler holds the application loop; the worker ends without it")
    os._exit(EXIT_OK)


def import_framework() -> None:
    """Import what every worker needs, in the supervisor, so that all workers share its memory.

    `gc.freeze` keeps a later collection in a worker from touching, and so copying, the shared pages.
    """
    for name in ("uvicorn.lifespan.off", "uvicorn.protocols.http.httptools_impl", "fastapi.openapi.docs"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _end(code: int) -> None:
    """End the process as an interpreter does, except that no thread of user code is waited for."""
    if code == EXIT_OK:
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
