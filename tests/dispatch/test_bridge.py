"""The mailbox: what one loop hands to another."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flash_runtime.dispatch.bridge import Mailbox


@contextmanager
def loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def loop():
    with loop_in_a_thread() as loop:
        yield loop


def wakes_of(mailbox: Mailbox[int], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each time that the mailbox wakes its loop."""
    found: list[object] = []
    wake = mailbox._loop.call_soon_threadsafe
    monkeypatch.setattr(mailbox._loop, "call_soon_threadsafe", lambda each: (found.append(each), wake(each)))
    return found


def test_what_a_loop_puts_in_one_turn_is_delivered_in_order_by_one_wake(loop, monkeypatch):
    items, all_there = [], threading.Event()

    def deliver(item: int) -> None:
        items.append(item)
        if item == 99:
            all_there.set()

    mailbox = Mailbox(loop, deliver)
    wakes = wakes_of(mailbox, monkeypatch)

    async def send() -> None:
        for number in range(100):
            mailbox.put_with_others(number, asyncio.get_running_loop())
        assert not wakes  # not before the end of the turn

    asyncio.run(send())
    assert all_there.wait(10)
    assert (items, len(wakes)) == (list(range(100)), 1)


def test_an_item_that_fails_does_not_hold_up_those_behind_it(loop):
    items, all_there = [], threading.Event()
    loop.set_exception_handler(lambda loop, context: None)

    def deliver(item: int) -> None:
        if item == 1:
            raise ValueError
        items.append(item)
        if item == 3:
            all_there.set()

    mailbox = Mailbox(loop, deliver)

    async def send() -> None:
        for number in range(4):
            mailbox.put_with_others(number, asyncio.get_running_loop())

    asyncio.run(send())
    assert all_there.wait(10)
    assert items == [0, 2, 3]


def test_no_item_is_lost_between_many_threads_and_a_loop(loop):
    count, all_there = 0, threading.Event()

    def deliver(item: int) -> None:
        nonlocal count
        count += item
        if count == 8 * 2000:
            all_there.set()

    mailbox = Mailbox(loop, deliver)

    def send() -> None:
        for _ in range(2000):
            mailbox.put(1)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all_there.wait(10)
