"""Cold starts: seconds from before the process is started to the first answer of `/ping` of each status.

Each runtime serves the same artifact of the vendor's `flash build`, in two ways: from a directory where it
lies unpacked, compiled by an earlier start; and from the artifact itself, into an empty directory. This
project unpacks it by itself; the vendor's image does so first of all, and `tar` stands in for that
here.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.images import ping
from benchmarks.speed import sides
from benchmarks.speed.processes import Cores, running
from benchmarks.speed.sides import Side
from tests.serving import free_port

UNPACKED, PACKED = "unpacked", "artifact"
STARTS = [
    (sides.OURS, UNPACKED),
    (sides.VENDOR, UNPACKED),
    (sides.FASTAPI, UNPACKED),
    (sides.OURS, PACKED),
    (sides.VENDOR, PACKED),
]
_LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.002
# Once there are answers, fewer questions: each takes its server's time away from starting.
_LATER_POLL_SECONDS = 0.01


def measure(side: Side, way: str, artifact: Path, cores: Cores, place: Path) -> dict[str, float]:
    """Seconds to the first answer, by its status."""
    port = free_port()
    command, environ, directory = side.command_for(port), side.environ_for(port), side.directory
    with tempfile.TemporaryDirectory(dir=place) as empty:
        if way == PACKED:
            directory = Path(empty)
            if side.unpacks:
                environ = _unpacking(environ, artifact, directory / "app")
            else:
                line = f"tar xzf {shlex.quote(str(artifact))} && exec {shlex.join(map(str, command))}"
                command = ["sh", "-c", line]
        began = time.perf_counter()
        log = place / "start.log"
        with running(command, environ, directory, log, cores.server, gently=False) as group:
            first: dict[str, float] = {}
            while "200" not in first:
                status = ping(port)
                passed = time.perf_counter() - began
                if status is not None:
                    first.setdefault(str(status), passed)
                if passed > _LIMIT_SECONDS or group.process.poll() is not None:
                    raise SystemExit(f"{side.name} was not ready in {passed:.0f} s:\n{group.last_lines()}")
                time.sleep(_LATER_POLL_SECONDS if first else _POLL_SECONDS)
            return first


def _unpacking(environ: Mapping[str, str], artifact: Path, directory: Path) -> dict[str, str]:
    shutil.rmtree(directory, ignore_errors=True)
    kept = {name: value for name, value in environ.items() if name != "FLASH_DISABLE_UNPACK"}
    return {**kept, "FLASH_BUILD_ARTIFACT_PATH": str(artifact), "FLASH_APP_DIR": str(directory)}
