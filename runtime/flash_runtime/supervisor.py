"""The supervisor: gunicorn's arbiter, made to keep slots.

Each slot has one worker, and a replacement takes its predecessor's slot and device. User code that cannot
start is tried a few times, further and further apart, and then ends the process with the fault's exit code
and the user's own traceback last in the log. The health process is kept alive too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from flash_runtime.devices import Slot
from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE, boot_timeout_fault
from flash_runtime.processes import describe_end, stop_signals_held
from flash_runtime.scoreboard import Phase, State
from flash_runtime.worker import FlashWorker, Launch

log = logging.getLogger("flash_runtime.supervisor")

BOOT_TRIES = 3
"""How often each slot tries to boot before the container gives up."""
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_STEADY_SECONDS = 60.0
"""A worker that served for so long is replaced at once; its predecessors' failures are forgotten."""
_KILL_MARGIN_SECONDS = 2.0
"""What a worker gets beyond the drain timeout to cut its requests off itself."""


@dataclass(slots=True)
class _Keeping:
    """What the supervisor remembers of a slot from one worker to the next."""

    slot: Slot
    failures: int = 0
    not_before: float = 0.0
    worker_pid: int = 0
    booting_since: float = 0.0
    too_slow: bool = False
    """Whether the supervisor has ended the worker at the boot deadline."""


class Supervisor(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs until it is told to stop, or until no slot can boot; `run` ends in `SystemExit`."""

    def __init__(
        self,
        launch: Launch,
        slots: tuple[Slot, ...],
        listeners: list[socket.socket],
        start_health: Callable[[], int],
        health_pid: int,
    ) -> None:
        super().__init__(_Application(launch, len(slots)))
        self.LISTENERS = listeners
        self._launch = launch
        self._board = launch.board
        self._keeping = [_Keeping(slot) for slot in slots]
        self._start_health = start_health
        self._health_pid = health_pid
        self._last_ready = time.monotonic()
        self._stopping = False
        self._next: _Keeping | None = None
        self._boot_fault: tuple[int, str] | None = None

    def start(self) -> None:
        super().start()
        settings = self._launch.settings
        log.info(
            "listening on port %d",
            settings.port,
            extra={
                "health": f":{settings.port_health}{settings.health_path}",
                "workers": len(self._keeping),
                "routes": [f"{route.method} {route.path}" for route in self._launch.package.routes],
            },
        )
        self._board.phase = Phase.RUNNING

    # What to keep running.

    def manage_workers(self) -> None:
        """Fork a worker for every free slot whose time has come; give up where none can boot."""
        now = time.monotonic()
        if self._board.any_ready():
            self._last_ready, self._boot_fault = now, None
        self._give_up_if_hopeless(now)
        for keeping in self._keeping:
            if keeping.worker_pid == 0 and now >= keeping.not_before:
                self._spawn(keeping)

    def _spawn(self, keeping: _Keeping) -> None:
        self._board.clear(keeping.slot.number)
        self._next = keeping
        keeping.booting_since = time.monotonic()
        keeping.too_slow = False
        with stop_signals_held():
            keeping.worker_pid = self.spawn_worker()

    def prepare_worker(self, worker: FlashWorker) -> None:
        """gunicorn's `pre_fork` hook: tell the worker to be which slot it has."""
        assert self._next is not None, "a worker is only forked for a slot"
        worker.slot = self._next.slot
        worker.launch = self._launch

    def murder_workers(self) -> None:
        """End workers that import for longer than the boot deadline."""
        # gunicorn's own timeout never ends a hung import.
        limit = self._launch.settings.boot_timeout
        for keeping in self._keeping:
            booting = self._board.state(keeping.slot.number) in (State.EMPTY, State.BOOTING)
            if keeping.worker_pid and booting and time.monotonic() - keeping.booting_since > limit:
                keeping.too_slow = True
                self.kill_worker(keeping.worker_pid, signal.SIGKILL)

    # What ended.

    def reap_workers(self) -> None:
        """Take note of every child that ended, whether ours or, as PID 1, somebody's orphan."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self.WORKERS.pop(pid, None)
            if worker is not None:
                worker.tmp.close()
                self._on_worker_end(worker.slot, status)
            elif pid == self._health_pid and not self._stopping:
                log.error("the health process ended (%s); starting another", describe_end(status))
                self._health_pid = self._start_health()

    def _on_worker_end(self, slot: Slot, status: int) -> None:
        keeping = self._keeping[slot.number]
        state, since = self._board.state(slot.number), self._board.since(slot.number)
        cut = self._board.in_flight(slot.number)
        keeping.worker_pid = 0
        self._board.set_state(slot.number, State.EMPTY, 0)
        if self._stopping:
            return
        now = time.monotonic()
        served = state in (State.READY, State.DRAINING)
        keeping.failures = 1 if served and now - since >= _STEADY_SECONDS else keeping.failures + 1
        delay = 0.0
        if not (served and keeping.failures == 1):
            delay = min(_FIRST_BACKOFF_SECONDS * 2 ** (keeping.failures - 1), _LONGEST_BACKOFF_SECONDS)
        keeping.not_before = now + delay
        if served:
            fault = self._board.fault(slot.number)
            log.error(
                "worker of slot %d ended (%s); requests in flight: %d; another starts in %g s%s",
                slot.number, describe_end(status), cut, delay, f"\n{fault[1]}" if fault else "",
            )  # fmt: skip
        else:
            self._boot_fault = self._why(keeping, status)
            log.error(
                "worker of slot %d could not boot, try %d\n%s",
                slot.number, keeping.failures, self._boot_fault[1],
            )  # fmt: skip

    def _why(self, keeping: _Keeping, status: int) -> tuple[int, str]:
        """The exit code and the text of why a worker could not boot."""
        if keeping.too_slow:
            return EXIT_SOFTWARE, str(boot_timeout_fault(self._launch.settings.boot_timeout))
        silent = f"The process ended while it imported user code: {describe_end(status)}."
        return self._board.fault(keeping.slot.number) or (EXIT_SOFTWARE, silent)

    def _give_up_if_hopeless(self, now: float) -> None:
        if self._boot_fault is None or self._board.any_ready():
            return
        tried_all = all(
            keeping.failures >= BOOT_TRIES and not keeping.worker_pid for keeping in self._keeping
        )
        # A fault of the artifact's is the same at every try; one of user code may be the network's.
        certain = self._boot_fault[0] != EXIT_SOFTWARE
        too_late = now - self._last_ready > self._launch.settings.boot_timeout
        if certain or tried_all or too_late:
            self._board.phase = Phase.FAILED
            raise HaltServer("the application cannot be started", self._boot_fault[0])

    # Stopping.

    def stop(self, graceful: bool = True) -> None:
        """Turn health, refuse new connections, let the workers finish, end the health process last."""
        self._stopping = True
        if self._board.phase is not Phase.FAILED:
            self._board.phase = Phase.DRAINING
        for listener in self.LISTENERS:
            try:
                # Closing alone would leave the workers' copies of the socket accepting.
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not every system shuts a listener down; closing has to do there
            listener.close()
        self.LISTENERS = []
        self.kill_workers(signal.SIGTERM if graceful else signal.SIGKILL)
        self._await_workers(self._launch.settings.drain_timeout + _KILL_MARGIN_SECONDS)
        if self.WORKERS:
            left = sum(self._board.in_flight(keeping.slot.number) for keeping in self._keeping)
            log.error("workers did not end in time and are killed", extra={"requests": left})
            self.kill_workers(signal.SIGKILL)
            self._await_workers(_KILL_MARGIN_SECONDS)
        try:
            os.kill(self._health_pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    def _await_workers(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        self.reap_workers()
        while self.WORKERS and time.monotonic() < limit:
            for number in self.wait_for_signals(timeout=0.1):
                if number in (signal.SIGINT, signal.SIGQUIT):
                    log.warning("told to stop again: not waiting for requests in flight")
                    self.kill_workers(signal.SIGKILL)
            self.reap_workers()

    def halt(self, reason: str | None = None, exit_status: int = EXIT_OK) -> None:
        """End the process. Where user code could not start, why is the last thing in the log."""
        log.info("stopping" if exit_status == EXIT_OK else f"giving up: {reason}")
        self.stop()
        if exit_status != EXIT_OK and self._boot_fault is not None:
            log.critical("%s", self._boot_fault[1])
        else:
            log.info("stopped")
        sys.exit(exit_status)

    def handle_int(self) -> None:
        """Ctrl-C stops as SIGTERM does; a second one does not wait."""
        raise StopIteration

    def handle_quit(self) -> None:
        """SIGQUIT stops without waiting for requests in flight."""
        self.stop(graceful=False)
        raise StopIteration

    def _ignore(self) -> None:
        log.warning("this signal does nothing here: slots are fixed and settings are read once, at start")

    handle_hup = handle_ttin = handle_ttou = handle_usr1 = handle_usr2 = handle_winch = _ignore


class _Application(BaseApplication):  # type: ignore[misc]
    """What gunicorn wants to be configured by."""

    def __init__(self, launch: Launch, workers: int) -> None:
        self._workers = workers
        self._drain_timeout = launch.settings.drain_timeout
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "workers": self._workers,
            "worker_class": FlashWorker,
            "logger_class": _Logger,
            "timeout": 0,  # the boot deadline is the supervisor's own
            "graceful_timeout": round(self._drain_timeout),
            "control_socket_disable": True,
            "worker_tmp_dir": _scratch_directory(),
            "pre_fork": lambda arbiter, worker: arbiter.prepare_worker(worker),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """The workers build their application themselves."""


def _scratch_directory() -> str:
    """Where gunicorn makes a file for each worker."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        # The one place that a container with a read-only root can write to without being given it.
        return "/dev/shm"  # noqa: S108


class _Logger:
    """gunicorn's messages through this package's logging; its news of every start and stop as debug lines."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self._log = logging.getLogger("gunicorn.error")
        self.debug = self.info = self._log.debug
        self.warning, self.error, self.critical = self._log.warning, self._log.error, self._log.critical
        self.exception, self.log = self._log.exception, self._log.log

    def setup(self, cfg: Any) -> None:
        """Logging is configured already."""

    def reopen_files(self) -> None:
        """There are none: logs go to standard error."""

    def close_on_exec(self) -> None:
        """There are no files to close."""
