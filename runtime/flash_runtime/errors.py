"""The fault tree: what went wrong, where, and what to do about it.

A `Fault` is an error that its reader can correct: an operator (exit code) or a client (HTTP status). It says
what, where and the remedy, on one screen. Anything that is not a `Fault` is a bug in this project or an
exception of user code, and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

# From BSD's sysexits.h, so that an operator can tell the cause from `docker inspect` alone.
EXIT_OK = 0
EXIT_USAGE = 64
EXIT_BAD_DATA = 65
EXIT_NO_INPUT = 66
EXIT_SOFTWARE = 70
EXIT_CONFIG = 78


class Fault(Exception):
    """An error with a remedy.

    `what` is one sentence. `where` is a file, a JSON path, a variable's name or a URL. `remedy` says what the
    reader can do. `exit_code` is the process's code if the fault ends it.
    """

    exit_code: ClassVar[int] = EXIT_SOFTWARE

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """The fault for a terminal or a log: what, where and remedy, a line each."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


class UsageFault(Fault):
    """The command line is wrong."""

    exit_code = EXIT_USAGE


class SettingFault(Fault):
    """An environment variable has a value that cannot be used. `where` names the variable."""

    exit_code = EXIT_CONFIG


class ArtifactFault(Fault):
    """The build artifact is damaged, hostile, or not an artifact."""

    exit_code = EXIT_BAD_DATA


class ArtifactMissingFault(Fault):
    """There is neither an artifact nor an unpacked application."""

    exit_code = EXIT_NO_INPUT


class ManifestFault(Fault):
    """The manifest cannot be served. `problems` has every problem, each as `JSON path: what is wrong`."""

    exit_code = EXIT_BAD_DATA

    def __init__(
        self, what: str, *, where: str, remedy: str | None = None, problems: tuple[str, ...] = ()
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])


class UserCodeFault(Fault):
    """User code cannot be imported. `traceback` is the user's own, or empty if nothing was raised."""

    exit_code = EXIT_SOFTWARE

    def __init__(
        self, what: str, *, where: str | None = None, remedy: str | None = None, traceback: str = ""
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.traceback = traceback

    def __str__(self) -> str:
        """The fault's lines, then the user's traceback: what a reader of the log's end needs comes last."""
        text = super().__str__()
        return f"{text}\n{self.traceback.rstrip()}" if self.traceback else text


class CallFault(Fault):
    """A call by name was not made, or failed. The caller gets `status` and `what`.

    `kind` and `trace` are the type and the traceback of the exception `raised`, if the function raised one.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        kind: str | None = None,
        trace: str = "",
        raised: BaseException | None = None,
    ) -> None:
        super().__init__(what)
        self.status = status
        self.kind = kind
        self.trace = trace
        self.raised = raised


def boot_timeout_fault(seconds: float) -> UserCodeFault:
    """User code was still importing at the boot deadline."""
    return UserCodeFault(
        f"The application was not ready within FLASH_BOOT_TIMEOUT={seconds:g} seconds.",
        where="the import of the application's modules",
        remedy="load less at import, or allow more time.",
    )


def boot_crash_fault(how: str) -> UserCodeFault:
    """The process ended while it imported user code; `how` is in words."""
    return UserCodeFault(
        f"The process ended while it imported user code: {how}.",
        where="the import of the application's modules",
        remedy="look for os._exit() or a crash of a C extension at the top level of the modules.",
    )
