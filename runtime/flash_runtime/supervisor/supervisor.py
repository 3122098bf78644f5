"""The supervisor: gunicorn's arbiter, made to keep slots.

Each slot has one worker, and a replacement takes its predecessor's slot and device. User code that cannot
start is tried a few times, further and further apart, and then ends the process with the fault's exit code
and the user's own traceback last in the log. Workers that are wedged, have served for long or have grown are
replaced while others serve. The health process is kept alive too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from flash_runtime.errors import EXIT_OK, EXIT_SOFTWARE, Fault, boot_timeout_fault
from flash_runtime.monitoring.scoreboard import Outcome, Phase, Record, State
from flash_runtime.supervisor.arbiter import Application
from flash_runtime.supervisor.deadlines import MARGIN_SECONDS, Deadlines
from flash_runtime.supervisor.renewals import Renewals
from flash_runtime.supervisor.slots import Keeping, WorkerProcess, limit_with_jitter
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import describe_end, end_children_of, stop_signals_held
from flash_runtime.system.stack_dump import StackFile
from flash_runtime.worker.server import DEVICE_LOST
from flash_runtime.worker.worker import FlashWorker, Launch

log = logging.getLogger("flash_runtime.supervisor")

_NO_PROCESS_SECONDS = 1.0
"""How long to wait before another try where the system had no room for a process."""
_SWEEP_SECONDS = 0.5
"""How long the workers have to take the connections that came before a stop."""


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
        super().__init__(Application(launch, len(slots)))
        self.LISTENERS = listeners
        self._launch = launch
        self._settings = launch.settings
        self._board = launch.board
        self._keeping = [Keeping(slot) for slot in slots]
        self._stack_files = [StackFile() for _ in self._board.records]
        self._deadlines = Deadlines(self._settings, self._board, self._stack_files)
        self._renewals = Renewals(self._keeping, self._board, self._spawn, self._tell_to_end)
        self._start_health = start_health
        self._health_pid = health_pid
        self._last_ready = time.monotonic()
        self._stopping = False
        self._in_a_hurry = False
        self._next: tuple[Slot, Record] | None = None
        self._boot_fault: tuple[int, str] | None = None

    def start(self) -> None:
        super().start()
        log.info(
            "listening on port %d",
            self._settings.port,
            extra={
                "health": f":{self._settings.port_health}{self._settings.health_path}",
                "workers": len(self._keeping),
                "routes": [f"{route.method} {route.path}" for route in self._launch.package.routes],
            },
        )
        self._board.phase = Phase.RUNNING

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """The signals that came; waits for less where there is something to wait for besides."""
        waiting = any(not each.worker and not each.given_up for each in self._keeping)
        soon = waiting or self._renewals.under_way or not self._launch.startup.reported
        return list(super().wait_for_signals(0.1 if soon else timeout))

    # What to keep running.

    def manage_workers(self) -> None:
        """Fork a worker for every free slot whose time has come, and renew those that are due.

        Gives up where no slot can boot.
        """
        now = time.monotonic()
        if self._board.any_ready():
            self._last_ready, self._boot_fault = now, None
            self._launch.startup.report(self._board)
        self._give_up_if_hopeless(now)
        self._tell_failing()
        for keeping in self._keeping:
            if keeping.worker is None and not keeping.given_up and now >= keeping.not_before:
                keeping.worker = self._spawn(keeping.slot)
                keeping.not_before = now + _NO_PROCESS_SECONDS
        self._renewals.step()
        self._keep_health()

    def _spawn(self, slot: Slot) -> WorkerProcess | None:
        """Fork a worker for the slot; `None` where the system has no room for a process."""
        taken = {each.record.number for each in self._processes()}
        record = next(each for each in self._board.records if each.number not in taken)
        record.prepare(slot.number)
        self._next = slot, record
        try:
            with stop_signals_held():
                pid = self.spawn_worker()
        except OSError as error:
            log.error("no worker can be started for slot %d: %s", slot.number, error.strerror)
            return None
        return WorkerProcess(
            pid,
            record,
            time.monotonic(),
            limit_with_jitter(self._settings.max_requests),
            limit_with_jitter(self._settings.max_rss_bytes),
            record.requests(),
        )

    def prepare_worker(self, worker: FlashWorker) -> None:
        """gunicorn's `pre_fork` hook: tell the worker to be which slot it has."""
        assert self._next is not None, "a worker is only forked for a slot"
        worker.slot, worker.record = self._next
        worker.stack_file = self._stack_files[worker.record.number]
        worker.launch = self._launch

    def _tell_to_end(self, worker: WorkerProcess) -> None:
        if worker.told_at is None:
            worker.told_at = time.monotonic()
            worker.record.tell(True)
            self.kill_worker(worker.pid, signal.SIGTERM)

    def _processes(self) -> Iterator[WorkerProcess]:
        for keeping in self._keeping:
            yield from keeping.processes()

    def murder_workers(self) -> None:
        """End workers that boot, drain or stand still for longer than they may."""
        # gunicorn's own timeout never ends a hung import.
        for worker in self._processes():
            why = self._deadlines.why_end(worker)
            if why is not None:
                worker.killed_for = why
                self.kill_worker(worker.pid, signal.SIGKILL)

    def handle_hup(self) -> None:
        """SIGHUP replaces every worker, one by one: each imports the application anew, as it is now."""
        log.info("told to replace the workers, one by one")
        try:
            self._launch = self._launch.read_again()
        except Fault as fault:
            log.error("%s, and the workers serve on", fault)
        else:
            self._renewals.ask_for_all()

    def _keep_health(self) -> None:
        if self._health_pid == 0:
            try:
                self._health_pid = self._start_health()
            except OSError as error:
                log.error("no health process can be started: %s", error.strerror)

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
                end_children_of(pid)
                self._on_worker_end(pid, status)
            elif pid == self._health_pid and not self._stopping:
                log.error("the health process ended (%s); starting another", describe_end(status))
                self._health_pid = 0
                self._keep_health()

    def _on_worker_end(self, pid: int, status: int) -> None:
        keeping, worker = next(
            (keeping, each) for keeping in self._keeping for each in keeping.processes() if each.pid == pid
        )
        self._note_end(keeping, worker, status)
        self._tell_failing()
        worker.record.clear()  # last, so that health finds the rest when it finds the worker gone

    def _tell_failing(self) -> None:
        now = time.monotonic()
        self._board.failing = any(each.is_failing(now) for each in self._keeping)

    def _note_end(self, keeping: Keeping, worker: WorkerProcess, status: int) -> None:
        record = worker.record
        state, since, cut = record.state, record.since, record.in_flight
        was_successor = worker is keeping.successor
        if was_successor:
            keeping.successor = None
        else:
            keeping.worker, keeping.successor = keeping.successor, None
        self._board.cut_by_kill += cut
        if self._stopping:
            return
        how = f"worker of slot {keeping.slot.number} ended ({worker.how_ended(status)})"
        if worker.told_at is not None:
            level = logging.INFO if os.WIFEXITED(status) and not cut else logging.ERROR
            log.log(level, "%s, as it was told; requests in flight: %d", how, cut)
            return
        self._board.restarts += 1
        served = state in (State.READY, State.DRAINING)
        if was_successor:
            why = f"{how}; requests in flight: {cut}" if served else self._why(worker, status)[1]
            self._renewals.call_off(keeping, why)
            return
        now = time.monotonic()
        fault = record.fault()
        device_lost = fault is not None and fault[0] == DEVICE_LOST
        delay = keeping.note_end(now, now - since if served else None, device_lost=device_lost)
        if keeping.given_up:
            self._on_given_up(keeping, worker)
        elif served:
            log.error(
                "%s; requests in flight: %d; another starts in %g s%s",
                how, cut, delay, f"\n{fault[1]}" if fault else "",
            )  # fmt: skip
        else:
            self._boot_fault = self._why(worker, status)
            # The last one is told of at the end, once.
            why = "" if self._is_hopeless(now) else f"\n{self._boot_fault[1]}"
            slot, tried = keeping.slot.number, keeping.boots_failed
            log.error("worker of slot %d could not boot, try %d%s", slot, tried, why)

    def _on_given_up(self, keeping: Keeping, worker: WorkerProcess) -> None:
        fault = worker.record.fault()
        why = fault[1] if fault else "Its device was lost."
        self._board.given_up = sum(each.given_up for each in self._keeping)
        log.critical("slot %d is given up: its device keeps failing\n%s", keeping.slot.number, why)
        if all(each.given_up for each in self._keeping):
            self._boot_fault = EXIT_SOFTWARE, why

    def _why(self, worker: WorkerProcess, status: int) -> tuple[int, str]:
        """The exit code and the text of why a worker could not boot."""
        if worker.killed_for is not None:
            return EXIT_SOFTWARE, str(boot_timeout_fault(self._settings.boot_timeout))
        silent = f"The process ended while it imported user code: {describe_end(status)}."
        return worker.record.fault() or (EXIT_SOFTWARE, silent)

    def _give_up_if_hopeless(self, now: float) -> None:
        if self._boot_fault is not None and self._is_hopeless(now):
            self._board.phase = Phase.FAILED
            raise HaltServer("the application cannot be served", self._boot_fault[0])

    def _is_hopeless(self, now: float) -> bool:
        """Whether no worker can serve, and none will."""
        if self._boot_fault is None or self._board.any_ready():
            return False
        tried_all = all(
            each.given_up or (each.boots_failed >= self._settings.boot_tries and each.worker is None)
            for each in self._keeping
        )
        # A fault of the artifact's is the same at every try; one of user code may be the network's.
        certain = self._boot_fault[0] != EXIT_SOFTWARE
        return certain or tried_all or now - self._last_ready > self._settings.boot_timeout

    # Stopping.

    def stop(self, graceful: bool = True) -> None:
        """Turn health, wait until that was seen, refuse new connections, let the workers finish.

        The health process ends last.
        """
        self._stopping = True
        if self._board.phase is not Phase.FAILED:
            if graceful and not self._in_a_hurry and self._board.any_ready():
                self._board.phase = Phase.LEAVING
                self._await(lambda: self._in_a_hurry, self._settings.drain_delay)
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
        if self._health_pid:
            try:
                os.kill(self._health_pid, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def _await(self, condition: Callable[[], bool], seconds: float, poll: float = 0.1) -> None:
        limit = time.monotonic() + seconds
        self.reap_workers()
        while not condition() and time.monotonic() < limit:
            for number in super().wait_for_signals(timeout=poll):
                if number in (signal.SIGINT, signal.SIGQUIT):
                    log.warning("told to stop again: not waiting for requests in flight")
                    self._in_a_hurry = True
                    self.kill_workers(signal.SIGKILL)
                elif number == signal.SIGTERM:
                    self._in_a_hurry = True
            self.reap_workers()

    def halt(self, reason: str | None = None, exit_status: int = EXIT_OK) -> None:
        """End the process. Where user code could not start, why is the last thing in the log."""
        log.info("stopping" if exit_status == EXIT_OK else f"giving up: {reason}")
        before = self._board.outcomes()[Outcome.CUT]
        self.stop()
        if exit_status != EXIT_OK and self._boot_fault is not None:
            log.critical("%s", self._boot_fault[1])
        else:
            log.info("stopped", extra={"requests_cut_off": self._board.outcomes()[Outcome.CUT] - before})
        sys.exit(exit_status)

    def handle_int(self) -> None:
        """Ctrl-C stops as SIGTERM does, without the wait before; a second one does not wait for anything."""
        self._in_a_hurry = True
        raise StopIteration

    def handle_quit(self) -> None:
        """SIGQUIT stops without waiting for requests in flight."""
        self.stop(graceful=False)
        raise StopIteration

    def _ignore(self) -> None:
        log.warning("this signal does nothing here: slots are fixed and settings are read once, at start")

    handle_ttin = handle_ttou = handle_usr1 = handle_usr2 = handle_winch = _ignore
