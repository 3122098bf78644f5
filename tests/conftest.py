"""What all tests share."""

import sys

import pytest

# Serving is for Linux: these read /proc and use signals as Linux has them.
collect_ignore_glob = [] if sys.platform == "linux" else ["server/*"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", help="run tests/image in containers of this image (`make test-image` does)")
