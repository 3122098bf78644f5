"""Settings: the only reader of the environment.

`Settings.from_environ` reads every variable once, at start, and reports all bad values in one `SettingFault`.
The rest of the package receives the frozen record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flash_runtime.config import fields, parsers
from flash_runtime.config.parsers import MEBIBYTE
from flash_runtime.errors import SettingFault

SECRETS = ("FLASH_API_KEY", "FLASH_EXECUTE_TOKEN")
"""Variables that are hidden from user code."""
EVERY_RESOURCE = "*"
"""The value of FLASH_RESOURCE_NAME that mounts every resource under `/{resource}`."""
_EMPTY_COUNTS = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""Variables that mean something if they are set and empty."""


def setting(
    variable: str,
    parse: fields.Parser,
    default: Any = None,
    *,
    fallbacks: Mapping[str, fields.Parser] | None = None,
    secret: bool = False,
) -> Any:
    """A field that is read from the environment. `repr` leaves secrets out."""
    return field(repr=not secret, metadata=fields.source(variable, parse, default, fallbacks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One process's configuration. Times are in seconds and sizes in bytes. `None` means "not set".

    Each field names its variable. Secrets are left out of `repr`, so that a logged `Settings` shows none.
    """

    host: str = setting("FLASH_HOST", str, "0.0.0.0")  # noqa: S104  a container listens on all of its interfaces
    port: int = setting("PORT", parsers.port, 8000)
    port_health: int = setting("PORT_HEALTH", parsers.port, lambda values: values["port"])
    health_path: str = setting("HEALTH_CHECK_PATH", parsers.url_path, "/ping")
    artifact_path: Path = setting(
        "FLASH_BUILD_ARTIFACT_PATH", parsers.absolute_path, Path("/root/.runpod/artifact.tar.gz")
    )
    artifact_sha256: str | None = setting("FLASH_ARTIFACT_SHA256", parsers.sha256)
    artifact_wait: float = setting("FLASH_ARTIFACT_WAIT", parsers.seconds, 30.0)
    artifact_max_bytes: int = setting("FLASH_ARTIFACT_MAX_BYTES", parsers.whole(1, 2**62), 8192 * MEBIBYTE)
    """The limit for the total size of the artifact's unpacked members."""
    artifact_max_members: int = setting("FLASH_ARTIFACT_MAX_MEMBERS", parsers.whole(1, 2**62), 200_000)
    disable_unpack: bool = setting("FLASH_DISABLE_UNPACK", parsers.switch, False)
    app_dir: Path = setting("FLASH_APP_DIR", parsers.absolute_path, Path("/app"))
    manifest_path: Path = setting(
        "FLASH_MANIFEST_PATH", parsers.absolute_path, lambda values: values["app_dir"] / "flash_manifest.json"
    )
    resource_name: str | None = setting("FLASH_RESOURCE_NAME", str)
    sdk: Literal["image", "artifact"] = setting("FLASH_SDK", parsers.one_of("image", "artifact"), "image")
    workers: int | None = setting(
        "FLASH_WORKERS", parsers.workers, fallbacks={"WEB_CONCURRENCY": parsers.workers}
    )
    """`None` is `auto`: one per GPU, or one if there is no GPU."""
    max_concurrency: int | None = setting("FLASH_MAX_CONCURRENCY", parsers.whole(1, 100_000))
    max_queue: int | None = setting("FLASH_MAX_QUEUE", parsers.whole(0, 1_000_000))
    max_body_bytes: int = setting(
        "FLASH_MAX_BODY_BYTES", parsers.whole(1, 64 * 1024 * MEBIBYTE), 30 * MEBIBYTE
    )
    request_timeout: float = setting("FLASH_REQUEST_TIMEOUT", parsers.positive_seconds, 330.0)
    route_timeouts: tuple[tuple[str, float], ...] = setting(
        "FLASH_ROUTE_TIMEOUTS", parsers.route_timeouts, ()
    )
    """`METHOD /path` and seconds, for routes with a timeout of their own."""
    stall_timeout: float = setting(
        "FLASH_STALL_TIMEOUT", parsers.seconds, lambda values: values["request_timeout"]
    )
    """How long the application loop may stand still. 0 means for ever."""
    boot_timeout: float = setting("FLASH_BOOT_TIMEOUT", parsers.positive_seconds, 480.0)
    boot_tries: int = setting("FLASH_BOOT_TRIES", parsers.whole(1, 1000), 3)
    """How often a slot fails to boot before the container gives up."""
    drain_delay: float = setting("FLASH_DRAIN_DELAY", parsers.seconds, 1.0)
    drain_timeout: float = setting("FLASH_DRAIN_TIMEOUT", parsers.seconds, 30.0)
    stop_timeout: float | None = setting("FLASH_STOP_TIMEOUT", parsers.positive_seconds)
    """The time between SIGTERM and SIGKILL that the platform gives a container, if it says so."""
    max_requests: int | None = setting("FLASH_MAX_REQUESTS", parsers.whole(1, 10**12))
    max_rss_bytes: int | None = setting("FLASH_MAX_RSS_MB", parsers.mebibytes)
    preload: tuple[str, ...] = setting("FLASH_PRELOAD", parsers.names, ())
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = setting(
        "LOG_LEVEL", parsers.level, "INFO"
    )
    log_format: Literal["json", "text"] = setting(
        "LOG_FORMAT", parsers.log_format, lambda _: parsers.default_log_format()
    )
    access_log: bool = setting("FLASH_ACCESS_LOG", parsers.switch, True)
    cuda_visible_devices: str | None = setting("CUDA_VISIBLE_DEVICES", str)
    """As the container was given it: here an empty value means "no GPU"."""
    nvidia_visible_devices: str | None = setting("NVIDIA_VISIBLE_DEVICES", str)
    """As the container was given it: here an empty value means "no GPU"."""
    api_key: str | None = setting(
        "FLASH_API_KEY",
        parsers.secret,
        fallbacks={"FLASH_API_KEY_FILE": parsers.secret_in_file},
        secret=True,
    )
    execute_token: str | None = setting(
        "FLASH_EXECUTE_TOKEN",
        parsers.secret,
        fallbacks={"FLASH_EXECUTE_TOKEN_FILE": parsers.secret_in_file, "RUNPOD_API_KEY": parsers.secret},
        secret=True,
    )
    peer_url: str | None = setting("FLASH_PEER_URL", parsers.peer_url)
    """A template of the other resources' base URLs, with `{resource}` in it."""
    peers: tuple[tuple[str, str], ...] = setting("FLASH_PEERS", parsers.peers, ())
    """Other resources, each with its base URL."""
    live: bool = setting("FLASH_LIVE", parsers.switch, False)
    """Whether source text that a caller sends is run. For development only."""
    misspelled: tuple[tuple[str, str], ...] = ()
    """Variables that are not settings, each with the setting that it resembles."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read every setting from `environ`. An empty value counts as not set.

        Raises `SettingFault` with every value that is not allowed: its variable, and what is allowed instead.
        """
        values, problems = fields.read(cls, _given(environ))
        if problems:
            raise SettingFault(
                "\n".join(map(_problem, problems)),
                where=f"the environment ({', '.join(problem.name for problem in problems)})",
                remedy="set an allowed value, or unset the variable to get its default.",
            )
        return cls(**values, misspelled=_misspelled(environ))

    def warn(self, log: logging.Logger) -> None:
        """Log the settings that do not work as meant: misspelled names, and contradicting limits."""
        for name, meant in self.misspelled:
            log.warning("%s is not a setting and has no effect. Did you mean %s?", name, meant)
        if self.live:
            log.warning(
                "FLASH_LIVE is on. Anyone with the token can run any code here: use it for development only."
            )
        for contradiction in self._contradictions():
            log.warning("%s", contradiction)

    def _contradictions(self) -> Iterator[str]:
        if self.max_queue is not None and self.max_concurrency is None:
            yield (
                f"FLASH_MAX_QUEUE={self.max_queue} is set, and FLASH_MAX_CONCURRENCY is not. Each kind of "
                f"handler queues up to {self.max_queue} requests; how many run at once is left at its "
                "default."
            )
        if 0 < self.stall_timeout < self.request_timeout:
            yield (
                f"FLASH_STALL_TIMEOUT={self.stall_timeout:g} is less than FLASH_REQUEST_TIMEOUT="
                f"{self.request_timeout:g}. A handler that blocks for longer than {self.stall_timeout:g} s "
                f"has its worker replaced, although a request may take {self.request_timeout:g} s."
            )
        stopping = self.drain_delay + self.drain_timeout
        if self.stop_timeout is not None and stopping >= self.stop_timeout:
            yield (
                f"FLASH_DRAIN_DELAY + FLASH_DRAIN_TIMEOUT = {stopping:g} seconds, and the platform kills the "
                f"container after FLASH_STOP_TIMEOUT={self.stop_timeout:g}. Requests in flight may be lost."
            )


def log_format(environ: Mapping[str, str]) -> Literal["json", "text"]:
    """LOG_FORMAT, or its default if the value is not allowed: for a process whose settings cannot be read."""
    values, _ = fields.read(Settings, _given(environ))
    found: Literal["json", "text"] = values["log_format"]
    return found


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are settings and have a value, without the spaces around it."""
    given = {name: environ.get(name, "").strip() for name in fields.names(Settings)}
    kept = {name: environ[name] for name in _EMPTY_COUNTS if name in environ}
    return {name: text for name, text in given.items() if text} | kept


def _problem(problem: fields.Problem) -> str:
    shown = "(not shown: a secret)" if problem.parse is parsers.secret else repr(problem.value)
    return f"{problem.name}={shown} is not allowed: it takes {problem.allowed}."


def _misspelled(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables of ours that are not settings, each with the setting that it resembles."""
    known = fields.names(Settings)
    # The vendor's platform sets variables of its own that start with FLASH_, too.
    unknown = sorted(name for name in environ if name.startswith("FLASH_") and name not in known)
    if not unknown:
        return ()
    from difflib import get_close_matches  # not for every start

    pairs = [(name, get_close_matches(name, known, 1, 0.85)) for name in unknown]
    return tuple((name, match[0]) for name, match in pairs if match)
