"""Opens sockets to listen on, or raises a fault that names the setting."""

from __future__ import annotations

import errno
import os
import socket

from flash_runtime.errors import SettingFault

_BACKLOG = 2048


def listen(name: str, host: str, port: int) -> socket.socket:
    """A non-blocking socket that listens there. `name` is the variable that sets the port.

    Raises `SettingFault` if the address is not one of this machine, or if the port is taken or forbidden.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # For a name that cannot be resolved, the number is the resolver's own.
        known = error.errno in errno.errorcode
        raise SettingFault(
            f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0) if known else error.strerror}.",
            where=f"the environment (FLASH_HOST={host}, {name}={port})",
            remedy=_remedy(name, error.errno),
        ) from error
    listener.setblocking(False)
    return listener


def _remedy(name: str, number: int | None) -> str:
    if number == errno.EADDRINUSE:
        return f"end the process that uses the port, or set {name} to a free one."
    if number == errno.EACCES:
        return f"ports below 1024 may need privileges here: set {name} to a higher one."
    return "set FLASH_HOST to an address of this machine."
