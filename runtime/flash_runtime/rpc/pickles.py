"""Pickles a call's result, and unpickles its arguments."""

from __future__ import annotations

import base64
import binascii
import pickle
from typing import Any

from flash_runtime.errors import CallFault
from flash_runtime.usercode.tracebacks import text_of

UNPICKLABLE = "The result cannot be pickled: {}. Return data, not handles or locks."


def pickled(value: Any) -> bytes:
    """The value, pickled: by cloudpickle if pickle cannot, as with a lambda. Raises `CallFault`."""
    try:
        return pickle.dumps(value, protocol=5)
    except BaseException as error:  # noqa: BLE001  a value may raise anything
        try:
            import cloudpickle  # rarely needed

            return cloudpickle.dumps(value)  # type: ignore[no-any-return]
        except BaseException:  # noqa: BLE001  and here too
            raise CallFault(500, UNPICKLABLE.format(text_of(error))) from error


def unpickled(text: Any) -> Any:
    """The value that was pickled and encoded in base64. Raises `CallFault`."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise CallFault(
            400, "An argument is not valid base64. To send JSON, set `serialization_format` to `json`."
        ) from None
    try:
        return pickle.loads(raw)  # noqa: S301  the caller has shown the token
    except BaseException as error:  # noqa: BLE001  a pickle may raise anything
        raise CallFault(400, f"An argument cannot be unpickled: {text_of(error)}.") from None
