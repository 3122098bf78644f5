"""Sharing: which of a container's workers takes the next connection."""

import os
import time

import pytest

from flash_runtime.dispatch.admission import SMALL_CONCURRENCY, Admission, Kind
from flash_runtime.monitoring.scoreboard import Scoreboard, State
from flash_runtime.worker.sharing import SpreadEvenly, TakeWhatCanRun, sharing_for


def board_with(*loads: int, stall_timeout: float = 0) -> Scoreboard:
    """A scoreboard whose workers are ready and have these loads."""
    board = Scoreboard(len(loads), stall_timeout)
    for record, load in zip(board.records, loads, strict=False):
        record.set_state(State.READY, os.getpid())
        record.set_load(load)
    return board


def admission(sharing, concurrency: int) -> Admission:
    return Admission(concurrency, 10, frozenset({Kind.SYNC}), sharing.on_admission_change, on_gpu=False)


@pytest.mark.parametrize(
    ("slots", "concurrency", "kind"),
    [
        (1, 1, SpreadEvenly),
        (2, SMALL_CONCURRENCY, TakeWhatCanRun),
        (2, SMALL_CONCURRENCY + 1, SpreadEvenly),
    ],
)
def test_few_requests_at_once_are_shared_by_what_can_run_unless_there_is_nobody_to_share_with(
    slots, concurrency, kind
):
    board = Scoreboard(slots)
    sharing = sharing_for(board.records[0], board, concurrency)
    assert type(sharing) is kind
    assert sharing.keeps_connections is (kind is SpreadEvenly)


@pytest.mark.parametrize(("loads", "mine"), [((0, 0), True), ((3, 3), True), ((1, 0), False), ((0, 1), True)])
def test_a_worker_with_room_for_many_leaves_a_connection_to_one_that_has_fewer(loads, mine):
    board = board_with(*loads)
    assert SpreadEvenly(board.records[0], board).is_my_turn() is mine


@pytest.mark.parametrize(
    ("loads", "mine"), [((0, 0), True), ((1, 0), True), ((2, 0), False), ((2, 2), True), ((3, 2), False)]
)
def test_a_worker_takes_what_it_has_room_for_and_more_only_if_no_sibling_has_less(loads, mine):
    board = board_with(*loads)
    assert TakeWhatCanRun(board.records[0], board, 2).is_my_turn() is mine


@pytest.mark.parametrize("state", [State.EMPTY, State.BOOTING, State.DRAINING])
def test_a_sibling_that_cannot_accept_is_left_nothing(state):
    board = board_with(1, 0)
    board.records[1].set_state(state, os.getpid())
    assert SpreadEvenly(board.records[0], board).is_my_turn()


def test_a_sibling_whose_loop_does_not_turn_is_left_nothing():
    board = board_with(1, 0)
    board.records[1].set_beat(time.monotonic() - 60, time.monotonic())
    assert SpreadEvenly(board.records[0], board).is_my_turn()


@pytest.mark.parametrize("loads", [(0,), (0, 5)])
def test_a_wedged_worker_takes_nothing(loads):
    board = board_with(*loads, stall_timeout=1)
    record = board.records[0]
    both = [SpreadEvenly(record, board), TakeWhatCanRun(record, board, 1)]
    assert all(sharing.is_my_turn() for sharing in both)
    record.set_beat(time.monotonic(), time.monotonic() - 2)
    assert not any(sharing.is_my_turn() for sharing in both)


def test_load_is_connections_for_one_strategy_and_requests_for_the_other():
    board = board_with(0, 0)
    even, narrow = SpreadEvenly(board.records[0], board), TakeWhatCanRun(board.records[1], board, 1)
    for sharing in (even, narrow):
        sharing.on_connections(7)
        admission(sharing, 1).lane(Kind.SYNC).enter(lambda: None)
    assert [record.load for record in board.records[:2]] == [7, 1]


def test_who_waits_for_room_is_called_once_when_a_request_has_ended():
    board = board_with(0, 0)
    sharing = TakeWhatCanRun(board.records[0], board, 1)
    lane = admission(sharing, 1).lane(Kind.SYNC)
    lane.enter(lambda: None)
    calls: list[int] = []
    sharing.call_when_free(lambda: calls.append(board.records[0].load))
    lane.enter(lambda: None)
    assert calls == []  # there is more to do, not less
    lane.leave()
    assert calls == [1]
    lane.leave()
    assert calls == [1]
