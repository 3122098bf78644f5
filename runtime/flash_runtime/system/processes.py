"""How the container's processes are forked, limited, stopped and described."""

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
    """Hold stop signals back during a fork: the child would run its copy of the parent's handlers.

    The child calls `let_stop_signals_through` once it has its own handlers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_stop_signals_through() -> None:
    """Deliver stop signals again, including those that were held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process the signal `number` when its parent ends (only on Linux).

    prctl(2), PR_SET_PDEATHSIG. Ends the process if the parent has already ended.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def be_first_to_run_out_of_memory() -> None:
    """Have the kernel end this process before its supervisor if memory runs out (only on Linux).

    proc(5), oom_score_adj: 500 of 1000 counts as much as half of all memory.
    """
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass  # not Linux, or the container was started with a higher value: lowering it needs privileges


def scratch_directory() -> str:
    """A directory for temporary files."""
    import tempfile  # not needed by health, which starts first

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        # A container with a read-only root can still write there.
        return "/dev/shm"  # noqa: S108


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as allowed. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return min(soft, _DESCRIPTORS) if soft != resource.RLIM_INFINITY else _DESCRIPTORS
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft  # macOS says that the hard limit is infinite, and has a lower one
    return wanted


def resident_bytes(pid: int) -> int:
    """How much memory the process uses (only on Linux; elsewhere 0).

    proc(5), statm: the second number is resident pages, including shared ones.
    """
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()


def end_children_of(leader: int) -> None:
    """End the processes that a worker left behind: those of its group, which hold its device."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # there are none, or they are not ours


def describe_end(status: int) -> str:
    """How a child ended, in words. `status` comes from waitpid(2)."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    if -code == signal.SIGKILL:
        return "SIGKILL, perhaps out of memory"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"  # a real-time signal, which has no name
