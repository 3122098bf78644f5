"""The arbiter: gunicorn's side of the supervisor. It forks, signals and reaps; the supervisor decides.

gunicorn's arbiter is made for subclasses of its own kind only: its loop calls `manage_workers`,
`murder_workers` and `reap_workers`, and a handler for each signal. `pyproject.toml` bounds the version.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from flash_runtime.config.settings import Settings
from flash_runtime.errors import EXIT_OK
from flash_runtime.monitoring.health_process import HealthKeeper
from flash_runtime.monitoring.scoreboard import Outcome, Phase
from flash_runtime.supervisor.deadlines import MARGIN_SECONDS
from flash_runtime.supervisor.supervisor import Supervisor
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import end_children_of, scratch_directory, stop_signals_held
from flash_runtime.worker.worker import Assignment, FlashWorker, Launch

log = logging.getLogger("flash_runtime.supervisor")

_SWEEP_SECONDS = 0.5
"""How long the workers have to take the connections that came before a stop."""


class FlashArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs until it is stopped, or until no slot can boot; `run` ends in `SystemExit`."""

    worker_class: Callable[..., FlashWorker]
    """gunicorn's: what it makes the next worker with."""

    def __init__(
        self,
        launch: Launch,
        slots: tuple[Slot, ...],
        listeners: list[socket.socket],
        health: HealthKeeper,
    ) -> None:
        super().__init__(_Application(launch.settings, len(slots)))
        self.LISTENERS = listeners
        self._settings = launch.settings
        self._package = launch.package
        self._slots = len(slots)
        self._board = launch.board
        self._health = health
        self._supervisor = Supervisor(launch, slots, health, self)
        self._hurry = False
        """Whether a stop was requested that does not wait."""

    # What the supervisor asks for (`supervisor.Processes`).

    def fork(self, assignment: Assignment) -> int:
        """Fork a worker; returns its pid. Raises `OSError` if the system has no room for a process."""
        self.worker_class = partial(FlashWorker, assignment)
        with stop_signals_held():
            pid: int = self.spawn_worker()
        return pid

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send the worker a signal."""
        self.kill_worker(pid, number)

    # What gunicorn's loop calls.

    def start(self) -> None:
        """Say what is served."""
        super().start()
        settings = self._settings
        log.info(
            "listening on port %d",
            settings.port,
            extra={
                "health": f":{settings.port_health}{settings.health_path}",
                "workers": self._slots,
                "routes": [str(route) for route in self._package.routes],
            },
        )
        self._board.phase = Phase.RUNNING

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """The signals that came; waits for less while the supervisor waits for something else."""
        return list(super().wait_for_signals(0.1 if self._supervisor.is_waiting else timeout))

    def manage_workers(self) -> None:
        """Keep every slot's worker running; end the process if none can."""
        exit_code = self._supervisor.manage()
        if exit_code is not None:
            self._board.phase = Phase.FAILED
            raise HaltServer("the application cannot be served", exit_code)

    def murder_workers(self) -> None:
        """End workers that boot, drain or stand still for longer than they may."""
        # gunicorn's own timeout never ends a hung import.
        self._supervisor.end_overdue()

    def reap_workers(self) -> None:
        """Note every child that has ended, whether ours or, as PID 1, an orphan of others."""
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
                end_children_of(pid)
                self._supervisor.on_worker_end(pid, status)
            else:
                self._supervisor.on_other_end(pid, status)

    # Signals.

    def handle_hup(self) -> None:
        """SIGHUP replaces every worker, one by one: each imports the application again, as it is now."""
        self._supervisor.replace_all()

    def handle_int(self) -> None:
        """Ctrl-C stops as SIGTERM does, without the wait before; a second one does not wait for anything."""
        self._hurry = True
        raise StopIteration

    def handle_quit(self) -> None:
        """SIGQUIT stops without waiting for requests in flight."""
        self.stop(graceful=False)
        raise StopIteration

    def _ignore(self) -> None:
        log.warning("this signal does nothing here: slots are fixed and settings are read once, at start")

    handle_ttin = handle_ttou = handle_usr1 = handle_usr2 = handle_winch = _ignore

    # Stopping.

    def stop(self, graceful: bool = True) -> None:
        """Turn health, wait until that was seen, refuse new connections, let the workers finish.

        The health process ends last.
        """
        self._supervisor.stop_replacing()
        if self._board.phase is not Phase.FAILED:
            if graceful and not self._hurry and self._board.any_ready():
                self._board.phase = Phase.LEAVING
                self._await(lambda: self._hurry, self._settings.drain_delay)
            self._board.phase = Phase.DRAINING
        for listener in self.LISTENERS:
            # With no room for them, the kernel passes over connections that come while the workers take those
            # that are there: their clients try again, and are refused, instead of being cut off.
            listener.listen(0)
        self.kill_workers(signal.SIGTERM if graceful else signal.SIGKILL)
        self._await(lambda: not self._board.any_ready(), _SWEEP_SECONDS, poll=0.005)
        for listener in self.LISTENERS:
            try:
                # Closing alone would leave the workers' copies of the socket accepting.
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not every system shuts a listener down; closing has to do there
            listener.close()
        self.LISTENERS = []
        self._await(lambda: not self.WORKERS, self._settings.drain_timeout + MARGIN_SECONDS)
        if self.WORKERS:
            left = sum(record.in_flight for record in self._board.records)
            log.error("workers did not end in time and are killed", extra={"requests": left})
            self.kill_workers(signal.SIGKILL)
            self._await(lambda: not self.WORKERS, MARGIN_SECONDS)
        self._health.terminate()

    def _await(self, condition: Callable[[], bool], seconds: float, poll: float = 0.1) -> None:
        limit = time.monotonic() + seconds
        self.reap_workers()
        while not condition() and time.monotonic() < limit:
            for number in super().wait_for_signals(timeout=poll):
                if number in (signal.SIGINT, signal.SIGQUIT):
                    log.warning("stopped again: not waiting for requests in flight")
                    self._hurry = True
                    self.kill_workers(signal.SIGKILL)
                elif number == signal.SIGTERM:
                    self._hurry = True
            self.reap_workers()

    def halt(self, reason: str | None = None, exit_status: int = EXIT_OK) -> None:
        """End the process. If user code could not start, the reason is the last thing in the log."""
        log.info("stopping" if exit_status == EXIT_OK else f"giving up: {reason}")
        before = self._board.outcomes()[Outcome.CUT]
        self.stop()
        fault = self._supervisor.boot_fault
        if exit_status != EXIT_OK and fault is not None:
            log.critical("%s", fault.text)
        else:
            log.info("stopped", extra={"requests_cut_off": self._board.outcomes()[Outcome.CUT] - before})
        sys.exit(exit_status)


class _Application(BaseApplication):  # type: ignore[misc]
    """What gunicorn wants to be configured by."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._workers = workers
        self._drain_timeout = settings.drain_timeout
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "workers": self._workers,
            "worker_class": FlashWorker,
            "logger_class": _Logger,
            "timeout": 0,  # the boot deadline is the supervisor's own
            "graceful_timeout": round(self._drain_timeout),
            "control_socket_disable": True,
            "worker_tmp_dir": scratch_directory(),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """The workers build their application themselves."""


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

    close_on_exec = reopen_files
