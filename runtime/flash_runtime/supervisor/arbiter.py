"""The arbiter: gunicorn's side of the supervisor."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.app.base import BaseApplication

from flash_runtime.system.processes import scratch_directory
from flash_runtime.worker.worker import FlashWorker, Launch


class Application(BaseApplication):  # type: ignore[misc]
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
            "worker_tmp_dir": scratch_directory(),
            "pre_fork": lambda arbiter, worker: arbiter.prepare_worker(worker),
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
