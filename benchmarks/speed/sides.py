"""Who is compared, and how each is started: as its own manual has it, on loopback, with one worker.

Logs go to a file on every side. Who logs each request by default does so here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.speed import environments
from benchmarks.speed.environments import CACHE, TAG
from tests import vendor

APPS = Path(__file__).parent / "apps"
APPLICATION = CACHE / "application"
"""What the vendor's `flash build` made of apps/flash, unpacked: both runtimes serve it."""
RESOURCE = "speed"
ANSWERS = CACHE / "answers.json"

LIMIT = "raw ASGI (the limit)"
OURS = "flash-runtime"
BASELINE = "baseline"
"""This project as of an earlier commit."""
OURS_QUIET = "flash-runtime, access log off"
VENDOR = "vendor's worker"
VENDOR_QUIET = "vendor's worker, access log off"
FASTAPI = "FastAPI"
LITSERVE = "LitServe"
BENTOML = "BentoML"
MOSEC = "mosec"

Command = Callable[[Path, int, int], list[str | Path]]


@dataclass(frozen=True)
class Side:
    """One of those compared. `command` takes the environment's `bin`, a port and a number of workers."""

    name: str
    environment: str
    command: Command
    directory: Path = APPS
    environ: Mapping[str, str] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Why it cannot do what a case needs, by that need."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What it does instead, by that need."""
    only: tuple[str, ...] = ()
    """The cases that it is there for; all, where empty."""
    unpacks: bool = False
    """Whether it unpacks an artifact by itself."""

    def environ_for(self, port: int, workers: int = 1) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        own = {name: value.format(port=port, workers=workers) for name, value in self.environ.items()}
        return kept | own

    def command_for(self, port: int, workers: int = 1) -> list[str | Path]:
        return self.command(CACHE / f"{self.environment}-{TAG}" / "bin", port, workers)


def _uvicorn(target: str, *options: str) -> Command:
    def command(place: Path, port: int, workers: int) -> list[str | Path]:
        line = [place / "uvicorn", target, "--host", "127.0.0.1", "--port", str(port), *options]
        return [*line, "--workers", str(workers)] if workers > 1 else line

    return command


def _python(script: str, *options: str) -> Command:
    def command(place: Path, port: int, workers: int) -> list[str | Path]:
        return [place / "python", script, *(option.format(port=port) for option in options)]

    return command


def _flash_runtime(place: Path, port: int, workers: int) -> list[str | Path]:
    return [place / "flash-runtime", "serve"]  # its environment has the rest


def _bentoml(place: Path, port: int, workers: int) -> list[str | Path]:
    return [place / "bentoml", "serve", "bento:Speed", "--host", "127.0.0.1", "--port", str(port)]


_FLASH = {
    "FLASH_HOST": "127.0.0.1",
    "PORT": "{port}",
    "FLASH_APP_DIR": str(APPLICATION),
    "FLASH_DISABLE_UNPACK": "1",
    "FLASH_WORKERS": "{workers}",
}
_THE_VENDORS = {"RUNPOD_FLASH_SILENCE_DEPRECATION": "1", "RUNPOD_FLASH_DISABLE_TELEMETRY": "1"}
# The package says no more of the vendor's image than that its default command is `uvicorn lb_handler:app`.
# The image's Dockerfile-lb and Dockerfile-lb-cpu (runpod-workers/worker-tetra on GitHub, release 1.0.0)
# have `uvicorn … --host 0.0.0.0 --port 80 --timeout-keep-alive 600`, into which, they say, the platform
# puts the generated `handler_<resource>:app`. There is no --log-level and no --no-access-log, so uvicorn's
# access log is on; and uvicorn[standard] is installed, so uvloop and httptools are used.
_VENDOR_OPTIONS = ("--timeout-keep-alive", "600")
_HANDLER = f"handler_{RESOURCE}:app"
_POST_ONLY = "its routes are POST only and have no path parameters"
_ALWAYS_ANNOTATED = "how a result is written does not go by its annotation"

SIDES = [
    Side(
        LIMIT,
        "fastapi",
        _uvicorn("raw:app", "--no-access-log", "--lifespan", "off"),
        environ={"SPEED_ANSWERS": str(ANSWERS)},
    ),
    Side(
        OURS,
        environments.OURS,
        _flash_runtime,
        environ=_FLASH,
        unpacks=True,
    ),
    Side(
        OURS_QUIET,
        environments.OURS,
        _flash_runtime,
        environ={**_FLASH, "FLASH_ACCESS_LOG": "off"},
        unpacks=True,
    ),
    Side(VENDOR, "vendor", _uvicorn(_HANDLER, *_VENDOR_OPTIONS), APPLICATION, environ=_THE_VENDORS),
    Side(
        VENDOR_QUIET,
        "vendor",
        _uvicorn(_HANDLER, *_VENDOR_OPTIONS, "--no-access-log"),
        APPLICATION,
        environ=_THE_VENDORS,
        only=("add-16",),
    ),
    Side(FASTAPI, "fastapi", _uvicorn("plain_fastapi:app")),
    Side(
        LITSERVE,
        "litserve",
        _python("lit.py", "{port}"),
        lacks={"get": _POST_ONLY, "bare": _ALWAYS_ANNOTATED},
    ),
    Side(
        BENTOML,
        "bentoml",
        _bentoml,
        environ={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(CACHE / "bentoml-home")},
        lacks={"get": _POST_ONLY, "bare": _ALWAYS_ANNOTATED},
    ),
    Side(
        MOSEC,
        "mosec",
        # Its own limit of 3 s to a request is for small ones.
        _python("mosec_workers.py", "--address", "127.0.0.1", "--port", "{port}", "--timeout", "60000"),
        lacks={"get": _POST_ONLY, "bare": _ALWAYS_ANNOTATED},
        notes={"async": "mosec's `forward` cannot be async: a plain function instead"},
    ),
]


def side(name: str) -> Side:
    return next(each for each in SIDES if each.name == name)


def baseline(environment: str) -> Side:
    """This project as another environment has it: all but the executable is as with OURS."""
    return replace(side(OURS), name=BASELINE, environment=environment)


def build() -> Path:
    """The artifact, as the vendor's own tool builds it; also unpacked into APPLICATION."""
    artifact = vendor.build(APPS / "flash", TAG)
    shutil.rmtree(APPLICATION, ignore_errors=True)
    vendor.unpack(artifact, APPLICATION)
    return artifact
