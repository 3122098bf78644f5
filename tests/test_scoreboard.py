import os
import select

from flash_runtime.health import verdict
from flash_runtime.scoreboard import Phase, Scoreboard, State


def test_what_a_child_writes_its_parent_reads():
    board = Scoreboard(2)
    pid = os.fork()
    if pid == 0:
        board.set_state(1, State.READY, os.getpid())
        board.set_in_flight(1, 7)
        board.report_fault(1, 65, "why")
        os._exit(0)
    os.waitpid(pid, 0)
    assert (board.state(0), board.state(1)) == (State.EMPTY, State.READY)
    assert (board.pid(1), board.in_flight(1), board.fault(1)) == (pid, 7, (65, "why"))


def test_a_long_fault_keeps_its_end_where_the_exception_stands():
    board = Scoreboard(1)
    board.report_fault(0, 70, "é" * 100_000 + "ValueError: the end")
    fault = board.fault(0)
    assert fault is not None
    assert fault[1].endswith("éValueError: the end")


def test_clearing_a_slot_leaves_its_neighbours_alone():
    board = Scoreboard(2)
    for slot in (0, 1):
        board.set_state(slot, State.READY, 1)
        board.report_fault(slot, 70, "why")
    board.clear(0)
    assert (board.state(0), board.fault(0)) == (State.EMPTY, None)
    assert (board.state(1), board.fault(1)) == (State.READY, (70, "why"))


def test_a_change_wakes_a_reader_and_a_full_pipe_stops_nobody():
    board = Scoreboard(1)
    for _ in range(100_000):
        board.phase = Phase.RUNNING
    assert select.select([board.wake_fd], [], [], 0)[0]
    board.drain_wakes()
    assert not select.select([board.wake_fd], [], [], 0)[0]


def test_health_follows_phase_and_slots():
    board = Scoreboard(2)
    said = [verdict(board).status]
    board.phase = Phase.RUNNING
    board.set_state(0, State.BOOTING, 1)
    said.append(verdict(board).status)
    board.set_state(0, State.READY, 1)
    said.append(verdict(board).status)
    board.phase = Phase.DRAINING
    said.append(verdict(board).status)
    board.phase = Phase.FAILED
    said.append(verdict(board).status)
    assert said == [204, 204, 200, 503, 503]
