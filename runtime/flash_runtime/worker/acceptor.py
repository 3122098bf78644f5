"""The acceptor: which connections a worker takes from the listeners that it shares with its siblings.

A worker with room for many requests takes a connection unless a sibling has fewer. One with room for few
takes one at a time, waits until its request is seen, and while it is busy leaves new connections to siblings
that are less so: a request must not wait behind a busy worker while another is idle. The scoreboard tells
them of each other.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Callable, Sequence

from flash_runtime.http.connection import Connection
from flash_runtime.monitoring.scoreboard import Record
from flash_runtime.worker.sharing import Turn

log = logging.getLogger("flash_runtime.acceptor")

_RETRY_SECONDS = 0.002
"""How long a connection is left to the siblings before this worker looks again."""
_UNSEEN_SECONDS = 0.002
"""How long an accepted connection may take to show its request before the next one is accepted."""
_EXHAUSTED_SECONDS = 0.1
_SWEEP = 4096
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_DEFER_SECONDS = 600
"""How long the kernel keeps a connection to itself that says nothing: as long as one may be kept alive."""


class Acceptor:
    """Takes connections on the running loop and gives each to a protocol of `make_protocol`.

    `turn` is `None` for a worker that takes all. `connections` are those that are open, at most `limit`: past
    that, the one that has been idle for longest makes room. They are the `record`'s load, unless connections
    are taken `one_at_a_time`: then its requests are, and somebody else writes it.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make_protocol: Callable[[], Connection],
        connections: set[Connection],
        limit: int,
        turn: Turn | None,
        record: Record,
        *,
        one_at_a_time: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners = list(listeners)
        self._make_protocol = make_protocol
        self._connections = connections
        self._limit = limit
        self._turn = turn
        self._record = record
        self._one_at_a_time = one_at_a_time
        self._tasks: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._unseen: Connection | None = None
        """The connection that was accepted last, while its request is awaited."""
        self._held = False
        self._warned = False
        if one_at_a_time and sys.platform == "linux":
            for listener in self._listeners:
                # A connection is then accepted with its request, by a worker that is free at that moment, and
                # not when a balancer opened it for later (tcp(7)).
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_SECONDS)
        self._listen()

    def on_seen(self, connection: Connection) -> None:
        """The connection has shown its request, and the worker's load counts it."""
        if connection is self._unseen:
            self._resume()

    def publish_load(self) -> None:
        """Tell the siblings how many connections there are, where that is what they go by."""
        if not self._one_at_a_time:
            self._record.set_load(len(self._connections) + len(self._tasks))

    def on_room(self) -> None:
        """The worker's load is less: it may be its turn."""
        if self._pause is not None and self._unseen is None:
            self._resume()

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
        """Take what has come already, and then no more."""
        self._stop_pause()
        self._ignore()
        for listener in () if self._held else self._listeners:
            for _ in range(_SWEEP):
                if not self._accept(listener):
                    break
        self._listeners = []

    def close(self) -> None:
        """What `uvicorn.Server` asks of its servers."""
        self.finish()

    async def wait_closed(self) -> None:
        """Likewise: nothing is left to wait for."""

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
        elif self._turn is not None and not self._turn():
            self._wait(_RETRY_SECONDS)
        elif self._accept(listener) and self._one_at_a_time:
            self._wait(_UNSEEN_SECONDS)
        else:
            self.publish_load()

    def _accept(self, listener: socket.socket) -> bool:
        """Take one connection; false where none is there."""
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
        protocol = self._make_protocol()
        self._unseen = protocol if self._one_at_a_time else None
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, peer))
        self._tasks.add(task)
        task.add_done_callback(self._on_connected)
        return True

    def _on_connected(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.debug("a connection was gone at once", exc_info=task.exception())

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; false where every one is in use."""
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

    def _resume(self) -> None:
        self._unseen = None
        self._stop_pause()
        self._listen()

    def _stop_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
