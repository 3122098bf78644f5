"""What the tests on a real device share."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.gpu.machine import (
    APPLICATION,
    ROUTES,
    Gpu,
    driver_environment,
    gpus,
    wait_until_ready,
    what_is_missing,
)
from tests.serving import Server, serve, user_code

Serving = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def gpu() -> Gpu:
    """The first device; skips the test where there is none, or no torch that can use it."""
    missing = what_is_missing()
    if missing:
        pytest.skip(missing)
    return gpus()[0]


@pytest.fixture
def serving(tmp_path, gpu: Gpu) -> Serving:
    """Serves the application on the first device, from the moment when a worker is ready."""

    @contextlib.contextmanager
    def start(
        source: str = APPLICATION,
        routes: list[tuple[str, str, str]] = ROUTES,
        files: dict[str, str] | None = None,
        **settings: str | int | None,
    ) -> Iterator[Server]:
        """`files` lie beside the application; a setting that is None is not set."""
        directory = user_code(tmp_path, source, routes)
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
        every = {
            "CUDA_VISIBLE_DEVICES": gpu.id,
            "FLASH_APP_DIR": directory,
            **driver_environment(),
            **settings,
        }
        given = {name: value for name, value in every.items() if value is not None}
        with serve(tmp_path, wait_ready=False, separate_health=True, **given) as server:
            wait_until_ready(server)
            yield server

    return start
