"""What we use of uvicorn's server: each test names what a new release has moved."""

import asyncio
import inspect

import uvicorn

from flash_runtime.worker.uvicorn_server import UvicornServer


class Events:
    """What the server calls, in its order."""

    def __init__(self, ticks: int) -> None:
        self.seen: list[str] = []
        self._ticks = ticks

    def start(self) -> None:
        self.seen.append("start")

    def finish(self) -> None:
        self.seen.append("finish")

    async def on_tick(self) -> bool:
        self.seen.append("tick")
        return self.seen.count("tick") >= self._ticks


class Connection:
    """A connection that closes when it is asked to."""

    def __init__(self, server: UvicornServer) -> None:
        self._server = server
        self.asked = False

    def shutdown(self) -> None:
        self.asked = True
        self._server.connections.discard(self)


def server_of(events: Events) -> UvicornServer:
    return UvicornServer(events.start, events.finish, events.on_tick)


def test_uvicorns_server_has_the_methods_that_we_override_and_call():
    for name in ("startup", "on_tick", "main_loop", "shutdown"):
        assert inspect.iscoroutinefunction(getattr(uvicorn.Server, name)), name
    assert list(inspect.signature(uvicorn.Server.on_tick).parameters) == ["self", "counter"]
    assert list(inspect.signature(uvicorn.Server.shutdown).parameters) == ["self", "sockets"]


def test_it_starts_ticks_until_a_tick_says_so_and_finishes_what_is_open():
    events = Events(3)

    async def serve() -> None:
        server = server_of(events)
        await server.startup()
        assert server.started
        await server.main_loop()
        connection = Connection(server)
        server.connections.add(connection)
        await asyncio.wait_for(server.shutdown(sockets=[]), 5)
        assert connection.asked

    asyncio.run(serve())
    assert events.seen == ["start", "tick", "tick", "tick", "finish"]


def test_a_tick_keeps_the_date_header_and_no_server_header():
    async def headers() -> list[tuple[bytes, bytes]]:
        server = server_of(Events(1))
        await server.on_tick(0)
        return server.shared_state.default_headers

    assert [name for name, _ in asyncio.run(headers())] == [b"date"]
