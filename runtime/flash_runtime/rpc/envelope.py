"""The envelope: a call, or its answer, in binary. Arrays and tensors are sent as they are in memory.

`docs/reference/execute.md` has the format, for other languages:

    4 bytes   `FLX1`
    4 bytes   the header's length, little-endian
    …         the header: a JSON object, UTF-8. `pickle` and `buffers` are lengths in bytes
    …         a pickle of protocol 5, whose out-of-band buffers (PEP 574) are the next
    …         each buffer, from the next multiple of 64 bytes on (from the envelope's start), zeros before it
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections.abc import Sequence
from typing import Any

import orjson

CONTENT_TYPE = b"application/vnd.flash.execute"
_MAGIC = b"FLX1"
_PREFIX = struct.Struct("<4sI")
_ALIGNMENT = 64
"""Enough for the widest vector instructions, and for the types of every array library."""
_MOST_BUFFERS = 100_000

Part = bytes | memoryview


class BadEnvelope(ValueError):
    """The bytes are not an envelope. The text says why."""


def pack(header: dict[str, Any], value: Any) -> list[Part]:
    """An envelope, in parts to send one after the other. Large buffers are not copied.

    Raises what pickle raises for a value that cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, 5, buffer_callback=buffers.append).dump(value)
    pickled = stream.getvalue()  # a view of the stream's memory would crash if a garbage collection ends both
    views = [buffer.raw() for buffer in buffers]
    described = _json({**header, "pickle": len(pickled), "buffers": [view.nbytes for view in views]})
    parts: list[Part] = [_PREFIX.pack(_MAGIC, len(described)) + described, pickled]
    end = _PREFIX.size + len(described) + len(pickled)
    for view in views:
        padding = -end % _ALIGNMENT
        if padding:
            parts.append(bytes(padding))
        parts.append(view)
        end += padding + view.nbytes
    return parts


def _json(header: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(header)
    except TypeError:  # half of a surrogate pair, as in a file name that is not UTF-8
        return orjson.dumps({name: _escaped(value) for name, value in header.items()})


def _escaped(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def unpack_header(body: memoryview) -> tuple[dict[str, Any], int]:
    """The header, and where what follows it begins. Raises `BadEnvelope`."""
    if body.nbytes < _PREFIX.size or bytes(body[:4]) != _MAGIC:
        raise BadEnvelope("it does not start with FLX1")
    _, length = _PREFIX.unpack_from(body)
    start = _PREFIX.size + length
    if start > body.nbytes:
        raise BadEnvelope("it ends before the end of its header")
    try:
        header = orjson.loads(body[_PREFIX.size : start])
    except ValueError:
        raise BadEnvelope("its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise BadEnvelope("its header is not a JSON object")
    return header, start


def unpack_value(body: memoryview, header: dict[str, Any], start: int) -> Any:
    """The value that is pickled in it. Arrays are views of `body`, and writable if that is.

    A pickle runs any code that it names: call this only for callers who may run code. Raises `BadEnvelope`,
    and anything that the pickle raises.
    """
    lengths = [header.get("pickle"), *_list(header.get("buffers"))]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in lengths):
        raise BadEnvelope("`pickle` or `buffers` in its header is not a length in bytes")
    sizes: list[int] = lengths
    end = start + sizes[0]
    pickled, buffers = body[start:end], []
    for size in sizes[1:]:
        begin = end + -end % _ALIGNMENT
        end = begin + size
        buffers.append(body[begin:end])
    if end != body.nbytes:
        raise BadEnvelope(f"it has {body.nbytes} bytes, and its header describes {end}")
    return pickle.loads(pickled, buffers=buffers)  # noqa: S301  callers check the token


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > _MOST_BUFFERS:
        raise BadEnvelope(f"`buffers` in its header is not a list of at most {_MOST_BUFFERS} lengths")
    return value


class _Pickler(pickle.Pickler):
    """Pickles tensors of torch by their memory, as arrays are. torch itself would copy it."""

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or not _lies_plainly(torch, value):
            return NotImplemented
        try:
            memory = value.detach().contiguous().view(-1).view(torch.uint8).numpy()
        except RuntimeError:  # without numpy, torch does not expose the memory
            return NotImplemented
        name = str(value.dtype).removeprefix("torch.")
        return _tensor, (pickle.PickleBuffer(memory), name, tuple(value.shape), value.requires_grad)


def _lies_plainly(torch: Any, tensor: Any) -> bool:
    """Whether its bytes describe it: a plain strided tensor on the CPU."""
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and tensor.grad_fn is None
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _tensor(buffer: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch  # user code that gets a tensor needs it anyway

    kind = getattr(torch, dtype)
    view = memoryview(buffer)
    if not view.nbytes:
        return torch.empty(shape, dtype=kind, requires_grad=requires_grad)
    # torch would write to read-only memory all the same.
    flat = torch.frombuffer(bytearray(view) if view.readonly else view, dtype=kind)
    return flat.reshape(shape).requires_grad_(requires_grad)
