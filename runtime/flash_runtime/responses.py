"""Results to responses: JSON that every client can read, and generators streamed as they run."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple

from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, StreamingResponse

from flash_runtime.exceptions import kind_of

MEDIA_TYPES = ("text/plain", "application/octet-stream", "application/x-ndjson")
"""Of streams: of text, of bytes, and of anything else as a JSON value a line."""
_END = object()


class Reply(NamedTuple):
    """A whole response. Its parts follow each other, and large ones are not copied to be written."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    parts: Sequence[bytes | memoryview]


class HandlerExit(Exception):
    """A handler raised something that is meant to end a process, a loop or a generator: SystemExit, …"""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(f"the handler raised {kind_of(raised)}")
        self.raised = raised


def escapes(error: BaseException) -> bool:
    """Whether a handler's `error` would end more than its own request; `HandlerExit` stands in for it."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return False
    return not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration)


def ends_the_task(error: BaseException) -> bool:
    """Whether a coroutine's `error` is its task's own end, and not what user code raised or was left with."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, GeneratorExit)


class FiniteJSONResponse(JSONResponse):
    """JSON as RFC 8259 has it: NaN and the infinities, which it lacks, are `null`."""

    def render(self, content: Any) -> bytes:
        return to_json(content)


def to_json(content: Any) -> bytes:
    """`content`, made of JSON's own types, as UTF-8. Raises `TypeError` or `ValueError` for others."""
    try:
        text = _dumps(content)
    except ValueError:
        text = _dumps(_finite(content))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can carry
        return _dumps(_finite(content), ascii_only=True).encode()


async def stream(
    generator: Generator[Any, Any, Any] | AsyncGenerator[Any, Any],
    run_in_thread: Callable[..., Awaitable[Any]],
) -> StreamingResponse:
    """A response that sends each item as it is yielded; a plain generator is run by `run_in_thread`.

    The first item decides: text/plain for `str`, application/octet-stream for bytes, else
    application/x-ndjson, a JSON value a line. It is waited for here, so that an exception before it can still
    be answered with a status of its own.
    """
    items = generator if isinstance(generator, AsyncGenerator) else _in_thread(generator, run_in_thread)
    first = await anext(items, _END)
    media_type = _media_type(first)

    async def chunks() -> AsyncIterator[bytes]:
        try:
            if first is not _END:
                yield _chunk(first, media_type)
                async for item in items:
                    yield _chunk(item, media_type)
        except BaseException as error:
            if escapes(error):
                raise HandlerExit(error) from error
            raise
        finally:
            if isinstance(generator, AsyncGenerator):
                await generator.aclose()
            else:
                generator.close()

    return StreamingResponse(chunks(), media_type=media_type)


async def _in_thread(
    generator: Generator[Any, Any, Any], run: Callable[..., Awaitable[Any]]
) -> AsyncGenerator[Any, None]:
    while (item := await run(next, generator, _END)) is not _END:
        yield item


def _dumps(content: Any, *, ascii_only: bool = False) -> str:
    return json.dumps(content, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


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
