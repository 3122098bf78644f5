"""Slots: when the next worker of a slot starts, and when a slot is given up."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.monitoring.scoreboard import Outcome, Scoreboard, State
from flash_runtime.supervisor.slots import _FAILURES, ManagedSlot, WorkerProcess, limit_with_jitter
from flash_runtime.system.devices import Slot


def managed(**fields):
    return ManagedSlot(Slot(0, None), **fields)


def running(record):
    return WorkerProcess(1, record, time.monotonic(), None, None, record.requests())


def delays(slot, served, times):
    return [slot.note_end(100.0, served, device_lost=False) for _ in range(times)]


def test_boots_that_fail_are_tried_further_and_further_apart_up_to_half_a_minute():
    assert delays(managed(), None, 9) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_slot_that_has_failed_for_a_day_is_still_tried():
    assert delays(managed(), None, 3000)[-1] == 30


def test_the_next_worker_starts_when_the_delay_is_over():
    slot = managed()
    delay = slot.note_end(100.0, None, device_lost=False)
    assert slot.not_before == 100.0 + delay


def test_the_first_end_of_a_worker_that_served_is_made_up_for_at_once_and_others_later():
    assert delays(managed(), 5.0, 4) == [0, 1, 2, 4]


@pytest.mark.parametrize("failures", [0, 1, 2, 10, 500])
def test_a_steady_worker_is_replaced_at_once_and_its_predecessors_are_forgotten(failures):
    slot = managed(failures=failures, devices_lost=_FAILURES - 1)
    assert slot.note_end(100.0, 60.0, device_lost=False) == 0
    assert (slot.failures, slot.devices_lost, slot.not_before) == (1, 0, 100.0)


def test_a_worker_that_served_for_less_than_a_minute_is_not_steady():
    slot = managed(failures=1)
    assert slot.note_end(100.0, 59.9, device_lost=False) > 0
    assert slot.failures == 2


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=50))
def test_no_delay_is_longer_than_half_a_minute(ends):
    slot = managed()
    for served in ends:
        delay = slot.note_end(100.0, served, device_lost=False)
        assert 0 <= delay <= 30
        assert served is not None or delay > 0
        assert not slot.given_up


@pytest.mark.parametrize("served", [None, 1.0])
def test_a_slot_that_keeps_losing_its_device_is_given_up(served):
    slot = managed()
    given_up = []
    for _ in range(_FAILURES):
        slot.note_end(100.0, served, device_lost=True)
        given_up.append(slot.given_up)
    assert given_up == [False] * (_FAILURES - 1) + [True]


def test_other_ends_neither_add_to_lost_devices_nor_make_up_for_them():
    slot = managed()
    for lost in (True, False, True, False):
        slot.note_end(100.0, 1.0, device_lost=lost)
    assert not slot.given_up
    slot.note_end(100.0, 1.0, device_lost=True)
    assert slot.given_up


def test_a_device_that_is_lost_once_a_minute_or_less_often_is_kept():
    slot = managed()
    for _ in range(20):
        assert slot.note_end(100.0, 60.0, device_lost=True) == 0
    assert (slot.devices_lost, slot.given_up) == (1, False)


@given(st.integers(1, 10**12))
def test_a_worker_is_due_at_its_limit_or_up_to_a_fifth_before(limit):
    own = limit_with_jitter(limit)
    assert max(1, round(0.8 * limit)) <= own <= limit


def test_siblings_are_not_all_due_at_once():
    assert len({limit_with_jitter(1_000_000) for _ in range(20)}) > 10


def test_without_a_limit_there_is_none():
    assert limit_with_jitter(None) is None


def test_a_workers_requests_are_its_own_and_not_its_predecessors():
    record = Scoreboard(1).records[0]
    record.count(Outcome.ANSWERED, 0.1)
    record.prepare(slot=0)
    worker = running(record)
    assert worker.requests == 0
    record.count(Outcome.FAILED, 0.1)
    record.count(Outcome.SHED, 0.1)
    assert worker.requests == 2


def test_a_slots_processes_are_its_worker_and_the_one_that_follows_it():
    first, second = (running(record) for record in Scoreboard(1).records)
    assert managed().processes() == ()
    assert managed(worker=first).processes() == (first,)
    assert managed(worker=first, successor=second).processes() == (first, second)


def test_a_slot_is_failing_from_its_third_end_until_a_worker_has_served_for_a_minute():
    slot = managed()
    said = []
    for _ in range(3):
        slot.note_end(time.monotonic(), 1.0, device_lost=False)
        said.append(slot.is_failing(time.monotonic()))
    slot.worker = running(Scoreboard(1).records[0])
    slot.worker.record.set_state(State.READY, 1)
    said += [slot.is_failing(time.monotonic()), slot.is_failing(time.monotonic() + 61)]
    assert said == [False, False, True, True, False]
