"""The access log: any line can be read whatever a client sent, and batches fit what a pipe keeps whole."""

import asyncio
import json
import logging
import os
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.gateway import access_log as access
from flash_runtime.gateway.access_log import AccessLog
from flash_runtime.monitoring.scoreboard import Outcome

PIPE_BUF = 4096


def call(path=b"/a", request_id="id-1", status=200, route="/a", method="GET"):
    """What the log reads of a call."""
    return SimpleNamespace(
        head=SimpleNamespace(method=method, raw_path=path),
        status=status,
        request_id=request_id,
        target=SimpleNamespace(path=route),
    )


def written(monkeypatch, style, calls, outcome=Outcome.ANSWERED, seconds=0.00123):
    """What is written, a piece a system call, for calls that end in one turn of the loop."""
    pieces = []
    monkeypatch.setattr(access.logs, "write", pieces.append)

    async def end() -> None:
        log = AccessLog(style, 3)
        for each in calls:
            log.add(each, outcome, seconds)
        await asyncio.sleep(0)

    asyncio.run(end())
    return pieces


def test_a_json_line_says_what_came_of_the_request(monkeypatch):
    (piece,) = written(monkeypatch, "json", [call(b"/a/%20", route="/a/{b}")])
    line = json.loads(piece)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "flash_runtime.access",
        "message": "GET /a/%20 200",
        "slot": 3,
        "request_id": "id-1",
        "method": "GET",
        "route": "/a/{b}",
        "status": 200,
        "ms": 1.23,
    }


def test_a_text_line_says_the_same(monkeypatch):
    (piece,) = written(monkeypatch, "text", [call()])
    pattern = r"\d\d:\d\d:\d\d\.\d{3} INFO    \[3\] \(id-1\) GET /a 200 "
    assert re.fullmatch(pattern + r"method=GET route=/a status=200 ms=1\.23\n", piece.decode())


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_client_that_left_is_499_with_the_outcome(monkeypatch, style):
    (piece,) = written(monkeypatch, style, [call(status=0)], Outcome.GONE_RUNNING)
    assert b" 499" in piece
    assert b"gone_running" in piece


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_request_that_has_no_target_yet_has_a_line(monkeypatch, style):
    bare = call()
    bare.target = None
    (piece,) = written(monkeypatch, style, [bare])
    assert (b'"route":null' if style == "json" else b"route=None") in piece


hostile = st.binary(max_size=30).map(lambda path: b"/" + path)


@given(st.lists(hostile, min_size=1, max_size=5))
def test_any_path_is_one_json_line(paths):
    with pytest.MonkeyPatch.context() as monkeypatch:
        pieces = written(monkeypatch, "json", [call(path) for path in paths])
    lines = b"".join(pieces).splitlines()
    assert [json.loads(line)["message"] for line in lines] == [
        f"GET {path.decode('latin-1')} 200" for path in paths
    ]


@pytest.mark.parametrize("request_id", ['"}', "\\", "é", "x" * 128, '","status":500,"a":"'])
def test_any_request_id_is_one_value(monkeypatch, request_id):
    (piece,) = written(monkeypatch, "json", [call(request_id=request_id)])
    line = json.loads(piece)
    assert (line["request_id"], line["status"]) == (request_id, 200)


@given(st.lists(st.integers(1, 3 * PIPE_BUF), max_size=30), st.sampled_from(["json", "text"]))
def test_a_batch_is_no_longer_than_a_pipe_keeps_whole_unless_one_line_is(lengths, style):
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = [call(b"/" + b"x" * length, request_id=str(at)) for at, length in enumerate(lengths)]
        pieces = written(monkeypatch, style, calls)
    assert all(len(piece) <= PIPE_BUF or piece.count(b"\n") == 1 for piece in pieces)
    assert all(piece.endswith(b"\n") for piece in pieces)
    lines = b"".join(pieces).decode().splitlines()
    ids = [json.loads(line)["request_id"] if style == "json" else line.split("(")[1][:-1] for line in lines]
    assert [each.partition(")")[0] for each in ids] == [str(at) for at in range(len(lengths))]


def test_short_lines_of_one_turn_share_a_write(monkeypatch):
    assert len(written(monkeypatch, "json", [call()] * 10)) == 1


def test_what_is_not_written_yet_is_written_by_a_flush(monkeypatch):
    pieces = []
    monkeypatch.setattr(access.logs, "write", pieces.append)

    async def end() -> None:
        log = AccessLog("text", 0)
        log.add(call(), Outcome.ANSWERED, 1.0)
        log.flush()
        assert len(pieces) == 1
        await asyncio.sleep(0)
        log.flush()

    asyncio.run(end())
    assert len(pieces) == 1


@pytest.mark.parametrize(("level", "is_there"), [("INFO", True), ("WARNING", False)])
def test_there_is_none_where_the_level_leaves_its_lines_out(level, is_there):
    log = logging.getLogger(access.NAME)
    before = log.level
    log.setLevel(level)
    try:
        assert (AccessLog.make("json", 0) is not None) == is_there
    finally:
        log.setLevel(before)


def test_the_batch_is_what_this_system_keeps_whole():
    reader, writer = os.pipe()
    try:
        assert os.fpathconf(writer, "PC_PIPE_BUF") >= access._BATCH_BYTES
    finally:
        os.close(reader)
        os.close(writer)
