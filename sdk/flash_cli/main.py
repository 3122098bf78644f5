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


Environment = Annotated[
    str | None, typer.Option("--env", "-e", help="A table [tool.flash.env.NAME]; the only one, by default.")
]


@app.command()
def deploy(
    env: Environment = None,
    preview: Annotated[bool, typer.Option("--preview", help="In local containers, until Ctrl-C.")] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds in which every worker must be healthy.", min=1)
    ] = 480,
    directory: Directory = _HERE,
) -> None:
    """Build, and bring the endpoints to an environment: what served before ends when the new is healthy."""
    from flash_cli import deploy as deployment

    (deployment.preview if preview else deployment.deploy)(directory, env, timeout)


@app.command()
def status(env: Environment = None, directory: Directory = _HERE) -> None:
    """Show which endpoints are deployed, and how they are."""
    from flash_cli import deploy as deployment

    deployment.status(directory, env)


@app.command()
def logs(
    endpoint: Annotated[str | None, typer.Argument(help="One endpoint; all, by default.")] = None,
    env: Environment = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="The last so many of each worker.", min=0)
    ] = 100,
    directory: Directory = _HERE,
) -> None:
    """Print what the endpoints' workers log."""
    from flash_cli import deploy as deployment

    deployment.logs(directory, env, endpoint, follow, lines)


@app.command()
def undeploy(
    endpoint: Annotated[str | None, typer.Argument(help="The endpoint to take away.")] = None,
    env: Environment = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", "--force", help="Without asking.")] = False,
    directory: Directory = _HERE,
) -> None:
    """Take endpoints away; requests that have begun are finished."""
    from flash_cli import deploy as deployment

    deployment.undeploy(directory, env, endpoint, everything, yes)


def main() -> None:
    """Run the command; a fault is told on one screen, and is the exit code."""
    try:
        app()
    except Fault as fault:
        sys.stderr.write(f"flash: {fault}\n")
        raise SystemExit(fault.exit_code) from None


if __name__ == "__main__":
    main()
