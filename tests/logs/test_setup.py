"""What `logs` writes, read back from a real process's standard error."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, logging, sys
from flash_runtime.logs import context, prints, setup as logs
logs.configure("INFO", {style!r})
logs.set_slot(3)
prints.capture_prints()
log = logging.getLogger("shop")
{body}
"""


def lines(body: str, style: str = "json") -> list[str]:
    program = PROGRAM.format(style=style, body=body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_an_event_is_one_json_object_on_one_line():
    (line,) = lines('log.info("a\\nb %s", "c", extra={"count": 2, "odd": object})')
    event = json.loads(line)
    assert event["message"] == "a\nb c"
    assert (event["level"], event["logger"], event["slot"], event["count"]) == ("INFO", "shop", 3, 2)
    assert event["time"].endswith("Z")


def test_a_traceback_stays_on_the_events_line():
    (line,) = lines('try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception("failed")')
    assert json.loads(line)["traceback"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_log_call_that_cannot_be_formatted_fails_nobody(style):
    (first, second) = lines('log.info("%d", "no number")\nlog.info("next")', style)
    assert "cannot be formatted" in first
    assert "next" in second


def test_prints_become_events_line_by_line():
    found = [
        json.loads(line)
        for line in lines('print("a", end="")\nprint("b\\nc")\nprint("d", end="", flush=True)')
    ]
    assert [event["message"] for event in found] == ["ab", "c", "d"]
    assert {event["logger"] for event in found} == {"stdout"}


def test_half_lines_of_tasks_at_the_same_time_do_not_mix():
    body = """
async def talk(word):
    context.request_id.set(word)
    for letter in word:
        print(letter, end="")
        await asyncio.sleep(0)
    print()

async def main():
    await asyncio.gather(*[asyncio.create_task(talk(word)) for word in ("first", "other")])

asyncio.run(main())
"""
    found = [json.loads(line) for line in lines(body)]
    assert sorted((event["message"], event["request_id"]) for event in found) == [
        ("first", "first"),
        ("other", "other"),
    ]


def test_a_warning_becomes_an_event():
    (line,) = lines('import warnings\nwarnings.warn("old", stacklevel=1)')
    assert json.loads(line)["level"] == "WARNING"


def test_text_names_slot_request_and_extras():
    (line,) = lines('context.request_id.set("r1")\nlog.info("hello", extra={"ms": 1.5})', "text")
    assert "[3] (r1) hello ms=1.5" in line
