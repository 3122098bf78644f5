"""Watching: reports which files of a project were saved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from flash_cli.env_file import FILE as ENV_FILE
from flash_cli.faults import ConfigFault
from flash_cli.project import CONFIG, OUTPUT

_STEP_MS = 40
"""How long to wait after a change: editors write a file in several steps."""
_TICK_MS = 100


class _Sources(DefaultFilter):
    """The files that make up an application, without environments and caches."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, OUTPUT, "venv", ".cache")

    def __call__(self, change: Change, path: str) -> bool:
        name = Path(path).name
        return (name.endswith(".py") or name in (CONFIG, ENV_FILE)) and super().__call__(change, path)


def saves(root: Path, stop: threading.Event) -> Iterator[frozenset[Path]]:
    """Yields the files that were saved, made or removed, as sets, and empty sets between, until `stop`.

    Watching starts with the first set. Raises `ConfigFault` if the system cannot watch all directories.
    """
    changes = watch(
        root,
        watch_filter=_Sources(),
        debounce=10 * _STEP_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=_TICK_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    while True:
        try:
            changed = next(changes)
        except StopIteration:
            return
        except (OSError, RuntimeError) as error:
            raise ConfigFault(
                f"The project cannot be watched: {error}.",
                where=str(root),
                remedy="raise fs.inotify.max_user_watches with sysctl, or use --no-reload.",
            ) from error
        yield frozenset(Path(path) for _, path in changed)


def ticks(stop: threading.Event) -> Iterator[frozenset[Path]]:
    """Yields empty sets at the same pace, without watching."""
    while not stop.wait(_TICK_MS / 1000):
        yield frozenset()
