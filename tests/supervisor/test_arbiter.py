"""What we use of gunicorn's arbiter: each test names what a new release has moved."""

import inspect
import signal

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from flash_runtime.supervisor.arbiter import FlashArbiter

CALLED = {
    "run": ["self"],
    "start": ["self"],
    "wait_for_signals": ["self", "timeout"],
    "manage_workers": ["self"],
    "murder_workers": ["self"],
    "reap_workers": ["self"],
    "spawn_worker": ["self"],
    "kill_worker": ["self", "pid", "sig"],
    "kill_workers": ["self", "sig"],
    "stop": ["self", "graceful"],
    "halt": ["self", "reason", "exit_status"],
}
"""What gunicorn's loop calls of ours, and what we call of gunicorn's."""


@pytest.mark.parametrize("name", CALLED)
def test_gunicorns_arbiter_has_the_methods_that_we_override_and_call(name):
    assert list(inspect.signature(getattr(Arbiter, name)).parameters) == CALLED[name]


def test_every_signal_that_gunicorn_handles_is_handled_or_ignored_by_us():
    names = {name for name in dir(Arbiter) if name.startswith("handle_")}
    ours = {name for name in vars(FlashArbiter) if name.startswith("handle_")}
    left_to_gunicorn = {"handle_chld", "handle_cld", "handle_term"}
    assert {name for name in names if hasattr(signal, f"SIG{name.removeprefix('handle_').upper()}")} <= (
        ours | left_to_gunicorn
    )


def test_gunicorn_makes_a_worker_of_these_arguments():
    # Ours takes its assignment before them.
    made = ["self", "age", "ppid", "sockets", "app", "timeout", "cfg", "log"]
    assert list(inspect.signature(Worker.__init__).parameters) == made
    assert "self.worker_class(self.worker_age, self.pid, self.LISTENERS," in inspect.getsource(
        Arbiter.spawn_worker
    )
