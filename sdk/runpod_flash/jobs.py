"""Jobs of queue-based endpoints, as the vendor's cloud has them."""

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
"""How long between two looks, at first and at most."""
_POLL_GROWTH = 1.5
_MISSES = 5
"""So many looks in a row that get no answer end the waiting."""


class EndpointJob:
    """A job that was handed to an endpoint: `await job.wait()`, then `job.output`."""

    def __init__(self, data: dict[str, Any], endpoint: JobClient) -> None:
        self._data = data
        self._endpoint = endpoint

    @property
    def id(self) -> str:
        """The id that the endpoint gave it."""
        return str(self._data.get("id", ""))

    @property
    def output(self) -> Any:
        """What the function returned; `None` until it has."""
        return self._data.get("output")

    @property
    def error(self) -> str | None:
        """What went wrong, where something did."""
        return self._data.get("error")

    @property
    def done(self) -> bool:
        """Whether its status, as last seen, is a last one."""
        return self._status in _TERMINAL

    @property
    def _status(self) -> str:
        return str(self._data.get("status", "UNKNOWN"))

    async def status(self) -> str:
        """Ask for the job's status, and note what comes with it."""
        self._data = await self._endpoint._job_request("GET", f"/status/{self.id}", timeout=30.0)
        return self._status

    async def cancel(self) -> EndpointJob:
        """Have the job ended; returns this job."""
        self._data.update(await self._endpoint._job_request("POST", f"/cancel/{self.id}"))
        return self

    async def wait(self, timeout: float | None = None) -> EndpointJob:
        """Ask until the job is done; returns this job. Raises `TimeoutError` after `timeout` seconds.

        A look that gets no answer is tried again, a few times; one that is refused is not.
        """
        import asyncio  # not for declaring endpoints

        pause, longest = _POLL_SECONDS
        misses = 0
        try:
            async with asyncio.timeout(timeout):
                while not self.done:
                    await asyncio.sleep(pause)
                    pause = min(pause * _POLL_GROWTH, longest)
                    try:
                        await self.status()
                        misses = 0
                    except (EndpointUnreachable, EndpointTimeout):
                        misses += 1
                        if misses >= _MISSES:
                            raise
        except TimeoutError:
            raise TimeoutError(
                f"job {self.id} was not done within {timeout} s; its last status is {self._status}"
            ) from None
        return self

    def __repr__(self) -> str:
        return f"EndpointJob(id={self.id!r}, status={self._status!r})"


def failed_job(error: EndpointStatusError) -> dict[str, Any] | None:
    """The job that an error's response has: this project's worker answers a failed one with a 500."""
    body = error.body
    return body if isinstance(body, dict) and body.get("id") and body.get("status") in _TERMINAL else None
