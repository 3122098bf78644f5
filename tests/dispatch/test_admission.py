"""Admission: lanes, what they let run, and what they turn away."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash_runtime.dispatch.admission import Admission, Kind, Lane, Limits, limits

EVERY = frozenset(Kind)


def lane(concurrency, queue):
    return Lane(Limits(concurrency, queue), lambda running, waiting: None)


def admission(
    max_concurrency=None, max_queue=None, kinds=EVERY, on_gpu=False, changed=lambda admission: None
):
    return Admission(max_concurrency, max_queue, frozenset(kinds), changed, on_gpu=on_gpu)


def starts(number, started):
    """So many requests; each writes its number down when it starts."""
    return [lambda each=each: started.append(each) for each in range(number)]


@pytest.mark.parametrize(
    ("kind", "on_gpu", "expected"),
    [
        (Kind.SYNC, True, Limits(1, 32)),
        (Kind.SYNC, False, Limits(40, 1000)),
        (Kind.ASYNC, True, Limits(1000, 1000)),
        (Kind.ASYNC, False, Limits(1000, 1000)),
        (Kind.NONE, True, Limits(1000, 1000)),
        (Kind.NONE, False, Limits(1000, 1000)),
    ],
)
def test_the_kind_and_the_device_decide_where_nothing_is_set(kind, on_gpu, expected):
    assert limits(kind, None, None, on_gpu=on_gpu) == expected


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("kind", [Kind.SYNC, Kind.ASYNC])
def test_a_set_concurrency_holds_for_all_handlers_and_sizes_the_queue(kind, on_gpu):
    assert limits(kind, 4, None, on_gpu=on_gpu) == Limits(4, 32)
    assert limits(kind, 5, None, on_gpu=on_gpu) == Limits(5, 1000)


def test_a_set_concurrency_is_not_for_what_has_no_handler():
    assert limits(Kind.NONE, 1, None, on_gpu=True) == Limits(1000, 1000)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_set_queue_holds_for_every_kind(kind):
    assert limits(kind, None, 0, on_gpu=True).queue == 0
    assert limits(kind, 8, 7, on_gpu=False).queue == 7


def test_first_come_is_first_served():
    started = []
    full = lane(2, 3)
    assert all(full.enter(start) for start in starts(5, started))
    assert (started, full.running, full.waiting) == ([0, 1], 2, 3)
    for _ in range(3):
        full.leave()
    assert (started, full.running, full.waiting) == ([0, 1, 2, 3, 4], 2, 0)
    full.leave()
    full.leave()
    assert (full.running, full.waiting) == (0, 0)


def test_a_full_lane_turns_away_and_starts_nothing():
    started = []
    full = lane(1, 1)
    first, second, third = starts(3, started)
    assert (full.enter(first), full.is_full()) == (True, False)
    assert (full.enter(second), full.is_full()) == (True, True)
    assert not full.enter(third)
    assert (started, full.running, full.waiting) == ([0], 1, 1)
    full.leave()
    assert not full.is_full()


def test_without_a_queue_a_request_runs_or_is_turned_away():
    started = []
    narrow = lane(1, 0)
    first, second = starts(2, started)
    assert narrow.enter(first)
    assert not narrow.enter(second)
    narrow.leave()
    assert narrow.enter(second)
    assert started == [0, 1]


def test_a_forgotten_request_makes_room_and_never_starts():
    started = []
    full = lane(1, 2)
    first, second, third, fourth = starts(4, started)
    for start in (first, second, third):
        full.enter(start)
    full.forget(second)
    assert full.enter(fourth)
    full.leave()
    full.leave()
    full.leave()
    assert (started, full.running) == ([0, 2, 3], 0)


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.lists(st.one_of(st.sampled_from(["enter", "enter", "leave"]), st.integers(0, 3)), max_size=60),
)
@settings(max_examples=200)
def test_a_lane_keeps_its_limits_and_its_order_whatever_comes(concurrency, queue, steps):
    room = lane(concurrency, queue)
    numbers = count()
    started, waiting = [], []
    running = 0
    for step in steps:
        if step == "enter":
            number = next(numbers)
            full = room.is_full()
            begin = lambda number=number: started.append(number)  # noqa: E731
            before = len(started)
            assert room.enter(begin) is not full
            if len(started) > before:
                running += 1
            elif not full:
                waiting.append((number, begin))
        elif step == "leave":
            if running == 0:
                continue
            room.leave()
            if waiting:
                assert started[-1] == waiting.pop(0)[0]
            else:
                running -= 1
        elif step < len(waiting):
            room.forget(waiting.pop(step)[1])
        assert (room.running, room.waiting) == (running, len(waiting))
        assert running <= concurrency
        assert len(waiting) <= queue
        assert not waiting or running == concurrency
        assert len(started) == len(set(started))
        assert started == sorted(started)


def test_each_kind_has_a_lane_of_its_own_where_no_concurrency_is_set():
    lanes = [admission().lane(kind) for kind in Kind]
    assert len(set(map(id, lanes))) == 3


def test_a_set_concurrency_is_shared_by_all_handlers_but_not_by_what_has_none():
    started = []
    shared = admission(max_concurrency=1)
    assert shared.lane(Kind.SYNC) is shared.lane(Kind.ASYNC)
    assert shared.lane(Kind.NONE) is not shared.lane(Kind.SYNC)
    first, second, third = starts(3, started)
    shared.lane(Kind.SYNC).enter(first)
    shared.lane(Kind.ASYNC).enter(second)
    shared.lane(Kind.NONE).enter(third)
    assert started == [0, 2]
    assert (shared.running, shared.waiting) == (2, 1)


@pytest.mark.parametrize(
    ("kinds", "max_concurrency", "on_gpu", "expected"),
    [
        ({Kind.SYNC, Kind.ASYNC}, None, True, Kind.SYNC),
        ({Kind.SYNC, Kind.ASYNC}, None, False, Kind.SYNC),
        ({Kind.ASYNC}, None, True, Kind.ASYNC),
        ({Kind.ASYNC, Kind.NONE}, None, True, Kind.ASYNC),
        ({Kind.SYNC, Kind.NONE}, 2000, False, Kind.SYNC),
        ({Kind.ASYNC}, 1, False, Kind.ASYNC),
        ({Kind.NONE}, 1, True, Kind.NONE),
        (set(), None, True, Kind.NONE),
    ],
)
def test_the_narrowest_lane_is_that_of_a_handler_there_is(kinds, max_concurrency, on_gpu, expected):
    found = admission(max_concurrency, kinds=kinds, on_gpu=on_gpu)
    assert found.narrowest is found.lane(expected)


def test_each_change_is_told_once_it_is_made():
    told = []
    watched = admission(
        kinds=EVERY,
        on_gpu=True,
        max_queue=1,
        changed=lambda admission: told.append((admission.running, admission.waiting)),
    )
    first, second, third, other = starts(4, [])
    sync = watched.lane(Kind.SYNC)
    sync.enter(first)
    sync.enter(second)
    assert not sync.enter(third)
    watched.lane(Kind.ASYNC).enter(other)
    sync.forget(second)
    sync.enter(third)
    sync.leave()
    sync.leave()
    assert told == [(1, 0), (1, 1), (2, 1), (2, 0), (2, 1), (2, 0), (1, 0)]


@given(
    st.sampled_from([None, 1, 3]),
    st.lists(
        st.tuples(st.sampled_from(list(Kind)), st.sampled_from(["enter", "enter", "leave"])), max_size=60
    ),
)
def test_the_workers_counts_are_those_of_its_lanes(max_concurrency, steps):
    watched = admission(max_concurrency, max_queue=2)
    lanes = {id(watched.lane(kind)): watched.lane(kind) for kind in Kind}.values()
    for kind, step in steps:
        lane = watched.lane(kind)
        if step == "enter":
            lane.enter(lambda: None)
        elif lane.running:
            lane.leave()
        assert watched.running == sum(each.running for each in lanes)
        assert watched.waiting == sum(each.waiting for each in lanes)
