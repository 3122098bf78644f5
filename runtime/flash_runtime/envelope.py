"""The envelope: a call, or its answer, in binary: arrays and tensors cross as they lie in memory.

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
"""What the widest vector instructions like, and every array library's types ask for at most."""
_MOST_BUFFERS = 100_000

Part = bytes | memoryview


class BadEnvelope(ValueError):
    """These bytes are no envelope: the text says why."""


def pack(header: dict[str, Any], value: Any) -> list[Part]:
    """An envelope, in parts that are to follow each other; large buffers are not copied.

    Raises what pickle raises for a value that cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, 5, buffer_callback=buffers.append).dump(value)
    pickled = stream.getvalue()  # a view of the stream's memory would crash where a collection ends both
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
    except TypeError:  # half of a surrogate pair, as in the name of a file that is no UTF-8
        return orjson.dumps({name: _escaped(value) for name, value in header.items()})


def _escaped(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def unpack_header(body: memoryview) -> tuple[dict[str, Any], int]:
    """The header, and where what follows it begins. Raises `BadEnvelope`."""
    if body.nbytes < _PREFIX.size or bytes(body[:4]) != _MAGIC:
        raise BadEnvelope("it does not begin as an envelope does (FLX1)")
    _, length = _PREFIX.unpack_from(body)
    start = _PREFIX.size + length
    if start > body.nbytes:
        raise BadEnvelope("it ends within its header")
    try:
        header = orjson.loads(body[_PREFIX.size : start])
    except ValueError:
        raise BadEnvelope("its header is no JSON") from None
    if not isinstance(header, dict):
        raise BadEnvelope("its header is no JSON object")
    return header, start


def unpack_value(body: memoryview, header: dict[str, Any], start: int) -> Any:
    """What is pickled in it; arrays are views of `body`, and writable where that is.

    A pickle runs whatever code it names: only call this for who may run code. Raises `BadEnvelope`, and what
    the pickle raises.
    """
    lengths = [header.get("pickle"), *_list(header.get("buffers"))]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in lengths):
        raise BadEnvelope("`pickle` and `buffers` in its header are no lengths")
    sizes: list[int] = lengths
    end = start + sizes[0]
    pickled, buffers = body[start:end], []
    for size in sizes[1:]:
        begin = end + -end % _ALIGNMENT
        end = begin + size
        buffers.append(body[begin:end])
    if end != body.nbytes:
        raise BadEnvelope(f"it is {body.nbytes} bytes long, and its header describes {end}")
    return pickle.loads(pickled, buffers=buffers)  # noqa: S301  its callers see to who may


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > _MOST_BUFFERS:
        raise BadEnvelope("`buffers` in its header is no list of lengths")
    return value


class _Pickler(pickle.Pickler):
    """Pickles torch's tensors as arrays are: by their memory, which torch itself would copy."""

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or not _lies_plainly(torch, value):
            return NotImplemented
        try:
            memory = value.detach().contiguous().view(-1).view(torch.uint8).numpy()
        except RuntimeError:  # torch without numpy shows its memory to nobody
            return NotImplemented
        name = str(value.dtype).removeprefix("torch.")
        return _tensor, (pickle.PickleBuffer(memory), name, tuple(value.shape), value.requires_grad)


def _lies_plainly(torch: Any, tensor: Any) -> bool:
    """Whether it is a strided one on the CPU that its bytes describe."""
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and tensor.grad_fn is None
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _tensor(buffer: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch  # whoever has one has imported it, or is about to

    kind = getattr(torch, dtype)
    view = memoryview(buffer)
    if not view.nbytes:
        return torch.empty(shape, dtype=kind, requires_grad=requires_grad)
    # A tensor that shares read-only memory would be written to all the same.
    flat = torch.frombuffer(bytearray(view) if view.readonly else view, dtype=kind)
    return flat.reshape(shape).requires_grad_(requires_grad)
