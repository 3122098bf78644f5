"""Metrics: the scoreboard as text for Prometheus (its exposition format, version 0.0.4).

Standard library only: the health process serves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flash_runtime.monitoring.scoreboard import Scoreboard, State

TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, float]


def render(board: Scoreboard) -> bytes:
    """Every metric with its help text. Counters start with the container."""
    return "".join(line + "\n" for line in _lines(board)).encode()


def _lines(board: Scoreboard) -> Iterator[str]:
    records = board.records
    ready = len(board.ready())
    states = {
        state: sum(each.state is state for each in records) for state in State if state is not State.EMPTY
    }
    states[State.READY] = ready
    wedged = sum(each.state is State.READY for each in records) - ready
    outcomes = board.outcomes()
    yield from _metric(
        "flash_requests_total",
        "counter",
        "Requests that have ended, by outcome.",
        ((f'{{outcome="{outcome.name.lower()}"}}', count) for outcome, count in outcomes.items()),
    )
    seconds = sum(each.seconds for each in records)
    yield from _metric(
        "flash_request_seconds_total",
        "counter",
        "Seconds from a request's arrival to its end, added up.",
        [("", seconds)],
    )
    running, waiting = (sum(getattr(each, name) for each in records) for name in ("running", "waiting"))
    yield from _metric("flash_requests_running", "gauge", "Requests that are running.", [("", running)])
    yield from _metric("flash_requests_waiting", "gauge", "Requests that are waiting.", [("", waiting)])
    workers = [(f'{{state="{state.name.lower()}"}}', count) for state, count in states.items()]
    workers.append(('{state="wedged"}', wedged))
    yield from _metric("flash_workers", "gauge", "Workers by state.", workers)
    yield from _metric("flash_slots", "gauge", "Slots for workers.", [("", board.slots)])
    yield from _metric(
        "flash_slots_given_up",
        "gauge",
        "Slots that are not used because their device keeps failing.",
        [("", board.given_up)],
    )
    yield from _metric(
        "flash_worker_restarts_total", "counter", "Workers that ended unexpectedly.", [("", board.restarts)]
    )


def _metric(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value}"
