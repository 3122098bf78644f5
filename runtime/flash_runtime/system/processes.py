"""What the container's processes share: how they are forked, stopped and spoken of."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DESCRIPTORS = 65536
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Hold stop signals back during a fork: a child would run its copy of the parent's handlers.

    The child lets them through with `let_stop_signals_through`, once it has handlers of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_stop_signals_through() -> None:
    """Deliver stop signals again, with what was held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process `number` when its parent ends (Linux; elsewhere nothing).

    prctl(2), PR_SET_PDEATHSIG. Ends the process where the parent has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def be_first_to_run_out_of_memory() -> None:
    """Have the kernel end this process before its supervisor where memory is short (only on Linux).

    proc(5), oom_score_adj: 500 of 1000 weighs as much as half of the memory that there is.
    """
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass  # no Linux, or the container was started with more already: only lowering needs privileges


def scratch_directory() -> str:
    """Where files can be made that nobody else is to see."""
    import tempfile  # health, which comes first, does without

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        # The one place that a container with a read-only root can write to without being given it.
        return "/dev/shm"  # noqa: S108


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return min(soft, _DESCRIPTORS) if soft != resource.RLIM_INFINITY else _DESCRIPTORS
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft  # macOS calls the hard limit infinite, and has a lower one of its own
    return wanted


def resident_bytes(pid: int) -> int:
    """How much memory the process has in use (only on Linux; elsewhere 0).

    proc(5), statm: pages, of which the second number is resident, shared ones included.
    """
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()


def end_children_of(leader: int) -> None:
    """End what a worker that has ended left behind: the processes of its group, which hold its device."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left, or nothing of ours


def describe_end(status: int) -> str:
    """How a child ended, in words; `status` is what waitpid(2) gives."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    if -code == signal.SIGKILL:
        return "SIGKILL, perhaps out of memory"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"  # one of the real-time signals, which have no names
