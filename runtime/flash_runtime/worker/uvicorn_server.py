"""What we use of uvicorn's server, and all of it: its loop of ticks, the date header, and the end of
connections.

`uvicorn.Server` is made for subclasses of its own kind only: `startup`, `on_tick`, `servers` and `lifespan`
are not public API. `pyproject.toml` bounds the version, and tests/worker/test_uvicorn_server.py names what
has moved.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from flash_runtime.http.connection import Connection, ServerState


class UvicornServer(uvicorn.Server):
    """uvicorn's server without its acceptor and its HTTP protocol.

    Args:
        start: called on the loop when the server may take connections.
        finish: called on the loop when it must not take any more.
        on_every_tick: called ten times a second; true ends `main_loop`.
    """

    def __init__(
        self,
        start: Callable[[], None],
        finish: Callable[[], None],
        on_every_tick: Callable[[], Awaitable[bool]],
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
        self.servers: list[Any] = [_Finisher(finish)]
        self.started = False
        self._start = start
        self._on_every_tick = on_every_tick

    @property
    def shared_state(self) -> ServerState:
        """What all connections share."""
        return self.server_state

    @property
    def connections(self) -> set[Any]:
        """The connections that are open."""
        return self.server_state.connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections."""
        self._start()
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's own duties, and ours."""
        leave = await self._on_every_tick()
        return await super().on_tick(counter) or leave


class _Finisher:
    """Takes the place of an `asyncio.Server`, which uvicorn only closes."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self.close = finish

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    """The application that uvicorn asks for. Connections give their requests to the gate instead."""
