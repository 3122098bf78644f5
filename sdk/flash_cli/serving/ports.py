"""Ports: finds a free one on this machine."""

from __future__ import annotations

import errno
import os
import socket

from flash_cli.faults import ConfigFault

_TRIES = 100


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that is free on every address of `host`. Raises `ConfigFault`.

    A name may have several addresses. If another program had the port on one of them, clients of `localhost`
    might reach that program.
    """
    last = min(port + _TRIES, 65536) - 1
    for candidate in range(port, last + 1):
        try:
            if all(_is_free(address, candidate) for address in _addresses(host)):
                return candidate
        except OSError as error:
            known = error.errno in errno.errorcode  # a resolver's errors have numbers of their own
            raise ConfigFault(
                f"Cannot listen on {host}:{candidate}: "
                f"{os.strerror(error.errno or 0) if known else error.strerror}.",
                where=f"--host {host} --port {port}",
                remedy="choose an address of this machine, and a port above 1023.",
            ) from error
    raise ConfigFault(
        f"Every port from {port} to {last} is taken.",
        where=f"--port {port}",
        remedy="stop a program that uses one of them, or choose another port.",
    )


def _addresses(host: str) -> set[str]:
    return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        if address == "::1" and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return True  # a machine without IPv6, whose list of hosts has it
        raise
    return True
