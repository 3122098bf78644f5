"""Renewals: workers that serve are replaced one at a time, and never the last ready one before its successor.

The processes are records on a real scoreboard; `Fleet` does with them what the supervisor does.
"""

import os
import time
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from flash_runtime.monitoring.scoreboard import Outcome, Scoreboard, State
from flash_runtime.supervisor.renewals import Renewals
from flash_runtime.supervisor.slots import Keeping, WorkerProcess
from flash_runtime.system.devices import Device, Slot
from flash_runtime.system.processes import resident_bytes

MEBIBYTE = 2**20


class Fleet:
    """Slots with workers that are told what to do and do it when a test says so."""

    def __init__(self, slots, stall_timeout=0, gpus=True):
        self.board = Scoreboard(slots, stall_timeout)
        devices = [Device(str(number)) if gpus else None for number in range(slots)]
        self.keeping = [Keeping(Slot(number, device)) for number, device in enumerate(devices)]
        self.spawned, self.told = [], []
        self.ready_at_telling = []
        self._pids = count(1000)
        self.renewals = Renewals(self.keeping, self.board, self.spawn, self.tell_to_end)
        self.step = self.renewals.step

    def spawn(self, slot, pid=None):
        taken = {each.record.number for keeping in self.keeping for each in keeping.processes()}
        record = next(each for each in self.board.records if each.number not in taken)
        record.prepare(slot.number)
        worker = WorkerProcess(pid or next(self._pids), record, 0.0, None, None, record.requests())
        record.set_state(State.BOOTING, worker.pid)
        self.spawned.append(worker)
        return worker

    def tell_to_end(self, worker):
        if worker.told_at is None:
            worker.told_at = time.monotonic()
            self.told.append(worker)
            self.ready_at_telling.append([each for each in self.board.ready() if each is not worker.record])

    def boot(self, keeping, pid=None):
        """Put a worker into a free slot."""
        keeping.worker = self.spawn(keeping.slot, pid)

    def ready(self, worker, resident=0):
        worker.record.set_resident_when_ready(resident)
        worker.record.set_state(State.READY, worker.pid)

    def ended(self, keeping, worker):
        """The worker's process has ended: its successor, if there is one, has the slot."""
        if worker is keeping.successor:
            keeping.successor = None
            if worker.told_at is None:
                self.renewals.call_off(keeping, "why it ended")
        else:
            keeping.worker, keeping.successor = keeping.successor, None
        worker.record.clear()


def serving(slots, pid=None, **options):
    """A fleet with a ready worker in each slot."""
    fleet = Fleet(slots, **options)
    for keeping in fleet.keeping:
        fleet.boot(keeping, pid)
        fleet.ready(keeping.worker)
    fleet.spawned.clear()
    return fleet


def replace(fleet, keeping):
    """The slot's worker ends as it was told, and the next one boots and serves."""
    fleet.ended(keeping, keeping.worker)
    fleet.boot(keeping)
    fleet.ready(keeping.worker)


def serve(worker, requests):
    for _ in range(requests):
        worker.record.count(Outcome.ANSWERED, 0.1)


def test_nothing_is_replaced_that_is_not_due():
    fleet = serving(2)
    for _ in range(5):
        fleet.step()
    assert (fleet.told, fleet.spawned, fleet.renewals.under_way) == ([], [], False)


def test_all_are_replaced_one_at_a_time_in_the_order_of_their_slots():
    fleet = serving(3)
    old = [keeping.worker for keeping in fleet.keeping]
    fleet.renewals.ask_for_all()
    for number, keeping in enumerate(fleet.keeping):
        for _ in range(3):
            fleet.step()
        assert fleet.told == old[: number + 1]
        replace(fleet, keeping)
    assert fleet.renewals.under_way
    fleet.step()
    assert (fleet.told, fleet.renewals.under_way) == (old, False)
    assert all(fleet.ready_at_telling)
    assert all(keeping.successor is None for keeping in fleet.keeping)


def test_without_gpus_each_worker_serves_until_its_successor_is_ready():
    fleet = serving(2, gpus=False)
    old = [keeping.worker for keeping in fleet.keeping]
    fleet.renewals.ask_for_all()
    for number, keeping in enumerate(fleet.keeping):
        fleet.step()
        assert (fleet.told, len(fleet.spawned)) == (old[:number], number + 1)
        fleet.ready(keeping.successor)
        fleet.step()
        assert fleet.told == old[: number + 1]
        fleet.ended(keeping, keeping.worker)
        fleet.step()
    assert not fleet.renewals.under_way


def test_a_worker_that_has_grown_ends_before_its_successor_boots_where_another_is_ready():
    fleet = serving(2, pid=os.getpid(), gpus=False)
    worker = fleet.keeping[0].worker
    worker.rss_limit = MEBIBYTE
    fleet.step()
    assert (fleet.told, fleet.spawned) == ([worker], [])


def test_the_next_one_waits_until_the_one_before_is_replaced_by_a_ready_worker():
    fleet = serving(2)
    first, second = fleet.keeping
    fleet.renewals.ask_for_all()
    fleet.step()
    fleet.ended(first, first.worker)
    fleet.step()
    fleet.boot(first)
    fleet.step()
    assert len(fleet.told) == 1
    fleet.ready(first.worker)
    fleet.step()
    assert fleet.told[1:] == [second.worker]


def test_the_last_ready_worker_is_told_to_end_once_its_successor_is_ready():
    fleet = serving(1)
    (keeping,) = fleet.keeping
    old = keeping.worker
    fleet.renewals.ask_for_all()
    for _ in range(3):
        fleet.step()
    assert (fleet.told, fleet.spawned) == ([], [keeping.successor])
    assert keeping.successor.record is not old.record
    fleet.ready(keeping.successor)
    for _ in range(3):
        fleet.step()
    assert (fleet.told, len(fleet.spawned)) == ([old], 1)
    fleet.ended(keeping, old)
    fleet.step()
    assert (keeping.worker, keeping.successor) == (fleet.spawned[0], None)
    assert not fleet.renewals.under_way


def test_a_worker_beside_which_others_only_boot_is_the_last_ready_one():
    fleet = serving(2)
    first, second = fleet.keeping
    second.worker.record.set_state(State.BOOTING, second.worker.pid)
    first.worker.request_limit = 0
    fleet.step()
    assert (fleet.told, fleet.spawned) == ([], [first.successor])


def test_a_wedged_worker_does_not_stand_in_for_another():
    fleet = serving(2, stall_timeout=5)
    first, second = fleet.keeping
    now = time.monotonic()
    second.worker.record.set_beat(now, now - 6)
    first.worker.request_limit = 0
    fleet.step()
    assert (fleet.told, fleet.spawned) == ([], [first.successor])


def test_where_a_successor_cannot_boot_the_worker_serves_on_and_so_do_the_others(caplog):
    fleet = serving(2)
    first, second = fleet.keeping
    second.worker.record.set_state(State.BOOTING, second.worker.pid)
    old = first.worker
    fleet.renewals.ask_for_all()
    fleet.step()
    fleet.ended(first, first.successor)
    fleet.ready(second.worker)
    for _ in range(3):
        fleet.step()
    assert (first.worker, first.successor, old.record.state) == (old, None, State.READY)
    assert (fleet.told, len(fleet.spawned), fleet.renewals.under_way) == ([], 1, False)
    assert "and the worker serves on" in caplog.text
    assert "why it ended" in caplog.text


def test_after_a_successor_that_could_not_boot_they_can_be_asked_for_again():
    fleet = serving(1)
    (keeping,) = fleet.keeping
    for _ in range(2):
        fleet.renewals.ask_for_all()
        fleet.step()
        fleet.ended(keeping, keeping.successor)
    assert (len(fleet.spawned), fleet.told) == (2, [])


def test_after_a_successor_that_could_not_boot_the_next_one_is_not_started_at_once():
    fleet = serving(1)
    (keeping,) = fleet.keeping
    keeping.worker.request_limit = 0
    fleet.step()
    fleet.ended(keeping, keeping.successor)
    fleet.step()
    assert len(fleet.spawned) == 1


def test_who_is_asked_for_while_he_is_replaced_is_replaced_once_more():
    fleet = serving(1, gpus=False)
    (keeping,) = fleet.keeping
    for _ in range(2):
        fleet.renewals.ask_for_all()
        fleet.step()
    for _ in range(2):
        fleet.ready(keeping.successor)
        fleet.step()
        fleet.ended(keeping, keeping.worker)
        fleet.step()
    assert (len(fleet.told), fleet.renewals.under_way) == (2, False)


def test_asking_twice_before_anything_is_done_replaces_once():
    fleet = serving(2)
    for _ in range(2):
        fleet.renewals.ask_for_all()
    fleet.step()
    for keeping in fleet.keeping:
        replace(fleet, keeping)
        fleet.step()
    assert (len(fleet.told), fleet.renewals.under_way) == (2, False)


def test_a_slot_without_a_worker_is_not_asked_for_and_not_waited_for():
    fleet = serving(2)
    first, second = fleet.keeping
    fleet.renewals.ask_for_all()
    fleet.ended(first, first.worker)
    fleet.boot(first)
    fleet.ended(first, first.worker)
    fleet.step()
    assert fleet.told == []
    assert fleet.spawned[1:] == [second.successor]


def test_a_slot_that_is_given_up_while_it_is_renewed_holds_up_no_other():
    fleet = serving(3)
    first, second, _ = fleet.keeping
    fleet.renewals.ask_for_all()
    fleet.step()
    fleet.ended(first, first.worker)
    first.given_up = True
    fleet.step()
    assert fleet.told[1:] == [second.worker]


def test_a_worker_that_ends_by_itself_leaves_its_slot_to_the_successor():
    fleet = serving(1)
    (keeping,) = fleet.keeping
    fleet.renewals.ask_for_all()
    fleet.step()
    successor = keeping.successor
    fleet.ended(keeping, keeping.worker)
    fleet.step()
    assert fleet.renewals.under_way
    fleet.ready(successor)
    fleet.step()
    assert (keeping.worker, fleet.told, fleet.renewals.under_way) == (successor, [], False)


def test_a_worker_is_due_when_it_has_served_its_number_of_requests(caplog):
    caplog.set_level("INFO")
    fleet = serving(2)
    worker = fleet.keeping[1].worker
    worker.request_limit = 3
    serve(worker, 2)
    fleet.step()
    assert fleet.told == []
    serve(worker, 1)
    fleet.step()
    assert fleet.told == [worker]
    assert "worker of slot 1 is recycled: it has served 3 requests" in caplog.text


def test_requests_of_a_predecessor_do_not_count():
    fleet = serving(2)
    first, _ = fleet.keeping
    first.worker.request_limit = 3
    serve(first.worker, 3)
    fleet.step()
    replace(fleet, first)
    first.worker.request_limit = 3
    fleet.step()
    assert (len(fleet.told), fleet.renewals.under_way) == (1, False)


def test_a_worker_that_boots_or_was_told_to_end_is_not_due():
    fleet = serving(3)
    first, second, _ = fleet.keeping
    first.worker.record.set_state(State.BOOTING, first.worker.pid)
    first.worker.request_limit = second.worker.request_limit = 0
    second.worker.told_at = time.monotonic()
    fleet.step()
    assert (fleet.told, fleet.spawned, fleet.renewals.under_way) == ([], [], False)


def test_a_worker_is_due_when_it_has_grown_past_its_memory(caplog):
    caplog.set_level("INFO")
    fleet = serving(1, pid=os.getpid())
    (keeping,) = fleet.keeping
    size = resident_bytes(os.getpid())
    fleet.ready(keeping.worker, size // MEBIBYTE)
    keeping.worker.rss_limit = size + 32 * MEBIBYTE
    fleet.step()
    assert fleet.spawned == []
    grown = b"\1" * (64 * MEBIBYTE)
    fleet.step()
    assert fleet.spawned == [keeping.successor]
    assert "worker of slot 0 is recycled: it has" in caplog.text
    assert "MiB in use" in caplog.text
    del grown


def test_a_worker_that_starts_beyond_the_limit_is_not_replaced_over_and_over(caplog):
    fleet = serving(1, pid=os.getpid())
    (keeping,) = fleet.keeping
    fleet.ready(keeping.worker, resident_bytes(os.getpid()) // MEBIBYTE)
    keeping.worker.rss_limit = MEBIBYTE
    for _ in range(3):
        fleet.step()
    assert (keeping.worker.rss_limit, fleet.spawned) == (None, [])
    assert caplog.text.count("FLASH_MAX_RSS_MB has no effect") == 1


def test_a_worker_whose_process_is_gone_is_not_taken_for_one_that_has_grown():
    fleet = serving(1, pid=2**30)
    fleet.keeping[0].worker.rss_limit = MEBIBYTE
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
        keeping = fleet.keeping[number % slots]
        worker, successor = keeping.worker, keeping.successor
        last = successor or worker
        if event == "ask":
            fleet.renewals.ask_for_all()
        elif event == "serve" and worker is not None:
            worker.request_limit = 5
            serve(worker, 3)
        elif event == "step":
            fleet.step()
        elif event == "ready" and last is not None and last.record.state is State.BOOTING:
            fleet.ready(last)
        elif event == "fail" and last is not None and last.record.state is State.BOOTING:
            fleet.ended(keeping, last)
        elif event == "end" and worker is not None and worker.told_at is not None:
            fleet.ended(keeping, worker)
        elif event == "respawn" and worker is None:
            fleet.boot(keeping)
        told = [each for keeping in fleet.keeping for each in keeping.processes() if each.told_at is not None]
        assert len(told) <= 1
        assert len([each for each in fleet.keeping if each.successor is not None]) <= 1
        assert fleet.board.any_ready()
    assert all(fleet.ready_at_telling)
