"""Replacements: one worker at a time is replaced, and the last one that is ready waits for its successor.

The processes are records on a real scoreboard; `Fleet` does with them what the supervisor does.
"""

import os
import time
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from flash_runtime.monitoring.scoreboard import Outcome, Scoreboard, State
from flash_runtime.supervisor.replacements import Replacements
from flash_runtime.supervisor.slots import ManagedSlot, WorkerProcess
from flash_runtime.system.devices import Device, Slot
from flash_runtime.system.processes import resident_bytes

MEBIBYTE = 2**20


class Fleet:
    """Slots with workers that are told what to do and do it when a test says so."""

    def __init__(self, slots, stall_timeout=0, gpus=True):
        self.board = Scoreboard(slots, stall_timeout)
        devices = [Device(str(number)) if gpus else None for number in range(slots)]
        self.slots = [ManagedSlot(Slot(number, device)) for number, device in enumerate(devices)]
        self.spawned, self.requested = [], []
        self.ready_at_telling = []
        self._pids = count(1000)
        self.replacements = Replacements(self.slots, self.board, self.spawn, self.request_end)
        self.step = self.replacements.step

    def spawn(self, slot, pid=None):
        taken = {each.record.number for slot in self.slots for each in slot.processes()}
        record = next(each for each in self.board.records if each.number not in taken)
        record.prepare(slot.number)
        worker = WorkerProcess(pid or next(self._pids), record, 0.0, None, None, record.requests())
        record.set_state(State.BOOTING, worker.pid)
        self.spawned.append(worker)
        return worker

    def request_end(self, worker):
        if worker.end_requested_at is None:
            worker.end_requested_at = time.monotonic()
            self.requested.append(worker)
            self.ready_at_telling.append([each for each in self.board.ready() if each is not worker.record])

    def boot(self, slot, pid=None):
        """Put a worker into a free slot."""
        slot.worker = self.spawn(slot.slot, pid)

    def ready(self, worker, resident=0):
        worker.record.set_resident_when_ready(resident)
        worker.record.set_state(State.READY, worker.pid)

    def ended(self, slot, worker):
        """The worker's process has ended: its successor, if there is one, has the slot."""
        if worker is slot.successor:
            slot.successor = None
            if worker.end_requested_at is None:
                self.replacements.call_off(slot, "why it ended")
        else:
            slot.worker, slot.successor = slot.successor, None
        worker.record.clear()


def serving(slots, pid=None, **options):
    """A fleet with a ready worker in each slot."""
    fleet = Fleet(slots, **options)
    for slot in fleet.slots:
        fleet.boot(slot, pid)
        fleet.ready(slot.worker)
    fleet.spawned.clear()
    return fleet


def replace(fleet, slot):
    """The slot's worker ends as it was told, and the next one boots and serves."""
    fleet.ended(slot, slot.worker)
    fleet.boot(slot)
    fleet.ready(slot.worker)


def serve(worker, requests):
    for _ in range(requests):
        worker.record.count(Outcome.ANSWERED, 0.1)


def test_nothing_is_replaced_that_is_not_due():
    fleet = serving(2)
    for _ in range(5):
        fleet.step()
    assert (fleet.requested, fleet.spawned, fleet.replacements.under_way) == ([], [], False)


def test_all_are_replaced_one_at_a_time_in_the_order_of_their_slots():
    fleet = serving(3)
    old = [slot.worker for slot in fleet.slots]
    fleet.replacements.replace_all()
    for number, slot in enumerate(fleet.slots):
        for _ in range(3):
            fleet.step()
        assert fleet.requested == old[: number + 1]
        replace(fleet, slot)
    assert fleet.replacements.under_way
    fleet.step()
    assert (fleet.requested, fleet.replacements.under_way) == (old, False)
    assert all(fleet.ready_at_telling)
    assert all(slot.successor is None for slot in fleet.slots)


def test_without_gpus_each_worker_serves_until_its_successor_is_ready():
    fleet = serving(2, gpus=False)
    old = [slot.worker for slot in fleet.slots]
    fleet.replacements.replace_all()
    for number, slot in enumerate(fleet.slots):
        fleet.step()
        assert (fleet.requested, len(fleet.spawned)) == (old[:number], number + 1)
        fleet.ready(slot.successor)
        fleet.step()
        assert fleet.requested == old[: number + 1]
        fleet.ended(slot, slot.worker)
        fleet.step()
    assert not fleet.replacements.under_way


def test_a_worker_that_has_grown_ends_before_its_successor_boots_where_another_is_ready():
    fleet = serving(2, pid=os.getpid(), gpus=False)
    worker = fleet.slots[0].worker
    worker.rss_limit = MEBIBYTE
    fleet.step()
    assert (fleet.requested, fleet.spawned) == ([worker], [])


def test_the_next_one_waits_until_the_one_before_is_replaced_by_a_ready_worker():
    fleet = serving(2)
    first, second = fleet.slots
    fleet.replacements.replace_all()
    fleet.step()
    fleet.ended(first, first.worker)
    fleet.step()
    fleet.boot(first)
    fleet.step()
    assert len(fleet.requested) == 1
    fleet.ready(first.worker)
    fleet.step()
    assert fleet.requested[1:] == [second.worker]


def test_the_last_ready_worker_is_told_to_end_once_its_successor_is_ready():
    fleet = serving(1)
    (slot,) = fleet.slots
    old = slot.worker
    fleet.replacements.replace_all()
    for _ in range(3):
        fleet.step()
    assert (fleet.requested, fleet.spawned) == ([], [slot.successor])
    assert slot.successor.record is not old.record
    fleet.ready(slot.successor)
    for _ in range(3):
        fleet.step()
    assert (fleet.requested, len(fleet.spawned)) == ([old], 1)
    fleet.ended(slot, old)
    fleet.step()
    assert (slot.worker, slot.successor) == (fleet.spawned[0], None)
    assert not fleet.replacements.under_way


def test_a_worker_beside_which_others_only_boot_is_the_last_ready_one():
    fleet = serving(2)
    first, second = fleet.slots
    second.worker.record.set_state(State.BOOTING, second.worker.pid)
    first.worker.request_limit = 0
    fleet.step()
    assert (fleet.requested, fleet.spawned) == ([], [first.successor])


def test_a_wedged_worker_does_not_stand_in_for_another():
    fleet = serving(2, stall_timeout=5)
    first, second = fleet.slots
    now = time.monotonic()
    second.worker.record.set_beat(now, now - 6)
    first.worker.request_limit = 0
    fleet.step()
    assert (fleet.requested, fleet.spawned) == ([], [first.successor])


def test_where_a_successor_cannot_boot_the_worker_serves_on_and_so_do_the_others(caplog):
    fleet = serving(2)
    first, second = fleet.slots
    second.worker.record.set_state(State.BOOTING, second.worker.pid)
    old = first.worker
    fleet.replacements.replace_all()
    fleet.step()
    fleet.ended(first, first.successor)
    fleet.ready(second.worker)
    for _ in range(3):
        fleet.step()
    assert (first.worker, first.successor, old.record.state) == (old, None, State.READY)
    assert (fleet.requested, len(fleet.spawned), fleet.replacements.under_way) == ([], 1, False)
    assert "the worker keeps serving" in caplog.text
    assert "why it ended" in caplog.text


def test_after_a_successor_that_could_not_boot_they_can_be_asked_for_again():
    fleet = serving(1)
    (slot,) = fleet.slots
    for _ in range(2):
        fleet.replacements.replace_all()
        fleet.step()
        fleet.ended(slot, slot.successor)
    assert (len(fleet.spawned), fleet.requested) == (2, [])


def test_after_a_successor_that_could_not_boot_the_next_one_is_not_started_at_once():
    fleet = serving(1)
    (slot,) = fleet.slots
    slot.worker.request_limit = 0
    fleet.step()
    fleet.ended(slot, slot.successor)
    fleet.step()
    assert len(fleet.spawned) == 1


def test_who_is_asked_for_while_he_is_replaced_is_replaced_once_more():
    fleet = serving(1, gpus=False)
    (slot,) = fleet.slots
    for _ in range(2):
        fleet.replacements.replace_all()
        fleet.step()
    for _ in range(2):
        fleet.ready(slot.successor)
        fleet.step()
        fleet.ended(slot, slot.worker)
        fleet.step()
    assert (len(fleet.requested), fleet.replacements.under_way) == (2, False)


def test_asking_twice_before_anything_is_done_replaces_once():
    fleet = serving(2)
    for _ in range(2):
        fleet.replacements.replace_all()
    fleet.step()
    for slot in fleet.slots:
        replace(fleet, slot)
        fleet.step()
    assert (len(fleet.requested), fleet.replacements.under_way) == (2, False)


def test_a_slot_without_a_worker_is_not_asked_for_and_not_waited_for():
    fleet = serving(2)
    first, second = fleet.slots
    fleet.replacements.replace_all()
    fleet.ended(first, first.worker)
    fleet.boot(first)
    fleet.ended(first, first.worker)
    fleet.step()
    assert fleet.requested == []
    assert fleet.spawned[1:] == [second.successor]


def test_a_slot_that_is_given_up_while_it_is_renewed_holds_up_no_other():
    fleet = serving(3)
    first, second, _ = fleet.slots
    fleet.replacements.replace_all()
    fleet.step()
    fleet.ended(first, first.worker)
    first.given_up = True
    fleet.step()
    assert fleet.requested[1:] == [second.worker]


def test_a_worker_that_ends_by_itself_leaves_its_slot_to_the_successor():
    fleet = serving(1)
    (slot,) = fleet.slots
    fleet.replacements.replace_all()
    fleet.step()
    successor = slot.successor
    fleet.ended(slot, slot.worker)
    fleet.step()
    assert fleet.replacements.under_way
    fleet.ready(successor)
    fleet.step()
    assert (slot.worker, fleet.requested, fleet.replacements.under_way) == (successor, [], False)


def test_a_worker_is_due_when_it_has_served_its_number_of_requests(caplog):
    caplog.set_level("INFO")
    fleet = serving(2)
    worker = fleet.slots[1].worker
    worker.request_limit = 3
    serve(worker, 2)
    fleet.step()
    assert fleet.requested == []
    serve(worker, 1)
    fleet.step()
    assert fleet.requested == [worker]
    assert "worker of slot 1 is recycled: it has served 3 requests" in caplog.text


def test_requests_of_a_predecessor_do_not_count():
    fleet = serving(2)
    first, _ = fleet.slots
    first.worker.request_limit = 3
    serve(first.worker, 3)
    fleet.step()
    replace(fleet, first)
    first.worker.request_limit = 3
    fleet.step()
    assert (len(fleet.requested), fleet.replacements.under_way) == (1, False)


def test_a_worker_that_boots_or_was_told_to_end_is_not_due():
    fleet = serving(3)
    first, second, _ = fleet.slots
    first.worker.record.set_state(State.BOOTING, first.worker.pid)
    first.worker.request_limit = second.worker.request_limit = 0
    second.worker.end_requested_at = time.monotonic()
    fleet.step()
    assert (fleet.requested, fleet.spawned, fleet.replacements.under_way) == ([], [], False)


def test_a_worker_is_due_when_it_has_grown_past_its_memory(caplog):
    caplog.set_level("INFO")
    fleet = serving(1, pid=os.getpid())
    (slot,) = fleet.slots
    size = resident_bytes(os.getpid())
    fleet.ready(slot.worker, size // MEBIBYTE)
    slot.worker.rss_limit = size + 32 * MEBIBYTE
    fleet.step()
    assert fleet.spawned == []
    grown = b"\1" * (64 * MEBIBYTE)
    fleet.step()
    assert fleet.spawned == [slot.successor]
    assert "worker of slot 0 is recycled: it has" in caplog.text
    assert "MiB in use" in caplog.text
    del grown


def test_a_worker_that_starts_beyond_the_limit_is_not_replaced_over_and_over(caplog):
    fleet = serving(1, pid=os.getpid())
    (slot,) = fleet.slots
    fleet.ready(slot.worker, resident_bytes(os.getpid()) // MEBIBYTE)
    slot.worker.rss_limit = MEBIBYTE
    for _ in range(3):
        fleet.step()
    assert (slot.worker.rss_limit, fleet.spawned) == (None, [])
    assert caplog.text.count("FLASH_MAX_RSS_MB has no effect") == 1


def test_a_worker_whose_process_is_gone_is_not_taken_for_one_that_has_grown():
    fleet = serving(1, pid=2**30)
    fleet.slots[0].worker.rss_limit = MEBIBYTE
    fleet.step()
    fleet.step()
    assert fleet.spawned == []


EVENTS = st.tuples(
    st.sampled_from(["ask", "serve", "step", "step", "ready", "fail", "end", "respawn"]), st.integers(0, 2)
)


@given(st.integers(1, 3), st.booleans(), st.lists(EVENTS, max_size=80))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_one_serves_while_another_is_replaced(slots, gpus, events):
    fleet = serving(slots, gpus=gpus)
    for event, number in events:
        slot = fleet.slots[number % slots]
        worker, successor = slot.worker, slot.successor
        last = successor or worker
        if event == "ask":
            fleet.replacements.replace_all()
        elif event == "serve" and worker is not None:
            worker.request_limit = 5
            serve(worker, 3)
        elif event == "step":
            fleet.step()
        elif event == "ready" and last is not None and last.record.state is State.BOOTING:
            fleet.ready(last)
        elif event == "fail" and last is not None and last.record.state is State.BOOTING:
            fleet.ended(slot, last)
        elif event == "end" and worker is not None and worker.end_requested_at is not None:
            fleet.ended(slot, worker)
        elif event == "respawn" and worker is None:
            fleet.boot(slot)
        told = [
            each for slot in fleet.slots for each in slot.processes() if each.end_requested_at is not None
        ]
        assert len(told) <= 1
        assert len([each for each in fleet.slots if each.successor is not None]) <= 1
        assert fleet.board.any_ready()
    assert all(fleet.ready_at_telling)
