"""The commands, their options and their texts; each imports what it alone needs, when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flash_runtime.errors import Fault

app = typer.Typer(
    name="flash",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of `flash --help`
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from flash_runtime import __version__

        typer.echo(f"flash-runtime {__version__}")
        raise typer.Exit


@app.callback()
def flash(
    version: Annotated[
        bool,
        typer.Option("--version", "-v", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Run, build and deploy endpoints that are written with runpod_flash."""


Directory = Annotated[Path, typer.Option("--directory", "-C", help="The project's directory.")]
_HERE = Path()


@app.command()
def build(
    directory: Directory = _HERE,
    python_version: Annotated[str, typer.Option(help="Python of the image: 3.11, 3.12 or 3.13.")] = "3.12",
    platform: Annotated[str, typer.Option(help="linux/amd64 or linux/arm64.")] = "linux/amd64",
    exclude: Annotated[
        str, typer.Option(help="Packages to leave out, separated by commas. Torch and its kin always are.")
    ] = "",
    no_deps: Annotated[
        bool, typer.Option("--no-deps", help="Leave out what the dependencies depend on.")
    ] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="The artifact's name in .flash, or its path.")
    ] = "artifact.tar.gz",
) -> None:
    """Package the application for the worker's image."""
    from rich.console import Console

    from flash_cli import env_file
    from flash_cli.building import build as building
    from flash_cli.building import report
    from flash_cli.project import Project

    project = Project.find(directory)
    env_file.enter(project.root)
    options = building.BuildOptions(
        python=python_version,
        platform=platform,
        exclude=tuple(name for name in (each.strip() for each in exclude.split(",")) if name),
        no_deps=no_deps,
        output=output,
        epoch=_epoch(os.environ.get("SOURCE_DATE_EPOCH", "0")),
    )
    built = building.build(project, options, say=lambda step: typer.echo(step, err=True))
    report.show(built, project, Console(width=None if sys.stdout.isatty() else 200))


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The project's name, or . for this directory.")],
    directory: Directory = _HERE,
) -> None:
    """Write a project that `flash run` serves at once."""
    from flash_cli.init import write_project

    typer.echo(write_project(directory, name))


def _epoch(text: str) -> int:
    """SOURCE_DATE_EPOCH: https://reproducible-builds.org."""
    from flash_cli.faults import ConfigFault

    if text.isascii() and text.isdecimal() and int(text) < 2**32:
        return int(text)
    raise ConfigFault(
        f"SOURCE_DATE_EPOCH={text[:40]!r} is no time.",
        where="the environment (SOURCE_DATE_EPOCH)",
        remedy="give seconds since 1970, or unset it.",
    )


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
    from flash_cli.serving.run import run as serve

    raise typer.Exit(serve(directory, host, port, reload=reload))


app.command("dev", hidden=True)(run)  # the vendor's other name for it


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
    exclude: Annotated[str, typer.Option(help="As `flash build` has it.")] = "",
    no_deps: Annotated[bool, typer.Option("--no-deps", help="As `flash build` has it.")] = False,
    directory: Directory = _HERE,
) -> None:
    """Build, and bring the endpoints to an environment: what served before ends when the new is healthy."""
    from flash_cli import env_file
    from flash_cli.deploying import deploy as deployment

    env_file.enter(directory)
    (deployment.preview if preview else deployment.deploy)(directory, env, timeout, exclude, no_deps)


@app.command()
def status(env: Environment = None, directory: Directory = _HERE) -> None:
    """Show which endpoints are deployed, and how they are."""
    from flash_cli.deploying import deploy as deployment

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
    from flash_cli.deploying import deploy as deployment

    deployment.logs(directory, env, endpoint, follow, lines)


@app.command()
def undeploy(
    endpoint: Annotated[str | None, typer.Argument(help="The endpoint to take away.")] = None,
    env: Environment = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", "--force", "-f", help="Without asking.")] = False,
    directory: Directory = _HERE,
) -> None:
    """Take endpoints away; requests that have begun are finished."""
    from flash_cli.deploying import deploy as deployment

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
