"""What all tests share."""

import functools
import ssl
import sys
from collections.abc import Iterator

import hypothesis
import pytest

# An example that takes long says something about the machine.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Serving is for Linux: these read /proc and use signals as Linux has them.
collect_ignore_glob = [] if sys.platform == "linux" else ["server/*"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", help="run tests/image in containers of this image (`make test-image` does)")


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once() -> Iterator[None]:
    """httpx reads them, for 45 ms, for each client and each `httpx.get`, though it speaks plain HTTP here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield
