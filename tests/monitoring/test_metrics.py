"""Metrics: the text is Prometheus's, and says what the board does."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.monitoring.metrics import TYPE, render
from flash_runtime.monitoring.scoreboard import Outcome, Scoreboard, State

# https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
NUMBER = r"[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN"
HELP = re.compile(rf"# HELP ({NAME}) (\S.*)")
KIND = re.compile(rf"# TYPE ({NAME}) (counter|gauge)")
SAMPLE = re.compile(rf"({NAME})((?:\{{{LABEL}(?:,{LABEL})*\}})?) ({NUMBER})")


def parsed(board):
    """The samples by name and labels; fails where a line is none of the format's or is out of place."""
    text = render(board).decode()
    assert text.endswith("\n")
    samples, kinds = {}, {}
    lines = iter(text.splitlines())
    name = None
    for line in lines:
        if line.startswith("#"):
            helped, kind = HELP.fullmatch(line), KIND.fullmatch(next(lines))
            assert helped, line
            assert kind, line
            name = kind[1]
            assert helped[1] == name
            assert name not in kinds
            assert (kind[2] == "counter") == name.endswith("_total")
            kinds[name] = kind[2]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == name
        assert sample[1] + sample[2] not in samples
        samples[sample[1] + sample[2]] = float(sample[3])
    assert set(kinds) == {each.partition("{")[0] for each in samples}
    return samples


def test_a_fresh_board_is_all_zeros_but_for_its_slots():
    samples = parsed(Scoreboard(3))
    assert samples.pop("flash_slots") == 3
    assert set(samples.values()) == {0}


def test_every_outcome_and_every_state_has_a_sample_from_the_start():
    samples = parsed(Scoreboard(1))
    for outcome in Outcome:
        assert f'flash_requests_total{{outcome="{outcome.name.lower()}"}}' in samples
    states = {name.partition("{")[2] for name in samples if name.startswith("flash_workers{")}
    assert states == {f'state="{state}"}}' for state in ("booting", "ready", "draining", "wedged")}


def test_the_samples_are_the_boards():
    board = Scoreboard(2)
    first, second, spare = board.records
    for number, outcome in enumerate(Outcome):
        for _ in range(number + 1):
            first.count(outcome, 0.25)
        second.count(outcome, 0.5)
    first.set_state(State.READY, 1)
    second.set_state(State.DRAINING, 2)
    spare.set_state(State.BOOTING, 3)
    first.set_requests(running=3, waiting=4)
    second.set_requests(running=1, waiting=0)
    board.restarts, board.given_up, board.cut_by_kill = 5, 1, 10
    samples = parsed(board)
    for number, outcome in enumerate(Outcome):
        expected = number + 2 + (10 if outcome is Outcome.CUT else 0)
        assert samples[f'flash_requests_total{{outcome="{outcome.name.lower()}"}}'] == expected
    assert samples["flash_request_seconds_total"] == 0.25 * 36 + 0.5 * 8
    assert (samples["flash_requests_running"], samples["flash_requests_waiting"]) == (4, 4)
    for state in ("booting", "ready", "draining"):
        assert samples[f'flash_workers{{state="{state}"}}'] == 1
    assert (samples["flash_slots"], samples["flash_slots_given_up"]) == (2, 1)
    assert samples["flash_worker_restarts_total"] == 5


def test_a_wedged_worker_is_not_a_ready_one():
    board = Scoreboard(2, stall_timeout=5)
    for number in range(2):
        board.records[number].set_state(State.READY, number + 1)
    board.records[0].set_beat(time.monotonic(), time.monotonic() - 6)
    samples = parsed(board)
    assert (samples['flash_workers{state="ready"}'], samples['flash_workers{state="wedged"}']) == (1, 1)


def test_counters_outlive_the_worker_that_counted():
    board = Scoreboard(1)
    record = board.records[0]
    record.count(Outcome.ANSWERED, 1.5)
    record.set_requests(running=1, waiting=1)
    record.prepare(slot=0)
    samples = parsed(board)
    assert samples['flash_requests_total{outcome="answered"}'] == 1
    assert samples["flash_request_seconds_total"] == 1.5
    assert (samples["flash_requests_running"], samples["flash_requests_waiting"]) == (0, 0)


@given(st.floats(0, 1e300))
def test_any_number_of_seconds_is_written_as_it_is(seconds):
    board = Scoreboard(1)
    board.records[0].count(Outcome.ANSWERED, seconds)
    assert parsed(board)["flash_request_seconds_total"] == seconds


def test_the_content_type_names_the_formats_version():
    assert TYPE.split("; ")[:2] == ["text/plain", "version=0.0.4"]
