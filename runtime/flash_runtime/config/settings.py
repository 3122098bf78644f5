"""Settings: the only reader of the environment.

`Settings.from_environ` reads every variable once, at start, and reports every bad one in a single
`SettingFault`. Everything else in the package receives the frozen value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flash_runtime.config import parsers as variables
from flash_runtime.config.parsers import MEBIBYTE, Reader

SECRETS = ("FLASH_API_KEY", "FLASH_EXECUTE_TOKEN")
"""The variables that user code is not given."""
EVERY_RESOURCE = "*"
"""The value of FLASH_RESOURCE_NAME that mounts every resource under `/{resource}`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One process's configuration. Times are seconds, sizes bytes, `None` means "not set".

    Secrets are left out of `repr`, so that a logged `Settings` shows none.
    """

    host: str
    port: int
    port_health: int
    """Equal to `port` where PORT_HEALTH is not set."""
    health_path: str
    artifact_path: Path
    artifact_sha256: str | None
    artifact_wait: float
    artifact_max_bytes: int
    """The most that the artifact's members may add up to, unpacked."""
    artifact_max_members: int
    disable_unpack: bool
    app_dir: Path
    manifest_path: Path
    resource_name: str | None
    sdk: Literal["image", "artifact"]
    workers: int | None
    """`None` is `auto`: one a GPU, or one where there is no GPU."""
    max_concurrency: int | None
    max_queue: int | None
    max_body_bytes: int
    request_timeout: float
    route_timeouts: tuple[tuple[str, float], ...]
    """`METHOD /path` and seconds, for routes that have a time of their own."""
    stall_timeout: float
    """How long the application loop may stand still; 0 is for ever."""
    boot_timeout: float
    boot_tries: int
    """How often a slot fails to boot before the container gives up."""
    drain_delay: float
    drain_timeout: float
    stop_timeout: float | None
    """What the platform gives a container between SIGTERM and SIGKILL, where it says so."""
    max_requests: int | None
    max_rss_bytes: int | None
    preload: tuple[str, ...]
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    log_format: Literal["json", "text"]
    access_log: bool
    cuda_visible_devices: str | None
    """CUDA_VISIBLE_DEVICES as the container was given it: here an empty value means "no GPU"."""
    nvidia_visible_devices: str | None
    """NVIDIA_VISIBLE_DEVICES as the container was given it; empty as above."""
    api_key: str | None = field(repr=False)
    execute_token: str | None = field(repr=False)
    peer_url: str | None
    """A template of the other resources' base URLs, with `{resource}` in it."""
    peers: tuple[tuple[str, str], ...]
    """Resources, each with its base URL."""
    live: bool
    """Whether source text that a caller sends is run: for development."""
    misspelled: tuple[tuple[str, str], ...] = ()
    """Variables that are no settings, each with the setting that it resembles."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read every setting from `environ`; an empty value counts as not set.

        Raises `SettingFault` naming every variable that has a value which is not allowed, that value, and
        what is allowed.
        """
        read = Reader(environ)
        port = read("PORT", variables.port, 8000)
        request_timeout = read("FLASH_REQUEST_TIMEOUT", variables.positive_seconds, 330.0)
        app_dir = read("FLASH_APP_DIR", variables.absolute_path, Path("/app"))
        settings = cls(
            host=read("FLASH_HOST", str, "0.0.0.0"),  # noqa: S104  a container listens on all of its interfaces
            port=port,
            port_health=read("PORT_HEALTH", variables.port, port),
            health_path=read("HEALTH_CHECK_PATH", variables.url_path, "/ping"),
            artifact_path=read(
                "FLASH_BUILD_ARTIFACT_PATH", variables.absolute_path, Path("/root/.runpod/artifact.tar.gz")
            ),
            artifact_sha256=read("FLASH_ARTIFACT_SHA256", variables.sha256, None),
            artifact_wait=read("FLASH_ARTIFACT_WAIT", variables.seconds, 30.0),
            artifact_max_bytes=read("FLASH_ARTIFACT_MAX_BYTES", variables.whole(1, 2**62), 8192 * MEBIBYTE),
            artifact_max_members=read("FLASH_ARTIFACT_MAX_MEMBERS", variables.whole(1, 2**62), 200_000),
            disable_unpack=read("FLASH_DISABLE_UNPACK", variables.switch, False),
            app_dir=app_dir,
            manifest_path=read(
                "FLASH_MANIFEST_PATH", variables.absolute_path, app_dir / "flash_manifest.json"
            ),
            resource_name=read("FLASH_RESOURCE_NAME", str, None),
            sdk=read("FLASH_SDK", variables.one_of("image", "artifact"), "image"),
            workers=read(
                "FLASH_WORKERS", variables.workers, read("WEB_CONCURRENCY", variables.workers, None)
            ),
            max_concurrency=read("FLASH_MAX_CONCURRENCY", variables.whole(1, 100_000), None),
            max_queue=read("FLASH_MAX_QUEUE", variables.whole(0, 1_000_000), None),
            max_body_bytes=read(
                "FLASH_MAX_BODY_BYTES", variables.whole(1, 64 * 1024 * MEBIBYTE), 30 * MEBIBYTE
            ),
            request_timeout=request_timeout,
            route_timeouts=read("FLASH_ROUTE_TIMEOUTS", variables.route_timeouts, ()),
            stall_timeout=read("FLASH_STALL_TIMEOUT", variables.seconds, request_timeout),
            boot_timeout=read("FLASH_BOOT_TIMEOUT", variables.positive_seconds, 480.0),
            boot_tries=read("FLASH_BOOT_TRIES", variables.whole(1, 1000), 3),
            drain_delay=read("FLASH_DRAIN_DELAY", variables.seconds, 1.0),
            drain_timeout=read("FLASH_DRAIN_TIMEOUT", variables.seconds, 30.0),
            stop_timeout=read("FLASH_STOP_TIMEOUT", variables.positive_seconds, None),
            max_requests=read("FLASH_MAX_REQUESTS", variables.whole(1, 10**12), None),
            max_rss_bytes=read("FLASH_MAX_RSS_MB", variables.mebibytes, None),
            preload=read("FLASH_PRELOAD", variables.names, ()),
            log_level=read("LOG_LEVEL", variables.level, "INFO"),
            log_format=read("LOG_FORMAT", variables.log_format, variables.default_log_format()),
            access_log=read("FLASH_ACCESS_LOG", variables.switch, True),
            cuda_visible_devices=environ.get("CUDA_VISIBLE_DEVICES"),
            nvidia_visible_devices=environ.get("NVIDIA_VISIBLE_DEVICES"),
            api_key=read(
                "FLASH_API_KEY", variables.secret, read("FLASH_API_KEY_FILE", variables.secret_in_file, None)
            ),
            execute_token=read(
                "FLASH_EXECUTE_TOKEN",
                variables.secret,
                read(
                    "FLASH_EXECUTE_TOKEN_FILE",
                    variables.secret_in_file,
                    read("RUNPOD_API_KEY", variables.secret, None),
                ),
            ),
            peer_url=read("FLASH_PEER_URL", variables.peer_url, None),
            peers=read("FLASH_PEERS", variables.peers, ()),
            live=read("FLASH_LIVE", variables.switch, False),
            misspelled=read.misspelled(),
        )
        read.raise_problems()
        return settings

    def warn(self, log: logging.Logger) -> None:
        """Log what is set and does not work as meant: misspelled names, limits that contradict each other."""
        for name, meant in self.misspelled:
            log.warning("%s is no setting and has no effect; did you mean %s?", name, meant)
        if self.live:
            log.warning(
                "FLASH_LIVE is on: whoever has the token can run any code here; it is for development"
            )
        for contradiction in self._contradictions():
            log.warning("%s", contradiction)

    def _contradictions(self) -> Iterator[str]:
        if self.max_queue is not None and self.max_concurrency is None:
            yield (
                f"FLASH_MAX_QUEUE={self.max_queue} is set without FLASH_MAX_CONCURRENCY: so many wait for "
                "each kind of handler, beside as many as run by default"
            )
        if 0 < self.stall_timeout < self.request_timeout:
            yield (
                f"FLASH_STALL_TIMEOUT={self.stall_timeout:g} is less than FLASH_REQUEST_TIMEOUT="
                f"{self.request_timeout:g}: a handler that blocks is ended before its time is over"
            )
        stopping = self.drain_delay + self.drain_timeout
        if self.stop_timeout is not None and stopping >= self.stop_timeout:
            yield (
                f"FLASH_DRAIN_DELAY + FLASH_DRAIN_TIMEOUT = {stopping:g} seconds, and by FLASH_STOP_TIMEOUT="
                f"{self.stop_timeout:g} the platform kills before that: requests in flight may be lost"
            )


def log_format(environ: Mapping[str, str]) -> Literal["json", "text"]:
    """LOG_FORMAT, or its default where it has a bad value: for a process whose settings cannot be read."""
    return Reader(environ)("LOG_FORMAT", variables.log_format, variables.default_log_format())
