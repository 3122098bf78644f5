"""The development server's child process: starts it, checks it, reloads it and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from flash_runtime.artifact.contract import HEALTH_PATH

_DRAIN_SECONDS = 2.0
"""How long requests in flight may take after the first Ctrl-C."""
_END_SECONDS = 5.0
_POLL_SECONDS = 0.02


class Child:
    """`flash-runtime serve` with these variables, in its own process group: only the parent gets Ctrl-C.

    `host` and `port` are the address for its health.
    """

    def __init__(self, root: Path, environ: Mapping[str, str], host: str, port: int) -> None:
        self._address = host, port
        command = [sys.executable, "-P", "-m", "flash_cli.serving.child_main", str(os.getpid())]
        self._process = subprocess.Popen(  # noqa: S603  this interpreter and a module of ours
            command, cwd=root, env=dict(environ), stdin=subprocess.DEVNULL, process_group=0
        )
        self.is_ready = False
        """Whether it has answered once. Before that, it cannot be reloaded."""

    def exit_code(self) -> int | None:
        """The exit code, or `None` while the child runs. It is negative if a signal ended the child."""
        return self._process.poll()

    def becomes_ready(self) -> bool:
        """Whether the child answers for the first time."""
        if self.is_ready:
            return False
        connection = HTTPConnection(*self._address, timeout=1.0)
        try:
            connection.request("GET", HEALTH_PATH)
            self.is_ready = connection.getresponse().status == 200
        except (OSError, HTTPException):
            pass  # it does not listen yet
        finally:
            connection.close()
        return self.is_ready

    def reload(self) -> None:
        """Reload the manifest and the source. The child must be ready."""
        self._process.send_signal(signal.SIGHUP)

    def end(self, in_a_hurry: Callable[[], bool] = lambda: False) -> None:
        """End the child. Requests in flight get a moment, unless `in_a_hurry`."""
        self._process.send_signal(signal.SIGINT)
        if not self._ends_within(_DRAIN_SECONDS, in_a_hurry):
            self._process.send_signal(signal.SIGINT)  # the second one cuts them off
            if not self._ends_within(_END_SECONDS):
                self._process.kill()
                self._process.wait()

    def _ends_within(self, seconds: float, in_a_hurry: Callable[[], bool] = lambda: False) -> bool:
        limit = time.monotonic() + seconds
        while self._process.poll() is None:
            if time.monotonic() > limit or in_a_hurry():
                return False
            time.sleep(_POLL_SECONDS)
        return True
