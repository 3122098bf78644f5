"""Where, when and with what a run measures: a result's first lines."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.speed import load


def conditions() -> dict[str, str]:
    """The date, the machine, and the versions of Python and wrk; without wrk, the end."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "wrk": load.wrk_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
