"""Holds an endpoint's port while its workers come and go: passes each connection on to one of them.

On a Docker engine a published port belongs to one container for its whole life, so the container that has the
port is none of the workers: this text, run as `python3 -c TEXT NAME PORT` in an image of the worker. It asks
the network whom NAME stands for, and each of those for its health; a connection goes to the healthy worker
that has the fewest, and one that stops is left before it refuses. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from collections import Counter

_WATCH_SECONDS = 0.25
"""From one look at the workers to the next: a worker that stops serves on for FLASH_DRAIN_DELAY, a second."""
_HEALTH_SECONDS = 2.0
_CONNECT_SECONDS = 0.5
"""On the network of one engine; a worker that is gone does not refuse, it is silent."""
_LINGER_SECONDS = 2.0
_CHUNK_BYTES = 256 * 1024
_HEALTH = b"GET /ping HTTP/1.0\r\n\r\n"
_NOBODY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 33\r\nConnection: close\r\n\r\n{"detail": "no worker is ready"}\n'
)

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """Passes connections on to whoever has the name `upstream`, at `port`."""

    def __init__(self, upstream: str, port: int) -> None:
        self._upstream = upstream
        self._port = port
        self._healthy: list[str] = []
        self._others: list[str] = []
        self._connections: Counter[str] = Counter()

    async def watch(self) -> None:
        """Look at the workers, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_WATCH_SECONDS)

    async def look(self) -> None:
        """Who is there, and is healthy."""
        addresses = await self._addresses()
        health = await asyncio.gather(*map(self._is_healthy, addresses))
        self._healthy = [address for address, healthy in zip(addresses, health, strict=True) if healthy]
        self._others = [address for address in addresses if address not in self._healthy]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, to its end."""
        try:
            for address in self._choice():
                worker = await self._connect(address)
                if worker is not None:
                    await self._join((reader, writer), worker, address)
                    return
                self._doubt(address)
            writer.write(_NOBODY)
            await writer.drain()
        except OSError:
            pass  # the client is gone
        finally:
            writer.close()

    def _choice(self) -> list[str]:
        """The workers in the order in which they are tried; an unhealthy one says itself what it lacks."""
        return [
            *sorted(self._healthy, key=lambda address: (self._connections[address], random.random())),  # noqa: S311
            *self._others,
        ]

    def _doubt(self, address: str) -> None:
        """Prefer the others until the next look: it has ended, and may be starting again by now."""
        if address in self._healthy:
            self._healthy.remove(address)
            self._others.append(address)

    async def _join(self, client: _Connection, worker: _Connection, address: str) -> None:
        """Until the worker has said all, as the one who answers; then the client may end what it sends."""
        self._connections[address] += 1
        sending = asyncio.create_task(_pass_on(client[0], worker[1]))
        try:
            if not await _pass_on(worker[0], client[1]) and not client[0].at_eof():
                self._doubt(address)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            async with asyncio.timeout(_LINGER_SECONDS):
                # Closed with something unread, it would be reset, and the answer be lost with it.
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
    """All that comes, and its end; returns whether there was any. Where one is gone, no more is passed on."""
    passed = False
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            passed = True
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    return passed


async def run(upstream: str, port: int) -> None:
    """Serve for ever, at the workers' port."""
    front = Front(upstream, port)
    await front.look()
    server = await asyncio.start_server(front.serve, "0.0.0.0", port, limit=_CHUNK_BYTES, backlog=2048)  # noqa: S104
    async with server:
        await front.watch()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
