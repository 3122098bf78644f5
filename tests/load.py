"""Load for tests: clients on kept-alive connections of their own, with a record of every request.

Each client knows which worker its connection leads to, so that a failed request can be told apart by where it
was.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class Sent:
    """One request: its status, 0 where the connection broke; times are `time.monotonic()`."""

    status: int
    worker: int | None
    """The pid of the worker that the connection led to; `None` on a connection's first request."""
    started: float
    ended: float
    reconnected: bool
    """Whether it was the first on its connection."""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass
class Load:
    """What the clients have sent so far."""

    port: int
    clients: int
    path: str
    pause: float
    sent: list[Sent] = field(default_factory=list)
    refused: int = 0
    """Connections that were not accepted: nothing was sent on them."""
    _over: threading.Event = field(default_factory=threading.Event)

    def by_status(self) -> collections.Counter[int]:
        return collections.Counter(each.status for each in self.sent)

    def failed(self) -> list[Sent]:
        """Requests without an answer."""
        return [each for each in self.sent if each.status == 0]

    def answered(self) -> list[Sent]:
        return [each for each in self.sent if each.status == 200]

    def summary(self) -> str:
        counts = self.by_status()
        others = sum(counts.values()) - counts[200] - counts[503] - counts[0]
        return (
            f"sent {len(self.sent)}, answered {counts[200]}, shed {counts[503]}, other {others}, "
            f"failed {counts[0]}, not accepted {self.refused}"
        )

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    def stop(self) -> None:
        self._over.set()

    async def _client(self) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        worker: int | None = None
        while not self._over.is_set():
            reconnected = connection is None
            if connection is None:
                worker = None
                try:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    self.refused += 1
                    await asyncio.sleep(0.05)
                    continue
            started = time.monotonic()
            status, answered_by, keep = await self._ask(*connection)
            self.sent.append(Sent(status, worker, started, time.monotonic(), reconnected))
            worker = answered_by or worker
            if not keep:
                connection[1].close()
                connection = None
            if status != 200:
                await asyncio.sleep(0.02)
            if self.pause:
                await asyncio.sleep(self.pause)
        if connection is not None:
            connection[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, int | None, bool]:
        """The status, the pid that the answer names, and whether the connection is kept."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                writer.write(f"GET {self.path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split("\r\n")[0])
                body = await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError):
            return 0, None, False
        status = int(head.split()[1])
        pid = json.loads(body).get("pid") if status == 200 else None
        return status, pid, "connection: close" not in head


@contextlib.contextmanager
def load(port: int, clients: int = 8, path: str = "/pid", pause: float = 0.0) -> Iterator[Load]:
    """Clients that ask for `path`, which answers `{"pid": …}`, until the block ends."""
    running = Load(port, clients, path, pause)
    thread = threading.Thread(target=lambda: asyncio.run(running.run()))
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join(_REQUEST_SECONDS + 5)
        assert not thread.is_alive(), "the clients end"
