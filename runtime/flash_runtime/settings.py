"""Settings: the only reader of the environment.

`Settings.from_environ` reads every variable once, at start, and reports every bad one in a single
`SettingFault`. Everything else in the package receives the frozen value.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from flash_runtime.errors import SettingFault

T = TypeVar("T")

MEBIBYTE = 1024 * 1024
SECRETS = ("FLASH_API_KEY", "FLASH_EXECUTE_TOKEN")
"""The variables that user code is not given."""
_WEEK = 7 * 86400
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
        read = _Reader(environ)
        port = read("PORT", _port, 8000)
        request_timeout = read("FLASH_REQUEST_TIMEOUT", _positive_seconds, 330.0)
        app_dir = read("FLASH_APP_DIR", _absolute_path, Path("/app"))
        settings = cls(
            host=read("FLASH_HOST", str, "0.0.0.0"),  # noqa: S104  a container listens on all of its interfaces
            port=port,
            port_health=read("PORT_HEALTH", _port, port),
            health_path=read("HEALTH_CHECK_PATH", _url_path, "/ping"),
            artifact_path=read(
                "FLASH_BUILD_ARTIFACT_PATH", _absolute_path, Path("/root/.runpod/artifact.tar.gz")
            ),
            artifact_sha256=read("FLASH_ARTIFACT_SHA256", _sha256, None),
            artifact_wait=read("FLASH_ARTIFACT_WAIT", _seconds, 30.0),
            artifact_max_bytes=read("FLASH_ARTIFACT_MAX_BYTES", _whole(1, 2**62), 8192 * MEBIBYTE),
            artifact_max_members=read("FLASH_ARTIFACT_MAX_MEMBERS", _whole(1, 2**62), 200_000),
            disable_unpack=read("FLASH_DISABLE_UNPACK", _switch, False),
            app_dir=app_dir,
            manifest_path=read("FLASH_MANIFEST_PATH", _absolute_path, app_dir / "flash_manifest.json"),
            resource_name=read("FLASH_RESOURCE_NAME", str, None),
            sdk=read("FLASH_SDK", _one_of("image", "artifact"), "image"),
            workers=read("FLASH_WORKERS", _workers, read("WEB_CONCURRENCY", _workers, None)),
            max_concurrency=read("FLASH_MAX_CONCURRENCY", _whole(1, 100_000), None),
            max_queue=read("FLASH_MAX_QUEUE", _whole(0, 1_000_000), None),
            max_body_bytes=read("FLASH_MAX_BODY_BYTES", _whole(1, 64 * 1024 * MEBIBYTE), 30 * MEBIBYTE),
            request_timeout=request_timeout,
            route_timeouts=read("FLASH_ROUTE_TIMEOUTS", _route_timeouts, ()),
            stall_timeout=read("FLASH_STALL_TIMEOUT", _seconds, request_timeout),
            boot_timeout=read("FLASH_BOOT_TIMEOUT", _positive_seconds, 480.0),
            boot_tries=read("FLASH_BOOT_TRIES", _whole(1, 1000), 3),
            drain_delay=read("FLASH_DRAIN_DELAY", _seconds, 1.0),
            drain_timeout=read("FLASH_DRAIN_TIMEOUT", _seconds, 30.0),
            stop_timeout=read("FLASH_STOP_TIMEOUT", _positive_seconds, None),
            max_requests=read("FLASH_MAX_REQUESTS", _whole(1, 10**12), None),
            max_rss_bytes=read("FLASH_MAX_RSS_MB", _mebibytes, None),
            preload=read("FLASH_PRELOAD", _names, ()),
            log_level=read("LOG_LEVEL", _level, "INFO"),
            log_format=read("LOG_FORMAT", _log_format, _default_log_format()),
            access_log=read("FLASH_ACCESS_LOG", _switch, True),
            cuda_visible_devices=environ.get("CUDA_VISIBLE_DEVICES"),
            nvidia_visible_devices=environ.get("NVIDIA_VISIBLE_DEVICES"),
            api_key=read("FLASH_API_KEY", _secret, read("FLASH_API_KEY_FILE", _secret_in_file, None)),
            execute_token=read(
                "FLASH_EXECUTE_TOKEN",
                _secret,
                read("FLASH_EXECUTE_TOKEN_FILE", _secret_in_file, read("RUNPOD_API_KEY", _secret, None)),
            ),
            peer_url=read("FLASH_PEER_URL", _peer_url, None),
            peers=read("FLASH_PEERS", _peers, ()),
            live=read("FLASH_LIVE", _switch, False),
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
    return _Reader(environ)("LOG_FORMAT", _log_format, _default_log_format())


class _Refused(Exception):
    """A value is not allowed; the text says what is."""


class _Reader:
    """Reads variables one by one and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []
        self._names: list[str] = []
        self._known: set[str] = set()

    def __call__(self, name: str, parse: Callable[[str], Any], default: T) -> T:
        self._known.add(name)
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            value: T = parse(text)
        except _Refused as refused:
            shown = "(not shown: a secret)" if parse is _secret else repr(text)
            self._problems.append(f"{name}={shown} is not allowed: it takes {refused}.")
            self._names.append(name)
            return default
        return value

    def misspelled(self) -> tuple[tuple[str, str], ...]:
        """Call it when every setting was read. The vendor's platform sets variables of its own, too."""
        unknown = sorted(
            name for name in self._environ if name.startswith("FLASH_") and name not in self._known
        )
        if not unknown:
            return ()
        from difflib import get_close_matches  # not for every start

        pairs = [(name, get_close_matches(name, self._known, 1, 0.85)) for name in unknown]
        return tuple((name, match[0]) for name, match in pairs if match)

    def raise_problems(self) -> None:
        if self._problems:
            raise SettingFault(
                "\n".join(self._problems),
                where=f"the environment ({', '.join(self._names)})",
                remedy="set an allowed value, or unset the variable for its default.",
            )


def _whole_number(text: str, low: int, high: int, allowed: str) -> int:
    # int() alone would take "1_000", "+5" and other scripts' digits, which no shell user means.
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and low <= int(text) <= high):
        raise _Refused(allowed)
    return int(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    return lambda text: _whole_number(text, low, high, f"a whole number from {low} to {high}")


def _port(text: str) -> int:
    return _whole_number(text, 1, 65535, "a TCP port from 1 to 65535")


def _mebibytes(text: str) -> int:
    return _whole_number(text, 1, 2**24, "a whole number of MiB from 1 to 16777216") * MEBIBYTE


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    return _whole_number(text, 1, 512, "`auto` or a whole number from 1 to 512")


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= _WEEK:
        raise _Refused("a number of seconds from 0 to 604800 (a week)")
    return value


def _positive_seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value <= _WEEK:
        raise _Refused("a number of seconds above 0, at most 604800 (a week)")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _route_timeouts(text: str) -> tuple[tuple[str, float], ...]:
    allowed = 'a JSON object of routes and seconds, such as {"POST /predict": 60}'
    try:
        pairs = json.loads(text)
    except ValueError:
        raise _Refused(allowed) from None
    if not isinstance(pairs, dict) or not all(_is_seconds(value) for value in pairs.values()):
        raise _Refused(allowed)
    return tuple((" ".join(route.split()), float(value)) for route, value in pairs.items())


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _WEEK


def _switch(text: str) -> bool:
    word = text.lower()
    if word in ("1", "on", "true", "yes"):
        return True
    if word in ("0", "off", "false", "no"):
        return False
    raise _Refused("1/on/true/yes or 0/off/false/no")


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise _Refused(" or ".join(f"`{word}`" for word in words))
        return text.lower()

    return parse


_log_format = _one_of("json", "text")


def _default_log_format() -> Literal["json", "text"]:
    return "text" if sys.stderr.isatty() else "json"


def _level(text: str) -> str:
    names = {"WARN": "WARNING", "FATAL": "CRITICAL"}
    name = names.get(text.upper(), text.upper())
    if name not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise _Refused("DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return name


def _absolute_path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise _Refused("an absolute path")
    return path


def _url_path(text: str) -> str:
    if (
        not text.startswith("/")
        or not text.isascii()
        or not text.isprintable()
        or any(c in text for c in " ?#{}%")
    ):
        raise _Refused("a plain URL path that starts with `/`, such as /ping")
    return text


def _is_base_url(text: object) -> bool:
    return (
        isinstance(text, str)
        and text.isascii()
        and text.isprintable()
        and " " not in text
        and (text.startswith(("http://", "https://")) and text.split("://", 1)[1] != "")
    )


def _peer_url(text: str) -> str:
    if not _is_base_url(text) or "{resource}" not in text:
        raise _Refused("a URL with {resource} in it, such as http://{resource}:80")
    return text


def _peers(text: str) -> tuple[tuple[str, str], ...]:
    allowed = 'a JSON object of resources and URLs, such as {"gpu-worker": "http://10.0.0.7:80"}'
    try:
        pairs = json.loads(text)
    except ValueError:
        raise _Refused(allowed) from None
    if not isinstance(pairs, dict) or not all(_is_base_url(url) for url in pairs.values()):
        raise _Refused(allowed)
    return tuple(pairs.items())


def _sha256(text: str) -> str:
    digest = text.lower()
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        raise _Refused("64 hexadecimal digits, as `sha256sum` prints them")
    return digest


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise _Refused("module names separated by commas, such as torch,transformers")
    return names


def _secret_in_file(text: str) -> str:
    try:
        return _secret(Path(text).read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise _Refused(f"the path of a file that can be read ({error.__class__.__name__})") from None


def _secret(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _Refused("printable ASCII without spaces, since it travels in an HTTP header")
    return text
