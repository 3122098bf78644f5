"""The command's first step: which extra is lacking, where something that it needs is not installed."""

from __future__ import annotations

import sys

from flash_runtime.errors import UsageFault

_EXTRAS = {
    **dict.fromkeys(("dotenv", "httpx", "pathspec", "rich", "typer", "uv", "watchfiles"), "cli"),
    "docker": "docker",
    **dict.fromkeys(("kubernetes", "yaml"), "kubernetes"),
}
"""By the module: the extra of flash-runtime that brings it."""


def main() -> None:
    """Run the command. What a module of the user's lacks does not come here: it is imported elsewhere."""
    try:
        from flash_cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        fault = UsageFault(
            f"This needs `{error.name}`, which is not installed.",
            where=sys.executable,
            remedy=f"install the extra `{extra}` of flash-runtime, as in "
            f"pip install '/path/to/flash-runtime[cli{'' if extra == 'cli' else f',{extra}'}]'.",
        )
        sys.stderr.write(f"flash: {fault}\n")
        raise SystemExit(fault.exit_code) from None
