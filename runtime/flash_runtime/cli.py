"""The command `flash-runtime`: serve, check, health, version.

`health` and the first steps of `serve` import only the standard library, since each import is a cold start.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from flash_runtime import __version__
from flash_runtime.errors import EXIT_OK, Fault, UsageFault

USAGE = """\
usage: flash-runtime COMMAND

  serve     run the packaged application (settings come from the environment)
  check     validate settings, artifact, manifest and handlers, print the routes, and exit
  health    ask the worker on this machine how it is; exit 0 if it can serve, else 1
  version   print the version
"""
_REMEDY = f"""\
give one of the commands below, without options. Settings are environment variables, such as PORT=9000.

{USAGE}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["help"] or {"-h", "--help"} & set(words):
        sys.stdout.write(USAGE)
        return EXIT_OK
    try:
        return _run(words)
    except Fault as fault:
        sys.stderr.write(f"flash-runtime: {fault}\n")
        return fault.exit_code


def _run(words: list[str]) -> int:
    if len(words) != 1:
        raise UsageFault(f"One command is expected, got {len(words)}.", remedy=_REMEDY)
    command = words[0]
    if command in ("version", "--version"):
        sys.stdout.write(f"flash-runtime {__version__}\n")
        return EXIT_OK
    if command not in ("serve", "check", "health"):
        raise UsageFault(f"There is no command `{command}`.", remedy=_REMEDY)
    # Each command imports what it alone needs.
    if command == "serve":
        began = time.monotonic()
        from flash_runtime.commands.serve import serve

        return serve(os.environ, began)
    from flash_runtime.config.settings import Settings

    settings = Settings.from_environ(os.environ)
    if command == "check":
        from flash_runtime.commands.check import check

        return check(settings)
    from flash_runtime.commands.health import probe

    return probe(settings)
