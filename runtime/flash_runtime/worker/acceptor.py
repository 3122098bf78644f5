"""The acceptor: takes connections from the listeners that a worker shares with its siblings."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Callable, Sequence

from flash_runtime.http.connection import Connection
from flash_runtime.worker.sharing import Sharing

log = logging.getLogger("flash_runtime.acceptor")

_RETRY_SECONDS = 0.002
"""How long a connection is left to the siblings before this worker looks again."""
_UNSEEN_SECONDS = 0.002
"""How long an accepted connection may take to show its request before the next one is accepted."""
_EXHAUSTED_SECONDS = 0.1
_SWEEP = 4096
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_DEFER_SECONDS = 600
"""How long the kernel keeps a silent connection to itself: as long as one may be kept alive."""

MakeProtocol = Callable[[Callable[[Connection], None] | None], Connection]
"""Makes the protocol of a new connection, which calls the function when it has shown a request."""


class Acceptor:
    """Takes connections on `loop`, as `sharing` says, and gives each to a protocol of `make_protocol`.

    `connections` are those that are open, at most `limit`: past that, the one that has been idle for longest
    makes room. Call everything on the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[socket.socket],
        sharing: Sharing,
        make_protocol: MakeProtocol,
        connections: set[Connection],
        limit: int,
    ) -> None:
        self._loop = loop
        self._listeners = list(listeners)
        self._sharing = sharing
        self._make_protocol = make_protocol
        self._connections = connections
        self._limit = limit
        self._tasks: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._unseen: Connection | None = None
        """The connection that was accepted last, while its request is awaited."""
        self._held = False
        self._warned = False

    def start(self) -> None:
        """Take connections from now on."""
        if self._sharing.awaits_request and sys.platform == "linux":
            for listener in self._listeners:
                # A connection is then accepted with its request, by a worker that is free at that moment, and
                # not when a balancer opened it for later (tcp(7)).
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_SECONDS)
        self._listen()

    def publish_load(self) -> None:
        """Tell the siblings how many connections there are."""
        self._sharing.on_connections(len(self._connections) + len(self._tasks))

    def hold(self) -> None:
        """Take nothing until `release`."""
        self._held = True
        self._stop_pause()
        self._ignore()

    def release(self) -> None:
        """Take connections again."""
        self._held = False
        self._listen()

    def finish(self) -> None:
        """Take the connections that wait already, and then no more."""
        self._stop_pause()
        self._ignore()
        for listener in () if self._held else self._listeners:
            for _ in range(_SWEEP):
                if not self._accept(listener):
                    break
        self._listeners = []

    def _ignore(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def _listen(self) -> None:
        if self._held:
            return
        for listener in self._listeners:
            self._loop.add_reader(listener, self._on_readable, listener)

    def _on_readable(self, listener: socket.socket) -> None:
        # One at each turn of the loop: a worker that took all that came would leave its siblings none.
        if len(self._connections) >= self._limit and not self._make_room():
            self._wait(_EXHAUSTED_SECONDS)
        elif not self._sharing.is_my_turn():
            self._wait(_RETRY_SECONDS)
        elif self._accept(listener) and self._sharing.awaits_request:
            self._wait(_UNSEEN_SECONDS)
        else:
            self.publish_load()

    def _accept(self, listener: socket.socket) -> bool:
        """Take one connection; false if there is none."""
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            return False  # a sibling was faster
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._report_exhaustion(error)
                self._make_room()
                self._wait(_EXHAUSTED_SECONDS)
            elif error.errno != errno.ECONNABORTED:
                self._loop.remove_reader(listener)  # it was shut down: the container stops
            return False
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._sharing.awaits_request:
            protocol = self._unseen = self._make_protocol(self._on_seen)
        else:
            protocol = self._make_protocol(None)
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, peer))
        self._tasks.add(task)
        task.add_done_callback(self._on_connected)
        return True

    def _on_connected(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.debug("a connection was gone at once", exc_info=task.exception())

    def _on_seen(self, connection: Connection) -> None:
        """The connection has shown a request, which the worker's load counts."""
        if connection is self._unseen:
            self._resume()

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; false if every one is in use."""
        idle = [each for each in self._connections if each.is_idle]
        if not idle:
            return False
        min(idle, key=lambda each: each.quiet_since).transport.abort()
        return True

    def _report_exhaustion(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.error(
                "no connection can be accepted: %s; connections open: %d",
                error.strerror, len(self._connections),
            )  # fmt: skip

    def _wait(self, seconds: float) -> None:
        self._ignore()
        self._stop_pause()
        self._pause = self._loop.call_later(seconds, self._resume)
        self._sharing.call_when_free(self._on_free)

    def _on_free(self) -> None:
        if self._pause is not None and self._unseen is None:
            self._resume()

    def _resume(self) -> None:
        self._unseen = None
        self._stop_pause()
        self._listen()

    def _stop_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
