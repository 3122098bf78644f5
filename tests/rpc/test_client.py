"""The client of other workers."""

import asyncio
import ssl

import pytest

from flash_runtime.rpc.client import Client, NotReached
from tests.serving import free_port


@pytest.mark.parametrize(("scheme", "contexts"), [("https", 1), ("http", 0)])
def test_the_certificates_are_read_once_for_all_connections_and_only_for_https(monkeypatch, scheme, contexts):
    made = []
    original = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: made.append(original()) or made[-1])
    client = Client()

    async def ask():
        with pytest.raises(NotReached):
            await client.post(f"{scheme}://127.0.0.1:{free_port()}", "/execute", [], [b""])

    for _ in range(2):
        asyncio.run(ask())
    assert len(made) == contexts
