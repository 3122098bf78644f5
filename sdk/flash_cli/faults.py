"""Faults of the command. Each says what is wrong, where, and what to do, and has an exit code."""

from __future__ import annotations

from dataclasses import dataclass

from flash_cli.application import Place
from flash_runtime.errors import EXIT_BAD_DATA, EXIT_CONFIG, EXIT_NO_INPUT, Fault

EXIT_UNAVAILABLE = 69
EXIT_CANNOT_CREATE = 73
"""From BSD's sysexits.h, as the codes in flash_runtime.errors."""

_MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem in the source."""

    place: Place
    what: str
    remedy: str
    excerpt: str = ""
    """The line of the source with a mark below it, or nothing."""


class SourceFault(Fault):
    """The source of the application cannot be built. `problems` has everything that was found."""

    exit_code = EXIT_BAD_DATA

    def __init__(self, *problems: Problem) -> None:
        self.problems = tuple(sorted(set(problems)))
        first = self.problems[0]
        super().__init__(first.what, where=str(first.place), remedy=first.remedy)

    def __str__(self) -> str:
        """One problem as a fault's lines, or a list of the first problems."""
        if len(self.problems) == 1:
            excerpt = self.problems[0].excerpt
            return f"{super().__str__()}\n{excerpt}" if excerpt else super().__str__()
        lines = [f"The source has {len(self.problems)} problems."]
        for problem in self.problems[:_MOST_PROBLEMS]:
            lines += [f"  {problem.place}: {problem.what}", f"    remedy: {problem.remedy}"]
            lines += [problem.excerpt] if problem.excerpt else []
        more = len(self.problems) - _MOST_PROBLEMS
        return "\n".join([*lines, f"  and {more} more."] if more > 0 else lines)


class NothingFoundFault(Fault):
    """The project declares no endpoint."""

    exit_code = EXIT_NO_INPUT


class DependencyFault(Fault):
    """A dependency cannot be installed. `reason` has the installer's own words, in a few lines."""

    exit_code = EXIT_UNAVAILABLE

    def __init__(self, what: str, *, where: str, remedy: str, reason: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.reason = reason

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {line}" for line in self.reason.splitlines())])


class OutputFault(Fault):
    """A file cannot be written."""

    exit_code = EXIT_CANNOT_CREATE


class TargetFault(Fault):
    """A deployment target cannot be reached, or a worker there does not become healthy.

    `log` has the last lines of that worker's log.
    """

    exit_code = EXIT_UNAVAILABLE

    def __init__(self, what: str, *, where: str, remedy: str, log: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.log = log

    def __str__(self) -> str:
        return super().__str__() + (f"\n  end of its log:\n{self.log}" if self.log else "")


class ConfigFault(Fault):
    """`pyproject.toml` or an option of the command has a value that cannot be used."""

    exit_code = EXIT_CONFIG
