"""Credentials: the keys that a request must show."""

from __future__ import annotations

import hmac

from flash_runtime.gateway.request import Refusal
from flash_runtime.http.head import Head


def check_api_key(head: Head, key: str) -> None:
    """Raise `Refusal` (401) unless the request shows the API key."""
    _check_bearer(head, key, "Send the API key as `Authorization: Bearer KEY`.")


def check_execute_token(head: Head, token: str | None) -> None:
    """Raise `Refusal` unless the request shows the token: 401, or 403 if none is set."""
    if token is None:
        detail = "/execute is off. Set FLASH_EXECUTE_TOKEN (or RUNPOD_API_KEY) on this worker to allow it."
        raise Refusal(403, detail, close=True)
    _check_bearer(head, token, "Send the execute token as `Authorization: Bearer TOKEN`.")


def _check_bearer(head: Head, key: str, remedy: str) -> None:
    scheme, _, given = head.values.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), key.encode()):
        raise Refusal(401, remedy, (b"www-authenticate", b"Bearer"), close=True)
