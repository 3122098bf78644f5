"""What git has of this project: commits by name, and their files."""

from __future__ import annotations

import subprocess
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def commit_of(revision: str, repository: Path = _ROOT) -> str:
    """The full hash of the commit that a branch, a tag or a short hash names."""
    try:
        # With --end-of-options, git does not take a revision that starts with a dash for an option.
        found = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"git knows no commit {revision!r} here: {error.stderr.decode().strip()}") from None
    return found.decode().strip()


def is_dirty(repository: Path = _ROOT) -> bool:
    """Whether tracked files differ from the commit that is checked out."""
    return bool(_git(repository, "status", "--porcelain", "--untracked-files=no"))


def export(commit: str, directory: Path, repository: Path = _ROOT) -> None:
    """Write the files of that commit into the directory."""
    archive = _git(repository, "archive", "--format=tar", commit)
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "xf", "-", "-C", directory], input=archive, check=True)


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True, timeout=60).stdout
