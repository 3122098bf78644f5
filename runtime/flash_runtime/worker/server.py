"""The server: a worker's I/O loop, in a thread of its own, from ready to drained."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flash_runtime.config.parsers import MEBIBYTE
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE
from flash_runtime.gateway.gate import Gate
from flash_runtime.http.connection import Connection
from flash_runtime.monitoring.scoreboard import Phase, Record, Scoreboard, State
from flash_runtime.system.processes import resident_bytes
from flash_runtime.worker.acceptor import Acceptor
from flash_runtime.worker.sharing import Sharing
from flash_runtime.worker.uvicorn_server import UvicornServer
from flash_runtime.worker.watchdog import Watchdog

log = logging.getLogger("flash_runtime.server")

DEVICE_LOST = 75
"""The exit status of a worker that can no longer use its device; between worker and supervisor only."""
WEDGED_GRACE_SECONDS = 5.0
"""How long a wedged worker has to move again before it is replaced."""
LOST_SECONDS = 5.0
"""How long the requests of a worker without its device have to fail by themselves."""
_CANCEL_SECONDS = 1.0
"""How long a handler that is cut off has for its `finally` blocks."""
_FLUSH_SECONDS = 0.1
"""How long the last responses have to leave."""
LINGER_SECONDS = 2.0
"""How long the clients of a worker that is replaced may take to learn, by a response, that it closes."""
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.5
"""How often silent connections are looked after."""
_STOPPING = "The server is stopping."
_REPLACED = "The worker that had the request is replaced."


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server is given by the settings and by its process."""

    loop: asyncio.AbstractEventLoop
    """The I/O loop: the server's thread runs it."""
    listeners: tuple[socket.socket, ...]
    max_connections: int
    """The most that may be open at once."""
    drain_timeout: float


class Server:
    """Serves the gate on the listeners. `exit_code` is what the process is to end with, once it has ended."""

    def __init__(
        self,
        settings: ServerSettings,
        gate: Gate,
        sharing: Sharing,
        watchdog: Watchdog,
        record: Record,
        board: Scoreboard,
    ) -> None:
        self.exit_code = EXIT_OK
        self._settings = settings
        self._gate = gate
        self._watchdog = watchdog
        self._record = record
        self._board = board
        self._uvicorn = UvicornServer(self._start_accepting, self._finish_accepting, self._on_tick)
        self._acceptor = Acceptor(
            settings.loop,
            settings.listeners,
            sharing,
            self._make_connection,
            self._uvicorn.connections,
            settings.max_connections,
        )
        self._drain_requested = False
        self._wedged_since: float | None = None
        self._next_look = 0.0
        self._parent = os.getppid()

    def start(self, on_end: Callable[[], None]) -> None:
        """Start the thread; `on_end` is called in it when all is done."""

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=lambda: self._settings.loop) as runner:
                    runner.run(self._main())
            except BaseException:  # noqa: BLE001  the main thread would wait for ever
                try:
                    log.critical("the I/O loop ended; the worker exits", exc_info=True)
                finally:
                    os._exit(EXIT_SOFTWARE)
            on_end()

        threading.Thread(target=run, name="flash-io", daemon=True).start()

    # From any thread.

    def drain(self) -> None:
        """Stop accepting, finish what was accepted, end. Safe in a signal handler."""
        self._drain_requested = True

    def lose_device(self, why: str) -> None:
        """The device cannot be used any more: stop accepting, and end soon."""
        self._settings.loop.call_soon_threadsafe(self._on_device_lost, why)

    # On the loop.

    async def _main(self) -> None:
        await self._uvicorn.startup()
        self._record.set_resident_when_ready(-(-resident_bytes(os.getpid()) // MEBIBYTE))
        self._record.set_state(State.READY, os.getpid())
        log.info("ready", extra={"pid": os.getpid()})
        try:
            await self._uvicorn.main_loop()
            await self._drain()
        finally:
            self._gate.flush()

    def _start_accepting(self) -> None:
        self._acceptor.start()

    def _finish_accepting(self) -> None:
        self._acceptor.finish()

    def _make_connection(self, seen: Callable[[Connection], None] | None) -> Connection:
        return Connection(self._gate, self._uvicorn.shared_state, seen)

    async def _on_tick(self) -> bool:
        """Ten times a second; true if the worker is to drain."""
        now = time.monotonic()
        self._record.set_beat(now, self._watchdog.tick())
        self._acceptor.publish_load()
        self._gate.on_tick(now)
        self._look_after_connections(now)
        await self._look_after_wedge(now)
        phase = self._board.phase
        if phase in (Phase.LEAVING, Phase.DRAINING):
            self._gate.stop_keeping_connections()
        # A handler that holds the main thread also keeps it from handling SIGTERM.
        requested = self._drain_requested or self._record.drain_requested
        return requested or phase is Phase.DRAINING or os.getppid() != self._parent

    def _look_after_connections(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        for connection in tuple(self._uvicorn.connections):
            connection.look_after(now)

    async def _look_after_wedge(self, now: float) -> None:
        if self._record.is_wedged(now):
            if self._wedged_since is None:
                self._wedged_since = now
                self._board.wake()
                self._acceptor.hold()
                log.error(
                    "wedged, and replaced in %g s unless it moves: %s",
                    WEDGED_GRACE_SECONDS, self._watchdog.describe(),
                )  # fmt: skip
            elif now - self._wedged_since > WEDGED_GRACE_SECONDS:
                await self._abandon()
        elif self._wedged_since is not None:
            log.warning("no longer wedged: the application loop moves again")
            self._wedged_since = None
            self._acceptor.release()

    async def _abandon(self) -> None:
        """End the process with its main thread in whatever holds it."""
        self._record.report_fault(EXIT_SOFTWARE, f"It was wedged: {self._watchdog.describe()}")
        self._gate.cut_all(_REPLACED)
        await asyncio.sleep(_FLUSH_SECONDS)
        os._exit(EXIT_SOFTWARE)

    def _on_device_lost(self, why: str) -> None:
        if self.exit_code == DEVICE_LOST:
            return
        self.exit_code = DEVICE_LOST
        self._record.report_fault(DEVICE_LOST, f"No further request can use the device: {why}")
        self._record.set_state(State.DRAINING, os.getpid())
        log.error("the device is lost; the worker is replaced")
        self._acceptor.hold()  # the next request is a sibling's, or the replacement's
        self._drain_requested = True

    async def _drain(self) -> None:
        self._gate.stop_keeping_connections()
        self._acceptor.finish()
        self._record.set_state(State.DRAINING, os.getpid())
        await self._linger()
        lost = self.exit_code == DEVICE_LOST
        timeout = min(self._settings.drain_timeout, LOST_SECONDS) if lost else self._settings.drain_timeout
        try:
            await asyncio.wait_for(self._uvicorn.shutdown(sockets=list(self._settings.listeners)), timeout)
        except TimeoutError:
            await self._cut("the device is lost" if lost else "FLASH_DRAIN_TIMEOUT is over")

    async def _linger(self) -> None:
        """Let what was accepted last show its request; let kept connections end with a response."""
        replaced = self._board.phase is Phase.RUNNING and self.exit_code == EXIT_OK
        limit = time.monotonic() + (LINGER_SECONDS if replaced else _FLUSH_SECONDS)
        while self._uvicorn.connections and time.monotonic() < limit:
            await asyncio.sleep(_POLL_SECONDS)

    async def _cut(self, why: str) -> None:
        cut = self._gate.cut_all(_REPLACED if self._board.phase is Phase.RUNNING else _STOPPING)
        log.warning("%s: requests are cut off", why, extra={"requests": cut})
        limit = time.monotonic() + _CANCEL_SECONDS
        await asyncio.sleep(_FLUSH_SECONDS)
        while self._record.running and time.monotonic() < limit:
            await asyncio.sleep(_POLL_SECONDS)
        for connection in tuple(self._uvicorn.connections):
            connection.transport.abort()
        await asyncio.sleep(_FLUSH_SECONDS)
