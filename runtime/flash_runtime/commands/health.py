"""`flash-runtime health`: the image's HEALTHCHECK. Standard library only."""

from __future__ import annotations

import http.client
import sys

from flash_runtime.config.settings import Settings

_TIMEOUT_SECONDS = 3.0


def probe(settings: Settings) -> int:
    """Ask the server of these settings for its health: 0 if it can serve (status 200), else 1 and why."""
    # A server that listens on all interfaces answers on the loopback one, too.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, settings.port_health, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", settings.health_path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"unhealthy: no answer from {host}:{settings.port_health}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(
        f"{'healthy' if status == 200 else 'not ready'}: {settings.health_path} answers {status}\n"
    )
    return 0 if status == 200 else 1
