"""The line of a start's phases: each in its order, adding up, once."""

import logging
import os
import time

from flash_runtime.monitoring.scoreboard import Scoreboard, State
from flash_runtime.monitoring.timeline import Timeline

WORKERS = ["fork", "user_code", "serving"]


def be_ready(board: Scoreboard, number: int) -> None:
    record = board.records[number]
    record.set_state(State.BOOTING, os.getpid())
    record.note_forked()
    record.note_imported()
    record.set_state(State.READY, os.getpid())


def logged(caplog) -> list[dict[str, float]]:
    return [record.ms for record in caplog.records if record.name == "flash_runtime.startup"]


def test_nothing_is_logged_before_a_worker_is_ready_and_then_once(caplog):
    caplog.set_level(logging.INFO)
    timeline, board = Timeline(time.monotonic()), Scoreboard(2)
    timeline.end("settings")
    timeline.log_once(board)
    assert not timeline.logged
    assert logged(caplog) == []
    for number in (0, 1):
        be_ready(board, number)
        timeline.log_once(board)
    assert timeline.logged
    assert len(logged(caplog)) == 1


def test_the_phases_add_up_from_the_processs_start_to_the_first_worker_that_was_ready(caplog):
    caplog.set_level(logging.INFO)
    timeline, board = Timeline(time.monotonic()), Scoreboard(2)
    timeline.end("settings")
    timeline.end("framework")
    be_ready(board, 1)
    time.sleep(0.1)
    be_ready(board, 0)
    timeline.log_once(board)
    [phases] = logged(caplog)
    total = phases.pop("total")
    # Nothing but Linux tells when a process was made.
    assert [name for name in phases if name != "interpreter"] == ["settings", "framework", *WORKERS]
    assert all(spent >= 0 for spent in phases.values())
    assert abs(sum(phases.values()) - total) < 1
    assert phases["fork"] < 90, "the second worker's"
