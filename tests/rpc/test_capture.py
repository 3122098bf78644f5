"""Capture: a call's lines, up to a limit, and an unfinished last line."""

from __future__ import annotations

import sys

from flash_runtime.logs.context import show_to_reader
from flash_runtime.logs.prints import capture_prints
from flash_runtime.rpc.capture import LIMIT, Capture, capturing


def test_lines_past_the_limit_are_counted():
    capture = Capture()
    with capturing(capture):
        for _ in range(3):
            show_to_reader("x" * (LIMIT // 2))
    show_to_reader("later")
    assert capture.text() == "x" * (LIMIT // 2) + "\n… and 2 more lines, which are in the log\n"


def test_a_line_without_an_end_is_captured_when_the_block_ends(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    capture_prints()
    capture = Capture()
    with capturing(capture):
        print("no end", end="")
    assert capture.text() == "no end\n"
