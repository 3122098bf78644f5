"""Jobs of queue-based endpoints, with the vendor's interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runpod_flash.errors import EndpointStatusError, EndpointTimeout, EndpointUnreachable

if TYPE_CHECKING:
    from typing import Protocol

    class JobClient(Protocol):
        """The part of an `Endpoint` that a job needs: it sends the job's requests."""

        async def _job_request(self, method: str, path: str, *, timeout: float = ...) -> Any: ...


_TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_POLL_SECONDS = 0.25, 5.0
"""The pause between two status requests, at first and at most."""
_POLL_GROWTH = 1.5
_MOST_FAILURES = 5
"""How many status requests may fail in a row before `wait` gives up."""


class EndpointJob:
    """A job that an endpoint has accepted: `await job.wait()`, then `job.output`."""

    def __init__(self, data: dict[str, Any], endpoint: JobClient) -> None:
        self._data = data
        self._endpoint = endpoint

    @property
    def id(self) -> str:
        """The job's id, from the endpoint."""
        return str(self._data.get("id", ""))

    @property
    def output(self) -> Any:
        """The function's result, or `None` before there is one."""
        return self._data.get("output")

    @property
    def error(self) -> str | None:
        """The error message, or `None`."""
        return self._data.get("error")

    @property
    def done(self) -> bool:
        """Whether the job has ended, by its last known status."""
        return self._status in _TERMINAL

    @property
    def _status(self) -> str:
        return str(self._data.get("status", "UNKNOWN"))

    async def status(self) -> str:
        """Request the job's status, and store the output and error that come with it."""
        self._data = await self._endpoint._job_request("GET", f"/status/{self.id}", timeout=30.0)
        return self._status

    async def cancel(self) -> EndpointJob:
        """Cancel the job. Returns this job."""
        self._data.update(await self._endpoint._job_request("POST", f"/cancel/{self.id}"))
        return self

    async def wait(self, timeout: float | None = None) -> EndpointJob:
        """Wait until the job is done. Returns this job. Raises `TimeoutError` after `timeout` seconds.

        A status request without an answer is repeated a few times. One that is refused is not.
        """
        import asyncio  # not for declaring endpoints

        pause, longest = _POLL_SECONDS
        failures = 0
        try:
            async with asyncio.timeout(timeout):
                while not self.done:
                    await asyncio.sleep(pause)
                    pause = min(pause * _POLL_GROWTH, longest)
                    try:
                        await self.status()
                        failures = 0
                    except (EndpointUnreachable, EndpointTimeout):
                        failures += 1
                        if failures >= _MOST_FAILURES:
                            raise
        except TimeoutError:
            raise TimeoutError(
                f"job {self.id} was not done within {timeout} s. Its last status is {self._status}"
            ) from None
        return self

    def __repr__(self) -> str:
        return f"EndpointJob(id={self.id!r}, status={self._status!r})"


def failed_job(error: EndpointStatusError) -> dict[str, Any] | None:
    """The job in an error's response, if any: this project's worker answers a failed job with a 500."""
    body = error.body
    return body if isinstance(body, dict) and body.get("id") and body.get("status") in _TERMINAL else None
