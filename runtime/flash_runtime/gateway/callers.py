"""Callers: who may send a request, and how long one of our own waits for the response."""

from __future__ import annotations

import hmac
import math

from flash_runtime.gateway.request import Refusal
from flash_runtime.http.head import Head

TIMEOUT_HEADER = b"x-flash-timeout"
"""Seconds that another endpoint waits for the response to its call."""


def check_api_key(head: Head, key: str) -> None:
    """Raise `Refusal` (401) unless the request shows the API key."""
    _check_bearer(head, key, "Send the API key as `Authorization: Bearer KEY`.")


def check_execute_token(head: Head, token: str | None) -> None:
    """Raise `Refusal` unless the request shows the token: 401, or 403 if none is set."""
    if token is None:
        detail = "/execute is off. Set FLASH_EXECUTE_TOKEN (or RUNPOD_API_KEY) on this worker to allow it."
        raise Refusal(403, detail, close=True)
    _check_bearer(head, token, "Send the execute token as `Authorization: Bearer TOKEN`.")


def seconds_left(head: Head) -> float:
    """Seconds that the caller waits for the response; infinite if it does not say."""
    try:
        seconds = float(head.values.get(TIMEOUT_HEADER, b"inf"))
    except ValueError:
        return math.inf
    return seconds if seconds > 0 else math.inf


def _check_bearer(head: Head, key: str, remedy: str) -> None:
    scheme, _, given = head.values.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key.encode()):
        raise Refusal(401, remedy, (b"www-authenticate", b"Bearer"), close=True)
