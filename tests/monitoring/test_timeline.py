"""The line of a start's phases: each in its order, adding up, once."""

import logging
import os
import time

from flash_runtime.monitoring.scoreboard import Scoreboard, State
from flash_runtime.monitoring.timeline import Startup

WORKERS = ["fork", "user_code", "serving"]


def be_ready(board: Scoreboard, number: int) -> None:
    record = board.records[number]
    record.set_state(State.BOOTING, os.getpid())
    record.note_forked()
    record.note_imported()
    record.set_state(State.READY, os.getpid())


def told(caplog) -> list[dict[str, float]]:
    return [record.ms for record in caplog.records if record.name == "flash_runtime.startup"]


def test_nothing_is_told_before_a_worker_is_ready_and_then_once(caplog):
    caplog.set_level(logging.INFO)
    startup, board = Startup(time.monotonic()), Scoreboard(2)
    startup.end("settings")
    startup.report(board)
    assert not startup.reported
    assert told(caplog) == []
    for number in (0, 1):
        be_ready(board, number)
        startup.report(board)
    assert startup.reported
    assert len(told(caplog)) == 1


def test_the_phases_add_up_from_the_processs_start_to_the_first_worker_that_was_ready(caplog):
    caplog.set_level(logging.INFO)
    startup, board = Startup(time.monotonic()), Scoreboard(2)
    startup.end("settings")
    startup.end("framework")
    be_ready(board, 1)
    time.sleep(0.1)
    be_ready(board, 0)
    startup.report(board)
    [phases] = told(caplog)
    total = phases.pop("total")
    # Nothing but Linux tells when a process was made.
    assert [name for name in phases if name != "interpreter"] == ["settings", "framework", *WORKERS]
    assert all(spent >= 0 for spent in phases.values())
    assert abs(sum(phases.values()) - total) < 1
    assert phases["fork"] < 90, "the second worker's"
