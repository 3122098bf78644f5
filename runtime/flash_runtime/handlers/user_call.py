"""Requests that one call of a user's function answers, in a handler thread."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from flash_runtime.dispatch.responder import Reply, ResponderResult, send_reply
from flash_runtime.usercode.exits import ends_the_task


class UserCall(Protocol):
    """One request, the call that answers it, and the reply."""

    def run(self) -> Any:
        """Decode the request and make the call. Returns what the call returns, or an awaitable of that."""

    def running(self) -> AbstractContextManager[object]:
        """A context for user code: `respond` enters it around `run`, and around the awaitable."""

    def result(self, value: Any) -> Reply:
        """The reply to a call that returned `value`. It may raise: `failure` then replies."""

    def failure(self, error: BaseException) -> Reply:
        """The reply to a call that was not made, or that raised."""


def respond(call: UserCall) -> ResponderResult:
    """Make the call in this thread. If it returns an awaitable, the application loop awaits it."""
    try:
        with call.running():
            value = call.run()
        if inspect.isawaitable(value):
            return _awaited(call, value)
        return call.result(value)
    except BaseException as error:  # noqa: BLE001  user code may raise anything
        return call.failure(error)


def _awaited(call: UserCall, awaitable: Awaitable[Any]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with call.running():
                value = await awaitable
            reply = call.result(value)
        except BaseException as error:
            if ends_the_task(error):
                raise
            reply = call.failure(error)
        await send_reply(reply, send)

    return app
