"""The envelope: what goes in comes out, large buffers are not copied, and rubbish is refused."""

from __future__ import annotations

import pickle
import struct

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.rpc import envelope
from flash_runtime.rpc.envelope import BadEnvelope, pack, unpack_header, unpack_value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def joined(header, value) -> bytearray:
    return bytearray(b"".join(pack(header, value)))


def opened(body):
    view = memoryview(body)
    header, start = unpack_header(view)
    return header, unpack_value(view, header, start)


@given(value=VALUES, buffers=st.lists(st.binary(max_size=300), max_size=4))
def test_what_is_packed_is_unpacked(value, buffers):
    views = [pickle.PickleBuffer(each) for each in buffers]
    header, (found, found_buffers) = opened(joined({"function": "f"}, (value, views)))
    assert header["function"] == "f"
    assert found == value
    assert [bytes(each) for each in found_buffers] == buffers


def test_buffers_lie_at_multiples_of_64_and_are_views_of_the_body():
    arrays = [bytearray(b"\xf1" * 100), bytearray(b"\xf2" * 64), bytearray(b"\xf3")]
    body = joined({}, [pickle.PickleBuffer(each) for each in arrays])
    for array in arrays:
        assert body.index(array) % 64 == 0
    _, found = opened(body)
    memoryview(found[0])[0] = 7
    assert body.index(b"\x07" + b"\xf1" * 99) % 64 == 0


def test_a_large_buffer_is_a_part_of_its_own():
    array = bytearray(1_000_000)
    parts = pack({}, pickle.PickleBuffer(array))
    array[0] = 7
    assert bytes(parts[-1][:1]) == b"\x07"


@given(body=st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_refused(body):
    try:
        header, start = unpack_header(memoryview(body))
    except BadEnvelope:
        return
    with pytest.raises((BadEnvelope, pickle.UnpicklingError, EOFError)):
        unpack_value(memoryview(body), header, start)


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b"[]",
        b'{"pickle": -1, "buffers": []}',
        b'{"pickle": true, "buffers": []}',
        b'{"pickle": 1000000, "buffers": []}',
        b'{"pickle": 0, "buffers": [99999999999999999999]}',
        b'{"pickle": 0, "buffers": "x"}',
        b'{"pickle": 0, "buffers": [0.5]}',
        b"\xff\xfe",
    ],
)
def test_lengths_that_do_not_fit_are_refused(header):
    body = struct.pack("<4sI", b"FLX1", len(header)) + header
    with pytest.raises(BadEnvelope):
        opened(body)


def test_what_is_cut_off_or_too_long_is_refused():
    body = joined({}, [pickle.PickleBuffer(b"x" * 500), "text"])
    for wrong in (body[:-1], body[:-400], body[:20], body[:4], body + b"x"):
        with pytest.raises((BadEnvelope, pickle.UnpicklingError, EOFError)):
            opened(wrong)


def test_numpys_arrays_are_not_copied():
    array = numpy.arange(100_000, dtype=numpy.float32).reshape(100, 1000)
    parts = pack({}, {"a": array, "t": array.T, "s": array[::2, ::3]})
    assert numpy.shares_memory(numpy.frombuffer(parts[3], dtype=numpy.float32), array)
    _, found = opened(bytearray(b"".join(parts)))
    for name, wanted in (("a", array), ("t", array.T), ("s", array[::2, ::3])):
        assert numpy.array_equal(found[name], wanted)
    found["a"][0, 0] = 5  # whoever gets an array may write to it


@pytest.mark.torch
def test_torchs_tensors_are_not_copied():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(100_000, dtype=torch.float32).reshape(100, 1000)
    parts = pack({}, tensor)
    tensor[0, 0] = 7
    body = bytearray(b"".join(parts))
    _, found = opened(body)
    assert found[0, 0] == 7
    assert torch.equal(found, tensor)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "int64", "uint8", "bool", "complex64"])
def test_tensors_of_every_kind_cross(name):
    torch = pytest.importorskip("torch")
    kind = getattr(torch, name)
    for shape in ((), (0,), (3,), (2, 3, 4)):
        tensor = torch.ones(shape).to(kind)
        _, found = opened(joined({}, tensor))
        assert (found.dtype, found.shape) == (kind, tensor.shape)
        assert torch.equal(found, tensor)
    _, found = opened(joined({}, [torch.ones(4, 6).to(kind)[::2, 1::2], torch.nn.Parameter(torch.ones(3))]))
    assert found[0].shape == (2, 3)
    assert found[1].requires_grad


def test_the_content_type_has_no_parameters():
    assert b";" not in envelope.CONTENT_TYPE
