"""The entry point of `flash`. It names the extra to install if a package is missing."""

from __future__ import annotations

import sys

from flash_runtime.errors import UsageFault

_EXTRAS = {
    **dict.fromkeys(("dotenv", "httpx", "pathspec", "rich", "typer", "uv", "watchfiles"), "cli"),
    "docker": "docker",
    **dict.fromkeys(("kubernetes", "yaml"), "kubernetes"),
}
"""The extra of flash-runtime that brings each module."""


def main() -> None:
    """Run the command. User modules are imported in other processes, so their errors do not come here."""
    try:
        from flash_cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        fault = UsageFault(
            f"This command needs `{error.name}`, which is not installed.",
            where=sys.executable,
            remedy=f"install the extra `{extra}` of flash-runtime: "
            f"pip install '/path/to/flash-runtime[cli{'' if extra == 'cli' else f',{extra}'}]'.",
        )
        sys.stderr.write(f"flash: {fault}\n")
        raise SystemExit(fault.exit_code) from None
