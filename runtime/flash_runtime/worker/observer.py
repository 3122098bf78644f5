"""The observer of a worker's requests: it counts them on the scoreboard and writes their access lines."""

from __future__ import annotations

from flash_runtime.dispatch.admission import Admission
from flash_runtime.gateway.access_log import AccessLog
from flash_runtime.gateway.request import GatewayRequest
from flash_runtime.monitoring.scoreboard import Outcome, Record
from flash_runtime.worker.sharing import Sharing


class RequestObserver:
    """The gate's observer. `access_log` is `None` if no access lines are written."""

    def __init__(self, record: Record, sharing: Sharing, access_log: AccessLog | None) -> None:
        self._record = record
        self._sharing = sharing
        self._access_log = access_log

    def on_request(self, in_flight: int) -> None:
        """A request came."""
        self._record.set_in_flight(in_flight)

    def on_admission_change(self, admission: Admission) -> None:
        """A request began to run or to wait, or has ended."""
        self._record.set_requests(admission.running, admission.waiting)
        self._sharing.on_admission_change(admission)

    def on_request_end(
        self, request: GatewayRequest, outcome: Outcome, seconds: float, in_flight: int
    ) -> None:
        """A request has ended, `seconds` after it came."""
        self._record.count(outcome, seconds)
        self._record.set_in_flight(in_flight)
        if self._access_log is not None:
            self._access_log.add(request, outcome, seconds)

    def flush(self) -> None:
        """Write the access lines that are still to be written."""
        if self._access_log is not None:
            self._access_log.flush()
