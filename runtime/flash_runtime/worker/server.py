"""The server: a worker's I/O loop, in a thread of its own, from ready to drained."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop

from flash_runtime.config.parsers import MEBIBYTE
from flash_runtime.dispatch.bridge import Bridge
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE
from flash_runtime.gateway.gate import Gate
from flash_runtime.http.connection import Connection
from flash_runtime.monitoring.scoreboard import Outcome, Phase, Record, Scoreboard, State
from flash_runtime.system.processes import resident_bytes
from flash_runtime.worker.acceptor import Acceptor
from flash_runtime.worker.sharing import Turn
from flash_runtime.worker.watchdog import LoopWatch

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
"""How long the last answers have to leave."""
LINGER_SECONDS = 2.0
"""How long the clients of a worker that is replaced may take to learn, by an answer, that it closes."""
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.5
"""How often connections are looked after that are silent."""
_STOPPING = "The server is stopping."
_REPLACED = "The worker that had the request is replaced."


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server needs of the settings and of its process."""

    drain_timeout: float
    connections: int
    """The most that may be open at once."""
    turn: Turn | None
    """When to take a connection; `None` for always."""
    one_at_a_time: bool
    """Whether to wait for a connection's request before the next is taken."""


class Server:
    """Serves the gate on the listeners. `exit_code` is what the process is to end with, once it has ended."""

    def __init__(
        self,
        settings: ServerSettings,
        bridge: Bridge,
        listeners: Sequence[socket.socket],
        record: Record,
        board: Scoreboard,
    ) -> None:
        self.exit_code = EXIT_OK
        self._settings = settings
        self._bridge = bridge
        self._listeners = list(listeners)
        self._record = record
        self._board = board
        self._watch = LoopWatch(bridge.ask, bridge.current)
        self._told_to_drain = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wedged_since: float | None = None
        self._next_look = 0.0
        self._parent = os.getppid()

    def start(self, gate: Gate, on_end: Callable[[], None]) -> None:
        """Start the thread; `on_end` is called in it when all is done."""
        self._gate = gate
        self._uvicorn = _Uvicorn(gate, self._start_acceptor, self._on_tick)

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

    # From any thread.

    def drain(self) -> None:
        """Stop accepting, finish what was accepted, end. Safe in a signal handler."""
        self._told_to_drain = True

    def lose_device(self, why: str) -> None:
        """The device cannot be used any more: stop accepting, and end soon."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_device_lost, why)

    # On the loop.

    def on_request(self, in_flight: int) -> None:
        """A request came."""
        self._record.set_in_flight(in_flight)

    def on_admission(self, connection: Connection) -> None:
        """The connection's request runs or waits."""
        self._acceptor.on_seen(connection)

    def on_request_end(
        self, connection: Connection, outcome: Outcome, seconds: float, in_flight: int
    ) -> None:
        """A request has ended."""
        self._record.count(outcome, seconds)
        self._record.set_in_flight(in_flight)
        self._acceptor.on_seen(connection)

    def on_room(self) -> None:
        """There is room again: it may be this worker's turn to accept."""
        self._acceptor.on_room()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._bridge.connect(self._loop, self._gate)
        await self._uvicorn.startup()
        self._record.set_resident_when_ready(-(-resident_bytes(os.getpid()) // MEBIBYTE))
        self._record.set_state(State.READY, os.getpid())
        log.info("ready", extra={"pid": os.getpid()})
        try:
            await self._uvicorn.main_loop()
            await self._drain()
        finally:
            self._gate.flush()

    def _start_acceptor(self, make_protocol: Callable[[], Connection]) -> Acceptor:
        settings = self._settings
        connections: set[Any] = self._uvicorn.server_state.connections
        self._acceptor = Acceptor(
            self._listeners,
            make_protocol,
            connections,
            settings.connections,
            settings.turn,
            self._record,
            one_at_a_time=settings.one_at_a_time,
        )
        return self._acceptor

    async def _on_tick(self) -> bool:
        """Ten times a second; true where the worker is to drain."""
        now = time.monotonic()
        self._record.set_beat(now, self._watch.tick())
        self._acceptor.publish_load()
        self._gate.on_tick(now)
        self._look_after_connections(now)
        await self._look_after_wedge(now)
        phase = self._board.phase
        if phase in (Phase.LEAVING, Phase.DRAINING):
            self._gate.keep_alive = False
        # A handler that holds the main thread also keeps it from handling SIGTERM.
        told = self._told_to_drain or self._record.told
        return told or phase is Phase.DRAINING or os.getppid() != self._parent

    def _look_after_connections(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        connections: set[Any] = self._uvicorn.server_state.connections
        for connection in tuple(connections):
            connection.look_after(now)

    async def _look_after_wedge(self, now: float) -> None:
        if self._record.is_wedged(now):
            if self._wedged_since is None:
                self._wedged_since = now
                self._board.wake()
                self._acceptor.hold()
                log.error(
                    "wedged, and replaced in %g s unless it moves: %s",
                    WEDGED_GRACE_SECONDS, self._watch.describe(),
                )  # fmt: skip
            elif now - self._wedged_since > WEDGED_GRACE_SECONDS:
                await self._abandon()
        elif self._wedged_since is not None:
            log.warning("no longer wedged: the application loop moves again")
            self._wedged_since = None
            self._acceptor.release()

    async def _abandon(self) -> None:
        """End the process with its main thread in whatever holds it."""
        self._record.report_fault(EXIT_SOFTWARE, f"It was wedged: {self._watch.describe()}")
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
        self._told_to_drain = True

    async def _drain(self) -> None:
        server, acceptor = self._uvicorn, self._acceptor
        self._gate.keep_alive = False
        acceptor.finish()
        self._record.set_state(State.DRAINING, os.getpid())
        await self._linger()
        lost = self.exit_code == DEVICE_LOST
        timeout = min(self._settings.drain_timeout, LOST_SECONDS) if lost else self._settings.drain_timeout
        try:
            await asyncio.wait_for(server.shutdown(sockets=self._listeners), timeout)
        except TimeoutError:
            await self._cut("the device is lost" if lost else "FLASH_DRAIN_TIMEOUT is over")

    async def _linger(self) -> None:
        """Let what was accepted last show its request; let kept connections end with an answer."""
        replaced = self._board.phase is Phase.RUNNING and self.exit_code == EXIT_OK
        limit = time.monotonic() + (LINGER_SECONDS if replaced else _FLUSH_SECONDS)
        while self._uvicorn.server_state.connections and time.monotonic() < limit:
            await asyncio.sleep(_POLL_SECONDS)

    async def _cut(self, why: str) -> None:
        cut = self._gate.cut_all(_REPLACED if self._board.phase is Phase.RUNNING else _STOPPING)
        log.warning("%s: requests are cut off", why, extra={"requests": cut})
        limit = time.monotonic() + _CANCEL_SECONDS
        await asyncio.sleep(_FLUSH_SECONDS)
        while self._record.running and time.monotonic() < limit:
            await asyncio.sleep(_POLL_SECONDS)
        for connection in tuple(self._uvicorn.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(_FLUSH_SECONDS)


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    """What uvicorn is told to serve: connections give their requests to the gate."""


class _Uvicorn(uvicorn.Server):
    """uvicorn's server with an acceptor of our own, and `on_every_tick` to say when it is to drain."""

    def __init__(
        self,
        gate: Gate,
        start_acceptor: Callable[[Callable[[], Connection]], Acceptor],
        on_every_tick: Callable[[], Any],
    ) -> None:
        config = uvicorn.Config(
            _no_application,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)
        self._gate = gate
        self._start_acceptor = start_acceptor
        self._on_every_tick = on_every_tick

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting."""

        def make_protocol() -> Connection:
            return Connection(self._gate, self.server_state)

        acceptor: Any = self._start_acceptor(make_protocol)  # all that is asked of it is to close
        self.servers = [acceptor]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's own duties, and ours."""
        leave = await self._on_every_tick()
        return await super().on_tick(counter) or leave
