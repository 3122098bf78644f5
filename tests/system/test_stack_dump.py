"""Stacks: what a process that cannot say where it is says when asked by a signal."""

import os
import signal
import time
from contextlib import contextmanager

import pytest

from flash_runtime.system.stack_dump import StackFile

pytestmark = pytest.mark.smoke


@pytest.fixture
def file():
    made = StackFile()
    yield made
    made._file.close()


def stand_still(ready):
    # On one line: whoever has read the byte may ask before the sleep has begun.
    os.write(ready, b"!"), time.sleep(60)


def listen_twice(file):
    # As a worker does: before user code is imported, and after, since that may have set signals.
    for _ in range(2):
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        file.listen()


@contextmanager
def child(file, listen=StackFile.listen):
    """A forked process that listens and stands still."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            listen(file)
            stand_still(writer)
        finally:
            os._exit(1)
    try:
        assert os.read(reader, 1) == b"!"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def test_a_child_that_stands_still_says_in_which_function(file):
    with child(file) as pid:
        lines = file.ask(pid).splitlines()
    assert "most recent call first" in lines[0]
    assert lines[1].endswith("in stand_still")
    assert any(line.endswith("in child") for line in lines[2:])


def test_an_answer_takes_the_place_of_the_one_before(file):
    with child(file) as pid:
        answers = [file.ask(pid) for _ in range(3)]
    assert answers[0]
    assert answers == [answers[0]] * 3


def test_a_child_that_listens_anew_still_answers(file):
    with child(file, listen_twice) as pid:
        answer = file.ask(pid)
    assert "in stand_still" in answer


def test_a_stopped_child_gives_nothing_and_nobody_waits_long_for_it(file):
    with child(file) as pid:
        assert file.ask(pid)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        began = time.monotonic()
        assert file.ask(pid) == ""
        assert time.monotonic() - began < 2


def test_a_child_that_is_gone_gives_nothing(file):
    with child(file) as pid:
        assert file.ask(pid)
    assert file.ask(pid) == ""
