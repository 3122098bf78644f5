"""Users, read-only file systems, no network: what a careful platform gives a container."""

import httpx
import pytest

from tests.serving import until

HELLO = """
import getpass
import os
import tempfile
from pathlib import Path

def hello():
    with tempfile.TemporaryFile() as file:
        file.write(b"scratch")
    return {"uid": os.getuid(), "gid": os.getgid(), "home": str(Path.home()), "user": getpass.getuser()}
"""
ROUTES = [("GET", "/hello", "hello")]
READ_ONLY = {"read_only": True, "tmpfs": {"/tmp": "", "/app": ""}}


@pytest.mark.parametrize(
    ("options", "uid", "gid"),
    [
        ({}, 1000, 1000),
        ({"user": "1234:5678"}, 1234, 5678),
        ({"user": "0:0"}, 0, 0),
        (READ_ONLY, 1000, 1000),
        ({**READ_ONLY, "user": "1234:5678"}, 1234, 5678),
        ({**READ_ONLY, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}, 1000, 1000),
    ],
    ids=["as-it-is", "any-user", "root", "read-only", "read-only-any-user", "no-capabilities"],
)
def test_an_artifact_is_served_by_any_user_of_any_root(containers, options, uid, gid):
    container = containers.start(artifact=containers.artifact(HELLO, ROUTES), **options).until_ready()
    answer = httpx.get(f"{container.url}/hello").json()
    assert answer == {"uid": uid, "gid": gid, "home": "/tmp", "user": "flash"}


def test_a_container_without_a_network_is_healthy(containers):
    container = containers.start(artifact=containers.artifact(HELLO, ROUTES), network_mode="none")
    until(lambda: container.inspect()["State"]["Health"]["Status"] == "healthy", "docker says healthy")
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1/hello').status)"
    assert container.run("python3", "-c", ask).strip() == "200"


def test_a_restarted_container_serves_again(containers):
    container = containers.start(artifact=containers.artifact(HELLO, ROUTES)).until_ready()
    container.inner.stop(timeout=10)
    container.inner.start()
    until(
        lambda: container.run("sh", "-c", "flash-runtime health || true").startswith("healthy"),
        "ready again",
    )


def test_an_artifact_that_the_user_cannot_read_is_named(containers):
    artifact = containers.artifact(HELLO, ROUTES)
    artifact.chmod(0o600)
    container = containers.start(artifact=artifact)
    assert container.wait() == 66
    assert "The user 1000 cannot read" in container.lines()[-1]["message"]
    assert "Permission denied" in container.lines()[-1]["message"]


def test_an_application_that_the_user_cannot_read_is_named(containers):
    directory = containers.directory(HELLO, ROUTES)
    directory.chmod(0o700)
    container = containers.start(mount={"/app": directory})
    assert container.wait() == 78
    last = container.lines()[-1]["message"]
    assert "The user 1000 cannot read" in last
    assert "Permission denied" in last
    assert "chmod -R a+rX" in last


def test_a_module_that_the_user_cannot_read_is_named(containers):
    directory = containers.directory(HELLO, ROUTES)
    (directory / "main.py").chmod(0o600)
    container = containers.start(mount={"/app": directory})
    assert container.wait() == 70
    assert "PermissionError: [Errno 13] Permission denied: '/app/main.py'" in container.lines()[-1]["message"]


def test_a_read_only_root_without_room_for_the_application_is_explained(containers):
    container = containers.start(artifact=containers.artifact(HELLO, ROUTES), read_only=True)
    assert container.wait() == 78
    assert "--tmpfs /app" in container.lines()[-1]["message"]


def test_a_user_that_may_not_bind_port_80_is_told_of_port(containers):
    container = containers.start(
        artifact=containers.artifact(HELLO, ROUTES),
        sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"},
    )
    assert container.wait() == 78
    last = container.lines()[-1]["message"]
    assert "Permission denied" in last
    assert "set PORT to a higher one" in last
