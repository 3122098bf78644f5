"""Streaming: a generator's items as a response, each sent when it is yielded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.responses import StreamingResponse
from starlette.types import Send

from flash_runtime.handlers.results import to_json
from flash_runtime.usercode.exits import HandlerExit, escapes

MEDIA_TYPES = ("text/plain", "application/octet-stream", "application/x-ndjson")
"""Media types of streams: of text, of bytes, and of JSON values, one per line."""


_END = object()


async def stream(
    generator: Generator[Any, Any, Any] | AsyncGenerator[Any, Any],
    run_in_thread: Callable[..., Awaitable[Any]],
) -> StreamingResponse:
    """A response that sends each item when it is yielded. A plain generator is run by `run_in_thread`.

    The first item decides the media type: text/plain for `str`, application/octet-stream for bytes, otherwise
    application/x-ndjson, one JSON value per line. The response waits for it here, so that an exception before
    the first item still gets a status of its own.
    """
    items = generator if isinstance(generator, AsyncGenerator) else _in_thread(generator, run_in_thread)
    first = await anext(items, _END)
    media_type = _media_type(first)

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            if first is not _END:
                yield _chunk(first, media_type)
                async for item in items:
                    yield _chunk(item, media_type)
        except BaseException as error:
            if escapes(error):
                raise HandlerExit(error) from error
            raise

    async def close() -> None:
        if isinstance(generator, AsyncGenerator):
            await generator.aclose()
        else:
            generator.close()

    return _Stream(chunks(), close, media_type)


class _Stream(StreamingResponse):
    """Closes the generator when it ends, also if it is cancelled: the garbage collector would come too
    late."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]], media_type: str
    ) -> None:
        super().__init__(chunks, media_type=media_type)
        self._chunks = chunks
        self._close = close

    async def stream_response(self, send: Send) -> None:
        """Send the head and each chunk."""
        try:
            async with contextlib.aclosing(self._chunks):
                await super().stream_response(send)
        finally:
            await self._close()


async def _in_thread(
    generator: Generator[Any, Any, Any], run: Callable[..., Awaitable[Any]]
) -> AsyncGenerator[Any, None]:
    while (item := await run(next, generator, _END)) is not _END:
        yield item


def _media_type(first: Any) -> str:
    text, binary, json_lines = MEDIA_TYPES
    if isinstance(first, str):
        return text
    return binary if isinstance(first, bytes | bytearray | memoryview) else json_lines


def _chunk(item: Any, media_type: str) -> bytes:
    if media_type != "application/x-ndjson":
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, bytes | bytearray | memoryview):
            return bytes(item)
    return to_json(jsonable_encoder(item)) + b"\n"
