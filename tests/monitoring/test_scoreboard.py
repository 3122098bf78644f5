import ctypes
import os
import select
import time

from flash_runtime.monitoring.scoreboard import Outcome, Phase, Record, Scoreboard, State
from flash_runtime.monitoring.verdict import verdict


def test_what_a_child_writes_its_parent_reads():
    board = Scoreboard(2)
    record = board.records[1]
    pid = os.fork()
    if pid == 0:
        record.set_state(State.READY, os.getpid())
        record.set_requests(running=3, waiting=4)
        record.set_load(5)
        record.set_in_flight(7)
        record.count(Outcome.SHED, 0.25)
        record.report_fault(65, "why")
        os._exit(0)
    os.waitpid(pid, 0)
    assert (board.records[0].state, record.state, record.pid) == (State.EMPTY, State.READY, pid)
    assert (record.running, record.waiting, record.load, record.in_flight) == (3, 4, 5, 7)
    assert (record.outcomes()[Outcome.SHED], record.requests(), record.seconds) == (1, 1, 0.25)
    assert record.reported_fault() == (65, "why")


def test_a_long_fault_keeps_its_end_where_the_exception_stands():
    record = Scoreboard(1).records[0]
    record.report_fault(70, "é" * 100_000 + "ValueError: the end")
    fault = record.reported_fault()
    assert fault is not None
    assert fault[1].endswith("éValueError: the end")


def test_preparing_a_record_leaves_its_neighbours_alone_and_keeps_the_counts():
    board = Scoreboard(2)
    for record in board.records:
        record.set_state(State.READY, 1)
        record.report_fault(70, "why")
        record.count(Outcome.ANSWERED, 1.0)
    first, second, _ = board.records
    first.prepare(slot=1)
    assert (first.state, first.reported_fault(), first.slot) == (State.EMPTY, None, 1)
    assert (second.state, second.reported_fault()) == (State.READY, (70, "why"))
    assert board.outcomes()[Outcome.ANSWERED] == 3


def test_fields_do_not_overlap():
    record = Scoreboard(1).records[0]
    record.prepare(slot=11)
    record.set_state(State.READY, 12)
    record.set_requests(13, 14)
    record.set_load(15)
    record.set_in_flight(16)
    record.set_beat(17.0, 18.0)
    for outcome in Outcome:
        for _ in range(outcome + 1):
            record.count(outcome, 0.5)
    record.report_fault(19, "x")
    assert (record.slot, record.pid, record.running, record.waiting, record.load) == (11, 12, 13, 14, 15)
    assert (record.in_flight, record.beat, record.moved, record.state) == (16, 17.0, 18.0, State.READY)
    assert list(record.outcomes().values()) == [outcome + 1 for outcome in Outcome]
    assert record.seconds == 0.5 * sum(record.outcomes().values())
    assert record.reported_fault() == (19, "x")


def test_every_field_is_aligned_so_that_one_store_writes_it():
    first, second, _ = Scoreboard(2).records
    for record in (first, second):
        for name, kind in Record._fields_:
            item = getattr(kind, "_type_", kind) if issubclass(kind, ctypes.Array) else kind
            address = ctypes.addressof(record) + getattr(Record, name).offset
            assert address % ctypes.sizeof(item) == 0, name
    assert ctypes.addressof(second) - ctypes.addressof(first) == ctypes.sizeof(Record)


def test_a_change_wakes_a_reader_and_a_full_pipe_stops_nobody():
    board = Scoreboard(1)
    for _ in range(100_000):
        board.phase = Phase.RUNNING
    assert select.select([board.wake_fd], [], [], 0)[0]
    board.drain_wakes()
    assert not select.select([board.wake_fd], [], [], 0)[0]


def test_health_follows_phase_and_workers():
    board = Scoreboard(2)
    said = [verdict(board).status]
    board.phase = Phase.RUNNING
    board.records[0].set_state(State.BOOTING, 1)
    said.append(verdict(board).status)
    board.records[0].set_state(State.READY, 1)
    said.append(verdict(board).status)
    for phase in (Phase.LEAVING, Phase.DRAINING, Phase.FAILED):
        board.phase = phase
        said.append(verdict(board).status)
    assert said == [204, 204, 200, 503, 503, 503]


def test_health_tells_of_wedged_workers_dying_ones_and_given_up_slots():
    board = Scoreboard(2, stall_timeout=5)
    board.phase = Phase.RUNNING
    first, second, _ = board.records
    now = time.monotonic()
    first.set_state(State.READY, 1)
    first.set_beat(now, now - 6)
    assert (verdict(board).status, verdict(board).word) == (503, "wedged")
    second.set_state(State.READY, 2)
    assert (verdict(board).status, verdict(board).word) == (200, "healthy")
    board.given_up = 1
    assert (verdict(board).status, verdict(board).word) == (200, "degraded")
    first.clear()
    second.clear()
    assert verdict(board).status == 204
    board.failing = True
    assert (verdict(board).status, verdict(board).word) == (503, "failing")


def test_without_a_stall_timeout_no_worker_is_wedged():
    board = Scoreboard(1)
    record = board.records[0]
    record.set_state(State.READY, 1)
    record.set_beat(0, 0)
    assert board.any_ready()
