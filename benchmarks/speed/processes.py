"""Runs a server on one core, in a session of its own, and ends the whole of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STOP_SECONDS = 3


@dataclass(frozen=True)
class Cores:
    """One core for the server with all of its processes, another for whoever asks."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> Cores:
        """The first core that this process may use makes the load, the last one serves."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise SystemExit(
                "a server and its load need two cores, and this process may use one: give it two"
            )
        return cls(server=allowed[-1], load=allowed[0])


@dataclass(frozen=True)
class Group:
    """A running server: the process that was started, which leads a session of its own, and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def members(self) -> list[int]:
        """The pids of all processes of the session: some servers give their workers process groups."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The fields after the name, which may have spaces: state, parent, group, session.
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(stat.parent.name))
        return found

    def end(self, *, gently: bool) -> None:
        """Stop it, gently or not, and kill what it leaves behind, as some do."""
        if gently:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_SECONDS)
        while pids := self.members():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.wait()

    def check(self, core: int) -> None:
        """End the run where a server has ended, or has let a process of its own onto another core."""
        if self.process.poll() is not None:
            raise SystemExit(f"the server ended with {self.process.returncode}:\n{self.last_lines()}")
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                if os.sched_getaffinity(pid) != {core}:
                    raise SystemExit(f"process {pid} of {self.process.args} has left core {core}")

    def ending(self) -> str:
        """How the server has ended, and what it logged last; nothing while it runs."""
        if self.process.poll() is None:
            return ""
        last = self.last_lines().rstrip().rpartition("\n")[2]
        return f"; the server ended with {self.process.returncode}: {last}"

    def last_lines(self) -> str:
        return self.log.read_bytes()[-4000:].decode(errors="replace")


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    directory: Path,
    log: Path,
    core: int,
    *,
    gently: bool = True,
) -> Iterator[Group]:
    """The command on this core until the block ends; both of its outputs go to the file `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            cwd=directory,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        group = Group(process, log)
        try:
            yield group
        finally:
            group.end(gently=gently)
