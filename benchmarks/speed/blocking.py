"""`/ping` while a handler blocks the loop that runs it: one that sleeps in an `async def`, one that spins.

A ping is due every 20 ms on a connection that is kept, and on a new one each time. What it takes counts from
the moment when it was due: a server that answers nothing for seconds is not asked less often for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from typing import Any

INTERVAL_SECONDS = 0.02
HANDLER_SECONDS = 4.0
_LEAD_SECONDS = 0.3
_REPLY_SECONDS = 30.0
_PING = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
_PING_ONCE = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def measure(path: str, port: int) -> dict[str, Any]:
    """Seconds of the pings that were due while the handler ran: on the kept connection and on new ones."""
    return asyncio.run(_measure(path, port))


async def _measure(path: str, port: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {"kept": [], "new": []}
    kept = await asyncio.open_connection("127.0.0.1", port)
    turn = asyncio.Lock()

    async def on_kept(due: float) -> None:
        async with turn:  # one after the other, in the order in which they are due
            await _exchange(kept, _PING)
        taken["kept"].append(time.perf_counter() - due)

    async def on_new(due: float) -> None:
        streams = await asyncio.open_connection("127.0.0.1", port)
        await _exchange(streams, _PING_ONCE)
        taken["new"].append(time.perf_counter() - due)
        streams[1].close()

    await on_kept(time.perf_counter())
    await on_new(time.perf_counter())
    for latencies in taken.values():
        latencies.clear()
    handler = asyncio.create_task(_block(path, port))
    await asyncio.sleep(_LEAD_SECONDS)
    pings = []
    due = time.perf_counter()
    while not handler.done():
        pings += [asyncio.create_task(on_kept(due)), asyncio.create_task(on_new(due))]
        due += INTERVAL_SECONDS
        await asyncio.sleep(max(0, due - time.perf_counter()))
    await handler
    await asyncio.wait_for(asyncio.gather(*pings), _REPLY_SECONDS)
    kept[1].close()
    return {name: _quantiles(latencies) for name, latencies in taken.items()}


async def _block(path: str, port: int) -> None:
    body = json.dumps({"seconds": HANDLER_SECONDS}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    streams = await asyncio.open_connection("127.0.0.1", port)
    await _exchange(streams, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    with contextlib.suppress(OSError):
        streams[1].close()


async def _exchange(streams: Streams, request: bytes) -> None:
    """Send the request, and read its answer to the end; whatever is no 200 ends the run."""
    reader, writer = streams
    writer.write(request)
    async with asyncio.timeout(_REPLY_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
    if not head.startswith(b"http/1.1 200"):
        raise SystemExit(f"{request[:20]!r} was answered with {head[:20]!r}")


def _quantiles(latencies: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {"count": len(latencies), "p50": cuts[49], "p99": cuts[98], "max": max(latencies)}
