"""The health process: answers health checks while nothing else in the container can.

The supervisor forks it before anything slow happens, and it imports only the standard library. So it answers
while the artifact is unpacked, while user code is imported, and while every worker is busy. It always serves
the health port, and the application's port as long as no worker is ready.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

from flash_runtime.config.settings import Settings
from flash_runtime.errors import EXIT_SOFTWARE
from flash_runtime.monitoring import metrics
from flash_runtime.monitoring.scoreboard import Phase, Scoreboard
from flash_runtime.monitoring.verdict import Verdict, body_of, verdict
from flash_runtime.system.processes import let_stop_signals_through, stop_signals_held

log = logging.getLogger("flash_runtime.health")

_HEAD_LIMIT = 16 * 1024
_CONNECTION_SECONDS = 5.0
_CONNECTIONS = 256
_TICK_SECONDS = 1.0
_REASONS = {
    200: "OK",
    204: "No Content",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class HealthProcess:
    """Serves `/ping` over plain sockets. Make it in its own process: a fork would share its selector.

    `port` has the application's listeners, which the workers share. `port_health` has those of the health
    port, and is empty if health has no port of its own.
    """

    def __init__(
        self,
        board: Scoreboard,
        path: str,
        port: Sequence[socket.socket],
        port_health: Sequence[socket.socket],
    ) -> None:
        self._board = board
        self._path = path
        self._port = list(port)
        self._port_health = list(port_health)
        self._open: set[_Connection] = set()
        self._on_port = False
        self._selector = selectors.DefaultSelector()

    def run(self, parent: int) -> NoReturn:
        """Serve until the parent is gone or SIGTERM arrives."""
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches the whole group, and the supervisor decides
        for name in ("SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_stop_signals_through()
        self._selector.register(self._board.wake_fd, selectors.EVENT_READ, self._on_wake)
        for listener in self._port_health:
            self._selector.register(listener, selectors.EVENT_READ, self._accept_health)
        while os.getppid() == parent:
            self._share_port()
            for key, _ in self._selector.select(_TICK_SECONDS):
                key.data(key.fileobj)
            self._expire()
        os._exit(0)

    def _share_port(self) -> None:
        """Accept on the application's port only while no worker does."""
        stopping = self._board.phase in (Phase.DRAINING, Phase.FAILED)
        wanted = not stopping and not self._board.any_ready()
        if wanted != self._on_port:
            for listener in self._port:
                if wanted:
                    self._selector.register(listener, selectors.EVENT_READ, self._accept_port)
                else:
                    self._selector.unregister(listener)
            self._on_port = wanted
        if stopping:
            for listener in self._port:
                listener.close()  # or the kernel would still accept connections that are never read
            self._port = []

    def _on_wake(self, _: object) -> None:
        self._board.drain_wakes()

    def _accept_port(self, listener: socket.socket) -> None:
        if not self._board.any_ready():
            self._accept(listener, health_port=False)

    def _accept_health(self, listener: socket.socket) -> None:
        self._accept(listener, health_port=True)

    def _accept(self, listener: socket.socket, *, health_port: bool) -> None:
        if len(self._open) >= _CONNECTIONS:
            self._close(min(self._open, key=lambda connection: connection.deadline))
        try:
            peer, _ = listener.accept()
        except OSError:
            return  # a worker was faster, or the listener was closed, which `_share_port` sees next
        peer.setblocking(False)
        connection = _Connection(peer, health_port, time.monotonic() + _CONNECTION_SECONDS)
        self._open.add(connection)
        self._selector.register(peer, selectors.EVENT_READ, lambda _: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        if connection not in self._open:
            return  # it was closed to make room after the selector found it readable
        try:
            data = connection.peer.recv(65536)
            if not data:
                self._close(connection)
            elif not connection.answered and connection.take(data):
                connection.answer(self._answer(connection))
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in [connection for connection in self._open if connection.deadline < now]:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.peer)
        connection.peer.close()
        self._open.discard(connection)

    def _answer(self, connection: _Connection) -> bytes:
        method, path = connection.request()
        head = method == "HEAD"
        if connection.health_port and path == "/metrics" and method in ("GET", "HEAD"):
            return _encode(200, metrics.TYPE, metrics.render(self._board), head=head)
        found = verdict(self._board)
        probes = {self._path: found, "/ping": found} if connection.health_port else {self._path: found}
        if connection.health_port:
            ready, alive = found.status == 200, found.word != "failed"
            probes["/readyz"] = Verdict(200, "ready") if ready else Verdict(503, found.word)
            probes["/livez"] = Verdict(200, "alive") if alive else Verdict(503, found.word)
        answer = probes.get(path)
        if answer is None:
            # The health port serves nothing else. On the other port, the application is not ready yet.
            answer = Verdict(404, "not found") if connection.health_port else Verdict(503, found.word)
        elif method not in ("GET", "HEAD"):
            answer = Verdict(405, "method not allowed")
        return _encode(answer.status, "application/json", body_of(answer), head=head)


class _Connection:
    """One client of the health process: one request, one answer."""

    def __init__(self, peer: socket.socket, health_port: bool, deadline: float) -> None:
        self.peer = peer
        self.health_port = health_port
        self.deadline = deadline
        self.answered = False
        self._head = b""

    def take(self, data: bytes) -> bool:
        """Add the data. Returns whether the request's head is complete, or too long to wait for the rest."""
        self._head += data
        return b"\r\n\r\n" in self._head or b"\n\n" in self._head or len(self._head) > _HEAD_LIMIT

    def answer(self, data: bytes) -> None:
        """Send the answer, and nothing after it."""
        self.peer.send(data)
        self.answered = True
        # Half-closed: if it were closed with the body unread, a reset could destroy the answer.
        self.peer.shutdown(socket.SHUT_WR)

    def request(self) -> tuple[str, str]:
        """The method, and the path without its query."""
        words = self._head.split(b"\n", 1)[0].decode("latin-1").split()
        method, target = (words[0], words[1]) if len(words) >= 2 else ("", "")
        return method, target.split("?", 1)[0]


def _encode(status: int, content_type: str, content: bytes, *, head: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", "Connection: close", "Cache-Control: no-store"]
    if content:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    if status == 503:
        lines.append("Retry-After: 1")
    if status == 405:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else content)


class HealthKeeper:
    """Starts and stops the health process. `pid` is 0 while there is none."""

    def __init__(
        self,
        settings: Settings,
        board: Scoreboard,
        listeners: list[socket.socket],
        health_listeners: list[socket.socket],
    ) -> None:
        self._board = board
        self._path = settings.health_path
        self._listeners = listeners
        self._health_listeners = health_listeners
        self.pid = 0

    def start(self) -> None:
        """Fork the health process. Raises `OSError` if the system has no room for a process."""
        parent = os.getpid()
        with stop_signals_held():
            self.pid = os.fork()
            if self.pid == 0:
                self._run(parent)

    def _run(self, parent: int) -> NoReturn:
        try:
            HealthProcess(self._board, self._path, self._listeners, self._health_listeners).run(parent)
        except BaseException:
            log.critical("the health process failed", exc_info=True)
        finally:
            os._exit(EXIT_SOFTWARE)

    def note_end(self) -> None:
        """Note that the health process has ended."""
        self.pid = 0

    def terminate(self) -> None:
        """Have the health process end: the container has stopped."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the health process before the container has served, and wait for its end."""
        if self._board.phase is Phase.STARTING:
            self._board.phase = Phase.FAILED
        if self._send(signal.SIGKILL):  # it has nothing to finish
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass  # it was waited for already

    def _send(self, number: signal.Signals) -> bool:
        if self.pid == 0:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True
