"""Ports of this machine."""

from __future__ import annotations

import errno
import os
import socket

from flash_cli.faults import ConfigFault

_TRIES = 100


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that can be listened on. Raises `ConfigFault` where none can."""
    last = min(port + _TRIES, 65536) - 1
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, last + 1):
        try:
            socket.create_server((host, candidate), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            known = error.errno in errno.errorcode  # a resolver has numbers of its own
            raise ConfigFault(
                f"Cannot listen on {host}:{candidate}: "
                f"{os.strerror(error.errno or 0) if known else error.strerror}.",
                where=f"--host {host} --port {port}",
                remedy="name an address of this machine, and a port above 1023.",
            ) from error
        return candidate
    raise ConfigFault(
        f"Every port from {port} to {last} is taken.",
        where=f"--port {port}",
        remedy="end what has them, or name another port.",
    )
