"""Stubs in one process: what is awaited is the user's own function, and one instance a stub."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flash_runtime.rpc.stubs import NOWHERE, LocalStubs, PeerError, RemoteStubs, original


class Model:
    """Counts."""

    made = 0

    def __init__(self, start: int) -> None:
        type(self).made += 1
        self.count = start
        self.thread = threading.current_thread()

    def more(self, by: int = 1) -> int:
        self.count += by
        return self.count

    async def later(self) -> int:
        return self.count

    def __call__(self) -> threading.Thread:
        return self.thread


def double(x: int) -> int:
    return 2 * x


LOCAL = LocalStubs(frozenset({"Model", "double"}))


def test_calls_at_the_same_time_make_one_instance_in_a_thread():
    async def use() -> list[int]:
        model = LOCAL.stand_in(Model)(40)
        before = Model.made
        await asyncio.gather(*(model.more() for _ in range(5)))
        assert Model.made == before + 1
        assert await model() is not threading.main_thread()
        return [await model.later(), await model.more(by=3)]

    assert asyncio.run(use()) == [45, 48]


def test_a_stub_has_the_classs_name_and_hides_what_is_private():
    stub = LOCAL.stand_in(Model)
    assert (stub.__name__, stub.__doc__) == ("Model", "Counts.")
    with pytest.raises(AttributeError, match="only its public methods"):
        stub(1)._private  # noqa: B018


def test_a_local_stub_knows_what_it_stands_for_and_a_name_that_nobody_awaits_has_none():
    assert [original(LOCAL.stand_in(each)) for each in (Model, double)] == [Model, double]
    assert LocalStubs(frozenset()).stand_in(double) is double
    assert asyncio.run(LOCAL.stand_in(double)(21)) == 42


def test_a_remote_stub_without_an_address_says_what_to_set():
    stubs = RemoteStubs(NOWHERE, {"double": "math", "Model": "math"})
    for call in (stubs.stand_in(double)(1), stubs.stand_in(Model)(1).more()):
        with pytest.raises(PeerError, match=r"resource `math`. Set FLASH_PEER_URL"):
            asyncio.run(call)
