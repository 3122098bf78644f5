"""Faults of the command: what, where and the remedy, and an exit code; as everywhere in the project."""

from __future__ import annotations

from flash_runtime.errors import EXIT_BAD_DATA, EXIT_CONFIG, EXIT_NO_INPUT, Fault

EXIT_UNAVAILABLE = 69
EXIT_CANNOT_CREATE = 73
"""As flash_runtime.errors has its own: BSD's sysexits.h."""


class SourceFault(Fault):
    """The source of the application declares what cannot be; `where` is file and line."""

    exit_code = EXIT_BAD_DATA


class NothingFoundFault(Fault):
    """The project declares no endpoint."""

    exit_code = EXIT_NO_INPUT


class DependencyFault(Fault):
    """A dependency cannot be installed."""

    exit_code = EXIT_UNAVAILABLE


class OutputFault(Fault):
    """What is to be written cannot be."""

    exit_code = EXIT_CANNOT_CREATE


class TargetFault(Fault):
    """A deployment's target cannot be reached, or what runs there does not turn healthy."""

    exit_code = EXIT_UNAVAILABLE


class ConfigFault(Fault):
    """`pyproject.toml`, or an option of the command, asks for what there is not."""

    exit_code = EXIT_CONFIG
