"""Handlers and modules that a test holds: they run until it lets them go, whatever the machine's speed."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.serving import Server, until

SOURCE = """
import asyncio
import pathlib
import time

def _begin():
    with open("begun", "a") as file:
        file.write(".")

def _is_released():
    return pathlib.Path("released").exists()

def hold():
    _begin()
    while not _is_released():
        time.sleep(0.01)
    return "held"

async def hold_async():
    _begin()
    while not _is_released():
        await asyncio.sleep(0.01)
    return "held"

async def hold_loop():
    return hold()
"""
IMPORT = """
import pathlib
import time

while not pathlib.Path("released").exists():
    time.sleep(0.01)
"""
"""A module that begins with it is imported when the test lets it go."""
ROUTES = [("GET", "/hold", "hold"), ("GET", "/hold_async", "hold_async"), ("GET", "/hold_loop", "hold_loop")]


def begun(directory: Path) -> int:
    """How many of them have begun; `directory` is that of the application."""
    path = directory / "begun"
    return path.stat().st_size if path.exists() else 0


def until_begun(directory: Path, count: int = 1) -> None:
    until(lambda: begun(directory) == count, f"{count} handlers have begun")


def release(directory: Path) -> None:
    """Let them go, and those that begin later."""
    (directory / "released").touch()


@contextlib.contextmanager
def asking(
    server: Server, count: int, path: str
) -> Iterator[list[concurrent.futures.Future[httpx.Response]]]:
    """What so many clients get that ask at the same time, each on a connection of its own."""
    limits = httpx.Limits(max_connections=count)
    with (
        httpx.Client(base_url=server.url, timeout=60, limits=limits) as client,
        concurrent.futures.ThreadPoolExecutor(count) as pool,
    ):
        yield [pool.submit(client.get, path) for _ in range(count)]


def answers(asked: list[concurrent.futures.Future[httpx.Response]]) -> list[httpx.Response]:
    return [each.result() for each in asked]
