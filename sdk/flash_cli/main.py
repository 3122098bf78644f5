"""The commands, their options and their texts; each imports what it alone needs, when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flash_runtime.errors import Fault

app = typer.Typer(
    name="flash",
    help="Run, build and deploy endpoints that are written with runpod_flash.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of `flash --help`
    pretty_exceptions_enable=False,
)

Directory = Annotated[Path, typer.Option("--directory", "-C", help="The project's directory.")]
_HERE = Path()


@app.command()
def build(directory: Directory = _HERE) -> None:
    """Package the application for the worker's image."""
    raise NotImplementedError(directory)


@app.command()
def run(
    directory: Directory = _HERE,
    host: Annotated[str, typer.Option(envvar="FLASH_HOST", help="The address to listen on.")] = "localhost",
    port: Annotated[
        int,
        typer.Option(
            "--port", "-p", envvar="FLASH_PORT", min=1, max=65535, help="The next free one is used."
        ),
    ] = 8888,
    reload: Annotated[bool, typer.Option(help="Whether a saved file is served at once.")] = True,
) -> None:
    """Serve the project's endpoints from their source, each under /NAME."""
    from flash_cli.dev import run as serve

    raise typer.Exit(serve(directory, host, port, reload=reload))


app.command("dev", hidden=True)(run)  # the vendor's other name for it


def main() -> None:
    """Run the command; a fault is told on one screen, and is the exit code."""
    try:
        app()
    except Fault as fault:
        sys.stderr.write(f"flash: {fault}\n")
        raise SystemExit(fault.exit_code) from None


if __name__ == "__main__":
    main()
