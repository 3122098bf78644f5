"""The contract: everything that the command `flash` has to know about the worker.

Apart from this module, the command imports the worker's faults, its settings and their fields, its version
and its entry point, and nothing else.
"""

from __future__ import annotations

from flash_runtime.artifact.paths import parameters_of, path_problems
from flash_runtime.config import fields
from flash_runtime.config.settings import EVERY_RESOURCE, Settings
from flash_runtime.usercode.shared_packages import SHARED

__all__ = [
    "EVERY_RESOURCE",
    "EXECUTE_PATH",
    "HEALTH_PATH",
    "JOB_PATH",
    "MANIFEST",
    "RESERVED_PATHS",
    "SHARED",
    "environ",
    "parameters_of",
    "path_problems",
    "variable",
]

MANIFEST = "flash_manifest.json"
"""The manifest's file, in the root of an artifact."""
HEALTH_PATH = "/ping"
"""Where a worker tells its health, unless HEALTH_CHECK_PATH names another path."""
EXECUTE_PATH = "/execute"
"""Where a worker takes calls of functions by name."""
JOB_PATH = "/runsync"
"""Where a worker takes the jobs of a queue-based resource."""
RESERVED_PATHS = (EXECUTE_PATH, HEALTH_PATH)
"""Paths that no route may have."""


def variable(setting: str) -> str:
    """The environment variable of a setting, which is a field of `Settings`: `app_dir` is FLASH_APP_DIR."""
    return fields.name_of(Settings, setting)


def environ(**settings: str) -> dict[str, str]:
    """The variables that give a worker these settings, by the names of the fields of `Settings`."""
    return {variable(setting): text for setting, text in settings.items()}
