"""An application whose handlers do what they should not, and what its server says of itself meanwhile."""

from __future__ import annotations

from tests.serving import Server

SOURCE = """
import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import subprocess
import time

ballast = []

async def pid():
    await asyncio.sleep(0.005)
    return {"pid": os.getpid()}

def pid_sync():
    time.sleep(0.005)
    return {"pid": os.getpid()}

async def leave():
    os._exit(3)

def segfault():
    ctypes.string_at(0)

async def block(seconds: float):
    time.sleep(seconds)
    return {"pid": os.getpid()}

def hold_interpreter(seconds: int):
    # PyDLL keeps the interpreter's lock, as an extension may.
    ctypes.PyDLL(None).sleep(seconds)

def real_time_signal():
    os.kill(os.getpid(), 40)
    time.sleep(5)

def end_a_child():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    time.sleep(0.3)
    child.terminate()
    child.join(5)
    return child.exitcode

def leave_a_child():
    return {"pid": os.getpid(), "child": subprocess.Popen(["sleep", "60"]).pid}

def large():
    return "x" * 20_000_000

def grow(mebibytes: int):
    ballast.append(os.urandom(1024) * 1024 * mebibytes)
    return {"pid": os.getpid()}
"""
ROUTES = [
    ("GET", "/pid", "pid"),
    ("GET", "/pid_sync", "pid_sync"),
    ("POST", "/leave", "leave"),
    ("POST", "/segfault", "segfault"),
    ("GET", "/block", "block"),
    ("GET", "/hold", "hold_interpreter"),
    ("POST", "/grow", "grow"),
    ("POST", "/signal", "real_time_signal"),
    ("GET", "/end_a_child", "end_a_child"),
    ("GET", "/leave_a_child", "leave_a_child"),
    ("GET", "/large", "large"),
]


def ready(server: Server) -> int:
    return server.metric('flash_workers{state="ready"}')
