"""Streams: a generator is closed as soon as its client has left, wherever the stream stands then."""

import asyncio
import gc

import pytest

from flash_runtime.dispatch.threads import Threads
from flash_runtime.handlers.streaming import stream

closed: list[str] = []


def plain():
    try:
        while True:
            yield "x"
    finally:
        closed.append("plain")


async def asynchronous():
    try:
        while True:
            yield "x"
    finally:
        closed.append("asynchronous")


@pytest.mark.parametrize("make", [plain, asynchronous])
@pytest.mark.parametrize("messages", [0, 1, 3])
def test_a_stream_that_is_cancelled_while_its_client_takes_nothing_closes_the_generator(make, messages):
    async def main() -> None:
        response = await stream(make(), Threads(1).run)
        sent = []
        stands_still = asyncio.Event()

        async def send(message):
            if len(sent) == messages:
                stands_still.set()
                await asyncio.Event().wait()
            sent.append(message)

        task = asyncio.create_task(response.stream_response(send))
        await stands_still.wait()
        assert closed == []
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [make.__name__]

    closed.clear()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
