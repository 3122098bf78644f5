"""The supervisor: which workers run, and what follows when one ends.

Each slot has one worker, and a replacement takes its predecessor's slot and device. User code that cannot
start is tried a few times, further and further apart. Then the process ends with the fault's exit code, and
the user's own traceback last in the log. Workers that are wedged, have served for long or have grown are
replaced while others serve. The health process is kept alive too.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Protocol

from flash_runtime.errors import EXIT_SOFTWARE, Fault, boot_crash_fault, boot_timeout_fault
from flash_runtime.monitoring.health_process import HealthKeeper
from flash_runtime.monitoring.scoreboard import ReportedFault, State
from flash_runtime.supervisor.deadlines import Deadlines
from flash_runtime.supervisor.replacements import Replacements
from flash_runtime.supervisor.slots import ManagedSlot, WorkerProcess, limit_with_jitter
from flash_runtime.system.devices import Slot
from flash_runtime.system.processes import describe_end
from flash_runtime.system.stack_dump import StackFile
from flash_runtime.worker.server import DEVICE_LOST
from flash_runtime.worker.worker import Assignment, Launch

log = logging.getLogger("flash_runtime.supervisor")

_NO_PROCESS_SECONDS = 1.0
"""How long to wait before the next try if the system had no room for a process."""


class Processes(Protocol):
    """Forks and signals workers for the supervisor."""

    def fork(self, assignment: Assignment) -> int:
        """Fork a worker; returns its pid. Raises `OSError` if the system has no room for a process."""

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send the worker a signal."""


class Supervisor:
    """Decides about the workers of `slots`. Call `manage` and `end_overdue` several times a second."""

    def __init__(
        self, launch: Launch, slots: tuple[Slot, ...], health: HealthKeeper, processes: Processes
    ) -> None:
        self._launch = launch
        self._settings = launch.settings
        self._board = launch.board
        self._health = health
        self._processes = processes
        self._slots = [ManagedSlot(slot) for slot in slots]
        self._stack_files = [StackFile() for _ in self._board.records]
        self._deadlines = Deadlines(self._settings, self._board, self._stack_files)
        self._replacements = Replacements(self._slots, self._board, self._spawn, self._request_end)
        self._last_ready = time.monotonic()
        self._stopping = False
        self.boot_fault: ReportedFault | None = None
        """Why no worker can boot, as long as none has."""

    @property
    def is_waiting(self) -> bool:
        """Whether something is due sooner than in a second."""
        missing = any(not each.worker and not each.given_up for each in self._slots)
        return missing or self._replacements.under_way or not self._launch.timeline.logged

    # What to keep running.

    def manage(self) -> int | None:
        """Fork a worker for every free slot whose time has come, and renew those that are due.

        Returns the exit code for the process if no worker can serve, and none will; else `None`.
        """
        now = time.monotonic()
        if self._board.any_ready():
            self._last_ready, self.boot_fault = now, None
            self._launch.timeline.log_once(self._board)
        if self.boot_fault is not None and self._is_hopeless(self.boot_fault, now):
            return self.boot_fault.exit_code
        self._publish_failing()
        for slot in self._slots:
            if slot.worker is None and not slot.given_up and now >= slot.not_before:
                slot.start(self._spawn(slot.slot), now + _NO_PROCESS_SECONDS)
        self._replacements.step()
        self._keep_health()
        return None

    def end_overdue(self) -> None:
        """End workers that boot, drain or stand still for longer than they may."""
        for worker in self._workers():
            why = self._deadlines.why_end(worker)
            if why is not None:
                worker.note_kill(why)
                self._processes.send(worker.pid, signal.SIGKILL)

    def replace_all(self) -> None:
        """Replace every worker, one by one: each imports the application again, as it is now."""
        log.info("SIGHUP: the workers are replaced, one by one")
        try:
            self._launch = self._launch.read_again()
        except Fault as fault:
            log.error("%s, and the workers serve on", fault)
        else:
            self._replacements.replace_all()

    def stop_replacing(self) -> None:
        """The container stops: what ends from now on is not replaced."""
        self._stopping = True

    def _spawn(self, slot: Slot) -> WorkerProcess | None:
        """Fork a worker for the slot; `None` if the system has no room for a process."""
        taken = {each.record.number for each in self._workers()}
        record = next(each for each in self._board.records if each.number not in taken)
        record.prepare(slot.number)
        assignment = Assignment(self._launch, slot, record, self._stack_files[record.number])
        try:
            pid = self._processes.fork(assignment)
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

    def _request_end(self, worker: WorkerProcess) -> None:
        if worker.note_end_request(time.monotonic()):
            worker.record.request_drain()
            self._processes.send(worker.pid, signal.SIGTERM)

    def _workers(self) -> Iterator[WorkerProcess]:
        for slot in self._slots:
            yield from slot.processes()

    def _keep_health(self) -> None:
        if self._health.pid == 0:
            try:
                self._health.start()
            except OSError as error:
                log.error("no health process can be started: %s", error.strerror)

    def _publish_failing(self) -> None:
        now = time.monotonic()
        self._board.failing = any(each.is_failing(now) for each in self._slots)

    # What ended.

    def on_worker_end(self, pid: int, status: int) -> None:
        """A worker has ended; `status` is what waitpid(2) gives."""
        slot, worker = next(
            (slot, each) for slot in self._slots for each in slot.processes() if each.pid == pid
        )
        self._note_end(slot, worker, status)
        self._publish_failing()
        worker.record.clear()  # last, so that health finds the rest when it finds the worker gone

    def on_other_end(self, pid: int, status: int) -> None:
        """A child that is not a worker has ended: the health process, or an orphan that PID 1 inherits."""
        if pid != self._health.pid:
            return
        self._health.note_end()
        if not self._stopping:
            log.error("the health process ended (%s); starting another", describe_end(status))
            self._keep_health()

    def _note_end(self, slot: ManagedSlot, worker: WorkerProcess, status: int) -> None:
        record = worker.record
        state, since, cut = record.state, record.since, record.in_flight
        was_successor = slot.remove(worker)
        self._board.cut_by_kill += cut
        if self._stopping:
            return
        how = f"worker of slot {slot.slot.number} ended ({worker.how_ended(status)})"
        if worker.end_requested_at is not None:
            level = logging.INFO if os.WIFEXITED(status) and not cut else logging.ERROR
            log.log(level, "%s, as requested; requests in flight: %d", how, cut)
            return
        self._board.restarts += 1
        served = state in (State.READY, State.DRAINING)
        if was_successor:
            why = f"{how}; requests in flight: {cut}" if served else self._why(worker, status).text
            self._replacements.call_off(slot, why)
            return
        now = time.monotonic()
        fault = record.reported_fault()
        device_lost = fault is not None and fault.exit_code == DEVICE_LOST
        delay = slot.note_end(now, now - since if served else None, device_lost=device_lost)
        if slot.given_up:
            self._on_given_up(slot, worker)
        elif served:
            log.error(
                "%s; requests in flight: %d; another starts in %g s%s",
                how, cut, delay, f"\n{fault.text}" if fault else "",
            )  # fmt: skip
        else:
            self.boot_fault = self._why(worker, status)
            # The last one is logged once, at the end.
            why = "" if self._is_hopeless(self.boot_fault, now) else f"\n{self.boot_fault.text}"
            log.error("worker of slot %d could not boot, try %d%s", slot.slot.number, slot.boots_failed, why)

    def _on_given_up(self, slot: ManagedSlot, worker: WorkerProcess) -> None:
        fault = worker.record.reported_fault()
        why = fault.text if fault else "Its device was lost."
        self._board.given_up = sum(each.given_up for each in self._slots)
        log.critical("slot %d is given up: its device keeps failing\n%s", slot.slot.number, why)
        if all(each.given_up for each in self._slots):
            self.boot_fault = ReportedFault(EXIT_SOFTWARE, why)

    def _why(self, worker: WorkerProcess, status: int) -> ReportedFault:
        """Why a worker could not boot."""
        if worker.killed_for is not None:
            return ReportedFault(EXIT_SOFTWARE, str(boot_timeout_fault(self._settings.boot_timeout)))
        crash = boot_crash_fault(describe_end(status))
        return worker.record.reported_fault() or ReportedFault(EXIT_SOFTWARE, str(crash))

    def _is_hopeless(self, fault: ReportedFault, now: float) -> bool:
        """Whether no worker can serve, and none will."""
        if self._board.any_ready():
            return False
        tried_all = all(
            each.given_up or (each.boots_failed >= self._settings.boot_tries and each.worker is None)
            for each in self._slots
        )
        # A fault of the artifact's is the same at every try; one of user code may be the network's.
        certain = fault.exit_code != EXIT_SOFTWARE
        return certain or tried_all or now - self._last_ready > self._settings.boot_timeout
