"""The front: holds an endpoint's port while workers come and go, and passes each connection to one of them.

A Docker engine publishes a port for one container as long as that container lives. So the container with the
port is not a worker: it runs the text of this module, as `python3 -c TEXT NAME PORT`, in an image of the
worker. The front resolves NAME to the workers' addresses and asks each worker for its health. A connection
goes to the healthy worker with the fewest connections. A worker that stops gets no new connections before it
refuses them. This module imports only the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from collections import Counter

_WATCH_SECONDS = 0.25
"""How often the front checks the workers. A worker that stops serves for FLASH_DRAIN_DELAY, a second."""
_HEALTH_SECONDS = 2.0
_CONNECT_SECONDS = 0.5
"""Enough inside one engine. A worker that is gone does not refuse connections: it never answers."""
_LINGER_SECONDS = 2.0
_CHUNK_BYTES = 256 * 1024
_HEALTH = b"GET /ping HTTP/1.0\r\n\r\n"
_NO_WORKER = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 33\r\nConnection: close\r\n\r\n{"detail": "no worker is ready"}\n'
)

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """Passes connections on to the workers that have the name `upstream`, at `port`."""

    def __init__(self, upstream: str, port: int) -> None:
        self._upstream = upstream
        self._port = port
        self._healthy: list[str] = []
        self._others: list[str] = []
        self._connections: Counter[str] = Counter()

    async def watch(self) -> None:
        """Check the workers, for ever."""
        while True:
            await self.check()
            await asyncio.sleep(_WATCH_SECONDS)

    async def check(self) -> None:
        """Find the workers, and which of them are healthy."""
        addresses = await self._addresses()
        health = await asyncio.gather(*map(self._is_healthy, addresses))
        self._healthy = [address for address, healthy in zip(addresses, health, strict=True) if healthy]
        self._others = [address for address in addresses if address not in self._healthy]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client's connection, to its end."""
        try:
            for address in self._choice():
                worker = await self._connect(address)
                if worker is not None:
                    await self._join((reader, writer), worker, address)
                    return
                self._demote(address)
            writer.write(_NO_WORKER)
            await writer.drain()
        except OSError:
            pass  # the client is gone
        finally:
            writer.close()

    def _choice(self) -> list[str]:
        """The workers in the order to try. Unhealthy ones come last: they answer why they cannot serve."""
        return [
            *sorted(self._healthy, key=lambda address: (self._connections[address], random.random())),  # noqa: S311
            *self._others,
        ]

    def _demote(self, address: str) -> None:
        """Prefer the others until the next check: this worker has ended, and may be starting again."""
        if address in self._healthy:
            self._healthy.remove(address)
            self._others.append(address)

    async def _join(self, client: _Connection, worker: _Connection, address: str) -> None:
        """Pass data both ways until the worker has sent everything. Then let the client finish."""
        self._connections[address] += 1
        sending = asyncio.create_task(_pass_on(client[0], worker[1]))
        try:
            if not await _pass_on(worker[0], client[1]) and not client[0].at_eof():
                self._demote(address)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            async with asyncio.timeout(_LINGER_SECONDS):
                # Closing a socket with unread data resets it, and the client would lose the answer.
                while await client[0].read(_CHUNK_BYTES):
                    pass
        finally:
            sending.cancel()
            self._connections[address] -= 1
            worker[1].close()

    async def _addresses(self) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._upstream, self._port, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
        except socket.gaierror:
            return []
        return sorted({str(each[4][0]) for each in found})

    async def _is_healthy(self, address: str) -> bool:
        connection = await self._connect(address)
        if connection is None:
            return False
        reader, writer = connection
        try:
            writer.write(_HEALTH)
            line = await asyncio.wait_for(reader.readline(), _HEALTH_SECONDS)
            return line.split(b" ")[1:2] == [b"200"]
        except (OSError, ValueError):  # TimeoutError is an OSError
            return False
        finally:
            writer.close()

    async def _connect(self, address: str) -> _Connection | None:
        try:
            return await asyncio.wait_for(
                asyncio.open_connection(address, self._port, limit=_CHUNK_BYTES), _CONNECT_SECONDS
            )
        except OSError:
            return None


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Pass on all data and its end. Returns whether there was any. Stops if either side is gone."""
    passed = False
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            passed = True
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    return passed


async def run(upstream: str, port: int) -> None:
    """Serve for ever, at the port that the workers have, too."""
    front = Front(upstream, port)
    await front.check()
    server = await asyncio.start_server(front.serve, "0.0.0.0", port, limit=_CHUNK_BYTES, backlog=2048)  # noqa: S104
    async with server:
        await front.watch()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
