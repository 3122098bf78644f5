"""Calling endpoints: `Endpoint(id=…)` against real local servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from runpod_flash import (
    Endpoint,
    EndpointAddressError,
    EndpointError,
    EndpointStatusError,
    EndpointTimeout,
    EndpointUnreachable,
    addresses,
)
from tests.serving import free_port, serve, user_code

JSON = "application/json"


class Peer:
    """A server that answers by script and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self.hold = threading.Event()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                peer.connections += 1
                super().setup()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                peer.asked.append(
                    {"method": self.command, "path": self.path, "headers": self.headers, "body": body}
                )
                if self.path == "/slow":
                    peer.hold.wait(10)
                status, kind, content = peer.answers.get(self.path.partition("?")[0], (200, JSON, b"{}"))
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", kind)
                else:
                    self.send_header("Content-Type", kind)
                self.send_header("X-Request-Id", "req-1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # callers that did not wait
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.stop()


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No settings, no project and no proxy of this machine's."""
    for name in ("FLASH_ENDPOINT_URL", "FLASH_ENV", "FLASH_API_KEY", "RUNPOD_API_KEY", "FLASH_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    addresses._targets.cache_clear()


def call(awaitable) -> Any:
    async def main():
        return await awaitable

    return asyncio.run(main())


# Calls.


def test_a_call_is_run_and_scheduled_as_a_coroutine_is(peer):
    endpoint = Endpoint(id=peer.url)

    async def main():
        async with asyncio.TaskGroup() as group:
            return group.create_task(endpoint.get("/health"))

    assert asyncio.run(endpoint.get("/health")) == {}
    assert asyncio.run(main()).result() == {}


def test_calls_return_the_responses_json(peer):
    peer.answers["/predict"] = 200, JSON, b'{"prediction": [2, 4]}'

    async def main():
        endpoint = Endpoint(id=peer.url)
        result = await endpoint.post("/predict", {"data": [1, 2, 3]})
        health = await endpoint.get("/health")
        return result, health

    assert asyncio.run(main()) == ({"prediction": [2, 4]}, {})
    post, get = peer.asked
    assert json.loads(post["body"]) == {"data": [1, 2, 3]}
    assert post["headers"]["content-type"] == JSON
    assert (get["method"], get["path"], get["body"]) == ("GET", "/health", b"")


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "patch"])
def test_each_method_is_a_call(peer, method):
    call(getattr(Endpoint(id=peer.url), method)("/x", params={"a": 1}, headers={"X-Mine": "1"}))
    (asked,) = peer.asked
    assert (asked["method"], asked["path"]) == (method.upper(), "/x?a=1")
    assert asked["headers"]["x-mine"] == "1"


@pytest.mark.parametrize(
    ("kind", "content", "data"),
    [
        (JSON, b"[1, null]", [1, None]),
        ("application/problem+json; charset=utf-8", b'"a"', "a"),
        ("text/html; charset=utf-8", "ä".encode(), "ä"),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        (JSON, b"", None),
    ],
)
def test_data_is_json_text_or_bytes_as_the_response_says(peer, kind, content, data):
    peer.answers["/x"] = 200, kind, content
    assert call(Endpoint(id=peer.url).get("/x")) == data


def test_json_that_is_none_is_an_error_with_the_bytes(peer):
    peer.answers["/x"] = 200, JSON, b"{"
    with pytest.raises(EndpointError, match="labelled as JSON") as caught:
        call(Endpoint(id=peer.url).get("/x"))
    assert caught.value.body == b"{"


def test_a_loop_uses_its_connection_again_and_the_next_loop_has_its_own(peer):
    async def main():
        endpoint = Endpoint(id=peer.url)
        for _ in range(5):
            await endpoint.get("/x")

    asyncio.run(main())
    assert peer.connections == 1
    asyncio.run(main())  # a connection that the first had left open would be a ResourceWarning, so an error
    assert peer.connections == 2


def test_loops_in_threads_call_at_the_same_time(peer):
    async def main():
        await asyncio.gather(*(Endpoint(id=peer.url).get("/x") for _ in range(5)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(peer.asked) == 20


def test_a_call_is_no_decorator(peer):
    with pytest.raises(TypeError, match=r"Endpoint\(id='abc'\) runs elsewhere, .* at .*test_client\.py:\d+"):

        @Endpoint(id="abc").get("/x")
        def handler() -> None: ...

    assert not peer.asked


def test_an_endpoint_of_ones_own_takes_no_data():
    with pytest.raises(TypeError, match="are for calls of an endpoint that runs elsewhere"):
        Endpoint(name="api").post("/x", {"a": 1})


# What goes wrong.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"detail": "no model"}', "no model"),
        (b'{"detail": [{"loc": ["body", "a"], "msg": "Field required"}]}', "body.a: Field required"),
        (b'{"error": "out of memory"}', "out of memory"),
        (b'{"message": "try later"}', "try later"),
    ],
)
def test_an_error_of_the_endpoints_has_its_status_its_request_and_what_it_says(peer, content, said):
    peer.answers["/x"] = 500, JSON, content
    with pytest.raises(EndpointStatusError, match=r"^HTTP error from endpoint: 500") as caught:
        call(Endpoint(id=peer.url).post("/x"))
    error = caught.value
    assert str(error).endswith(f"for POST {peer.url}/x (request req-1): {said}")
    assert (error.status, error.request_id, error.body) == (500, "req-1", json.loads(content))
    assert isinstance(error, httpx.HTTPStatusError)
    assert error.response.status_code == 500


def test_a_connection_that_is_refused_says_so_and_where():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EndpointUnreachable, match=rf"^Connection refused: GET {url}/x\b.*Fix:") as caught:
        call(Endpoint(id=url).get("/x"))
    assert isinstance(caught.value, httpx.ConnectError)


def test_a_name_that_leads_to_several_addresses_is_refused_likewise():
    with pytest.raises(EndpointUnreachable, match=r"^Connection refused"):
        call(Endpoint(id=f"http://localhost:{free_port()}").get("/x"))


def test_silence_ends_in_time(peer):
    with pytest.raises(EndpointTimeout, match=r"^No answer from endpoint within 0\.05 s: GET ") as caught:
        call(Endpoint(id=peer.url).get("/slow", timeout=0.05))
    assert isinstance(caught.value, httpx.TimeoutException)


def test_a_path_without_its_slash_is_refused_with_the_fix():
    with pytest.raises(
        EndpointAddressError, match=r"path must start with '/', got: '@evil/'. Fix: '/@evil/'"
    ):
        call(Endpoint(id="abc").get("@evil/"))


def test_httpx_is_imported_at_the_first_call_and_missed_with_the_remedy():
    code = """
import asyncio, sys
from runpod_flash import Endpoint
endpoint = Endpoint(id="http://127.0.0.1:9")
assert "httpx" not in sys.modules
sys.modules["httpx"] = None
async def main():
    await endpoint.get("/x")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Fix: pip install httpx" in done.stderr
    assert "Endpoint(dependencies=['httpx', …])" in done.stderr


# Addresses.


def test_an_id_is_looked_up_in_the_vendors_cloud_at_last():
    assert addresses.resolve("abc123") == "https://abc123.api.runpod.ai"
    assert addresses.resolve("abc123", jobs=True) == "https://api.runpod.ai/v2/abc123"


def test_a_template_of_the_environment_comes_first(monkeypatch):
    monkeypatch.setenv("FLASH_ENDPOINT_URL", "https://{id}.example.com/base/")
    assert addresses.resolve("abc") == "https://abc.example.com/base"
    assert addresses.resolve("http://elsewhere:8000/") == "http://elsewhere:8000"


@pytest.mark.parametrize(
    "id_", ["evil.com/", "a@evil.com", "a#", "a?b", "a/b", "", "..", "a b", "ä", "a\n", 5]
)
def test_an_id_that_could_lead_elsewhere_is_refused(id_):
    with pytest.raises(EndpointAddressError):
        addresses.resolve(id_)


@pytest.mark.parametrize(
    "url",
    ["http://", "https://user:secret@host", "http://h/?q=secret", "http://h/#secret", "http://h:99999",
     "http://h\\@secret/"],
)  # fmt: skip
def test_a_url_that_is_no_plain_one_is_refused_and_not_shown(url):
    with pytest.raises(EndpointAddressError, match="not a plain") as caught:
        addresses.resolve(url)
    assert "secret" not in str(caught.value)


def targets(pyproject: str, **deployed: Any) -> None:
    Path("pyproject.toml").write_text(pyproject)
    directory = Path(".flash/deployed")
    directory.mkdir(parents=True, exist_ok=True)
    for name, endpoints in deployed.items():
        (directory / f"{name}.json").write_text(json.dumps({"endpoints": endpoints}))


def test_a_deploy_target_has_the_endpoints_address(monkeypatch):
    targets(
        "[tool.flash.env.production]\n[tool.flash.env.staging]\nurl = 'https://{id}.staging.example.com'\n",
        production={"api": "http://127.0.0.1:49001", "same": "https://same.staging.example.com"},
    )
    with pytest.raises(EndpointAddressError, match=r"production, staging. Fix: set FLASH_ENV"):
        addresses.resolve("api")
    assert addresses.resolve("same") == "https://same.staging.example.com"
    monkeypatch.setenv("FLASH_ENV", "production")
    assert addresses.resolve("api") == "http://127.0.0.1:49001"
    assert addresses.resolve("other") == "https://other.api.runpod.ai"
    monkeypatch.setenv("FLASH_ENV", "staging")
    assert addresses.resolve("api") == "https://api.staging.example.com"
    monkeypatch.setenv("FLASH_ENV", "nowhere")
    with pytest.raises(EndpointAddressError, match=r"FLASH_ENV=nowhere .* production, staging"):
        addresses.resolve("api")


def test_the_nearest_project_counts_also_from_a_folder_of_it(monkeypatch):
    targets("[tool.flash.env.production]", production={"api": "http://127.0.0.1:49001"})
    Path("deep/down").mkdir(parents=True)
    monkeypatch.chdir("deep/down")
    assert addresses.resolve("api") == "http://127.0.0.1:49001"


def test_an_image_is_where_it_was_deployed_and_nowhere_else():
    targets("[tool.flash.env.production]", production={"vllm": "http://127.0.0.1:49001"})
    assert Endpoint(name="vllm", image="vllm/vllm")._base_url() == "http://127.0.0.1:49001"
    with pytest.raises(
        EndpointAddressError, match=r"no deploy target has an endpoint 'other'. Fix: flash deploy"
    ):
        Endpoint(name="other", image="vllm/vllm")._base_url()


@pytest.mark.parametrize("text", ["{", "[]", '{"endpoints": 5}', '{"endpoints": {"api": "file:///etc"}}'])
def test_a_damaged_record_of_a_deployment_is_refused(text):
    targets("[tool.flash.env.production]")
    Path(".flash/deployed/production.json").write_text(text)
    with pytest.raises(EndpointAddressError, match=r"production\.json"):
        addresses.resolve("api")


# Keys.


def keys_shown(peer: Peer) -> list[str | None]:
    return [asked["headers"]["authorization"] for asked in peer.asked]


def test_an_endpoint_of_ones_own_is_shown_its_key_and_never_the_vendors(peer, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNPOD_API_KEY", "vendors")
    call(Endpoint(id=peer.url).get("/x"))
    monkeypatch.setenv("FLASH_API_KEY", "own")
    call(Endpoint(id=peer.url).get("/x"))
    monkeypatch.delenv("FLASH_API_KEY")
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("FLASH_API_KEY_FILE", str(tmp_path / "key"))
    call(Endpoint(id=peer.url).get("/x"))
    call(Endpoint(id=peer.url).get("/x", headers={"authorization": "Basic mine"}))
    assert keys_shown(peer) == [None, "Bearer own", "Bearer from-file", "Basic mine"]


def test_the_vendors_cloud_is_shown_the_vendors_key_and_never_ones_own(monkeypatch):
    monkeypatch.setenv("FLASH_API_KEY", "own")
    assert addresses.key_for("https://abc.api.runpod.ai") is None
    monkeypatch.setenv("RUNPOD_API_KEY", "vendors")
    assert addresses.key_for("https://abc.api.runpod.ai") == "vendors"
    assert addresses.key_for("https://api.runpod.ai/v2/abc") == "vendors"
    for other in ("http://abc.api.runpod.ai", "https://api.runpod.ai.evil.com", "https://evilapi.runpod.ai"):
        assert addresses.key_for(other) == "own"


def test_a_redirect_is_not_followed_with_the_key(peer, monkeypatch):
    monkeypatch.setenv("FLASH_API_KEY", "own")
    other = Peer()
    try:
        peer.answers["/x"] = 307, f"{other.url}/x", b""
        with pytest.raises(EndpointStatusError, match=r"307.*redirects are not followed"):
            call(Endpoint(id=peer.url).get("/x"))
        assert not other.asked
    finally:
        other.stop()


def test_no_error_shows_a_key(peer, monkeypatch):
    monkeypatch.setenv("FLASH_API_KEY", "own secret")
    with pytest.raises(EndpointAddressError) as caught:
        call(Endpoint(id=peer.url).get("/x"))
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("FLASH_API_KEY", "secret")
    peer.answers["/x"] = 401, JSON, b"{}"
    with pytest.raises(EndpointStatusError) as refused:
        call(Endpoint(id=peer.url).get("/x"))
    assert "secret" not in f"{refused.value!r} {refused.value.request!r} {refused.value.request.headers!r}"


# Jobs.


def test_a_job_is_run_looked_at_and_cancelled(peer):
    base = "/v2/abc"
    peer.answers[f"{base}/run"] = 200, JSON, b'{"id": "j/1", "status": "IN_QUEUE"}'

    async def main():
        endpoint = Endpoint(id=peer.url + base)
        job = await endpoint.run({"a": 1}, webhook="https://hook.example.com")
        assert not job.done
        peer.answers[f"{base}/status/j/1"] = 200, JSON, b'{"id": "j/1", "status": "COMPLETED", "output": 7}'
        await job.wait(timeout=5)
        assert (job.done, job.output, job.error) == (True, 7, None)
        peer.answers[f"{base}/cancel/j/1"] = 200, JSON, b'{"id": "j/1", "status": "CANCELLED"}'
        assert await job.cancel() is job
        assert repr(job) == "EndpointJob(id='j/1', status='CANCELLED')"
        peer.answers[f"{base}/cancel/..%2Fj"] = 200, JSON, b'{"id": "j", "status": "CANCELLED"}'
        assert (await endpoint.cancel("../j")).done

    asyncio.run(main())
    assert json.loads(peer.asked[0]["body"]) == {"input": {"a": 1}, "webhook": "https://hook.example.com"}


def test_waiting_for_a_job_ends_in_time(peer):
    peer.answers["/run"] = 200, JSON, b'{"id": "j", "status": "IN_QUEUE"}'
    peer.answers["/status/j"] = 200, JSON, b'{"id": "j", "status": "IN_PROGRESS"}'

    async def main():
        await (await Endpoint(id=peer.url).run({})).wait(timeout=2)

    with pytest.raises(TimeoutError, match=r"job j was not done within 2 s\. Its last status is IN_PROGRESS"):
        asyncio.run(main())


def test_a_worker_of_this_project_answers_calls_and_jobs(tmp_path, monkeypatch):
    app = user_code(tmp_path, "def double(x: int):\n    return 2 * x\n", [("POST", "/double", "double")])
    manifest = json.loads((app / "flash_manifest.json").read_text())
    manifest["resources"]["jobs"] = manifest["resources"]["case"] | {"is_load_balanced": False}
    (app / "flash_manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("FLASH_API_KEY", "key")
    options = {"FLASH_APP_DIR": app, "FLASH_DISABLE_UNPACK": 1, "FLASH_API_KEY": "key"}

    async def calls(endpoint):
        assert await endpoint.post("/double", {"x": 4}) == 8
        with pytest.raises(EndpointStatusError, match=r"422.*body.x: "):
            await endpoint.post("/double", {"x": "many"})

    async def jobs(endpoint):
        assert (await endpoint.runsync({"x": 4})).output == 8
        failed = await endpoint.runsync({"x": None})
        assert failed.done
        assert failed.error == "Internal Server Error"
        with pytest.raises(EndpointStatusError) as caught:
            await endpoint.run({"x": 4})
        assert "no queue" in str(caught.value.__notes__)

    for resource, check in (("case", calls), ("jobs", jobs)):
        with serve(tmp_path, FLASH_RESOURCE_NAME=resource, **options) as server:
            asyncio.run(check(Endpoint(id=server.url)))
