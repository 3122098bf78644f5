"""The commands, with their options and help texts. Each command imports what it needs when it runs."""

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
    rich_markup_mode=None,  # importing rich takes longer than the rest of `flash --help`
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


Directory = Annotated[Path, typer.Option("--directory", "-C", help="Directory of the project.")]
_HERE = Path()


@app.command()
def build(
    directory: Directory = _HERE,
    python_version: Annotated[
        str, typer.Option(help="Python version of the image: 3.11, 3.12 or 3.13.")
    ] = "3.12",
    platform: Annotated[
        str, typer.Option(help="Platform of the image: linux/amd64 or linux/arm64.")
    ] = "linux/amd64",
    exclude: Annotated[
        str,
        typer.Option(
            help="Packages to leave out, separated by commas. torch, torchvision, torchaudio and triton are "
            "never packed: the image provides them."
        ),
    ] = "",
    no_deps: Annotated[
        bool,
        typer.Option("--no-deps", help="Pack the dependencies without the packages that they depend on."),
    ] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Name of the artifact in .flash, or a path.")
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
    name: Annotated[str, typer.Argument(help="Name of the project, or . for this directory.")],
    directory: Directory = _HERE,
) -> None:
    """Create a small project that `flash run` can serve."""
    from flash_cli.init import write_project

    typer.echo(write_project(directory, name))


def _epoch(text: str) -> int:
    """The time of every file in the artifact: https://reproducible-builds.org has SOURCE_DATE_EPOCH."""
    from flash_cli.faults import ConfigFault

    if text.isascii() and text.isdecimal() and int(text) < 2**32:
        return int(text)
    raise ConfigFault(
        f"SOURCE_DATE_EPOCH={text[:40]!r} is not a time.",
        where="the environment (SOURCE_DATE_EPOCH)",
        remedy="set it to a number of seconds since 1970, or unset it.",
    )


@app.command()
def run(
    directory: Directory = _HERE,
    host: Annotated[str, typer.Option(envvar="FLASH_HOST", help="Address to listen on.")] = "localhost",
    port: Annotated[
        int,
        typer.Option(
            "--port",
            "-p",
            envvar="FLASH_PORT",
            min=1,
            max=65535,
            help="Port to listen on. If it is taken, the next free one is used.",
        ),
    ] = 8888,
    reload: Annotated[bool, typer.Option(help="Reload when a file is saved.")] = True,
) -> None:
    """Serve the project's endpoints from their source, each under /NAME, and reload on a save."""
    from flash_cli.serving.run import run as serve

    raise typer.Exit(serve(directory, host, port, reload=reload))


app.command("dev", hidden=True)(run)  # the vendor's other name for it


Environment = Annotated[
    str | None,
    typer.Option(
        "--env",
        "-e",
        help="Environment: the NAME of a table [tool.flash.env.NAME] in pyproject.toml. Not needed if there "
        "is only one.",
    ),
]


@app.command()
def deploy(
    env: Environment = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Deploy to containers on this machine, until Ctrl-C.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that every worker has to become healthy.", min=1)
    ] = 480,
    exclude: Annotated[str, typer.Option(help="Packages to leave out, as for `flash build`.")] = "",
    no_deps: Annotated[
        bool, typer.Option("--no-deps", help="Leave out dependencies of dependencies, as `flash build` does.")
    ] = False,
    directory: Directory = _HERE,
) -> None:
    """Build the project and deploy it. The old workers end after the new ones are healthy."""
    from flash_cli import env_file
    from flash_cli.deploying import deploy as deployment

    env_file.enter(directory)
    (deployment.preview if preview else deployment.deploy)(directory, env, timeout, exclude, no_deps)


@app.command()
def status(env: Environment = None, directory: Directory = _HERE) -> None:
    """Show the deployed endpoints and their health."""
    from flash_cli.deploying import deploy as deployment

    deployment.status(directory, env)


@app.command()
def logs(
    endpoint: Annotated[
        str | None, typer.Argument(help="Endpoint to show. The default is all endpoints.")
    ] = None,
    env: Environment = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="How many lines to print of each worker's log.", min=0)
    ] = 100,
    directory: Directory = _HERE,
) -> None:
    """Print the logs of the endpoints' workers."""
    from flash_cli.deploying import deploy as deployment

    deployment.logs(directory, env, endpoint, follow, lines)


@app.command()
def undeploy(
    endpoint: Annotated[str | None, typer.Argument(help="Endpoint to remove.")] = None,
    env: Environment = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all endpoints.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", "--force", "-f", help="Do not ask for confirmation.")
    ] = False,
    directory: Directory = _HERE,
) -> None:
    """Remove deployed endpoints. Requests in flight are finished first."""
    from flash_cli.deploying import deploy as deployment

    deployment.undeploy(directory, env, endpoint, everything, yes)


def main() -> None:
    """Run the command. A fault is printed on one screen and sets the exit code."""
    try:
        app()
    except Fault as fault:
        sys.stderr.write(f"flash: {fault}\n")
        raise SystemExit(fault.exit_code) from None


if __name__ == "__main__":
    main()
