"""`flash run`: real development servers, whose source is saved under them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from flash_cli import env_file, sample_calls
from flash_cli.faults import ConfigFault
from flash_cli.serving.ports import free_port as next_free_port
from tests.serving import environment, free_port, until

ROOT = Path(__file__).parents[2]
SOURCE = '''
from runpod_flash import Endpoint

api = Endpoint(name="example-api", cpu="cpu3c-1-2", workers=(1, 3))

@api.post("/greet")
async def greet_user(name: str):
    """Greet somebody.

    At length."""
    return {"message": f"Hello, {name}!"}

@api.get("/health")
async def health():
    return {"status": "ok"}
'''
JOBS = '''
from runpod_flash import Endpoint

@Endpoint(name="jobs", cpu="cpu3c-1-2")
async def work(data: dict) -> dict:
    """Work on it."""
    return {"worked": data}
'''
COUNTER = """
from runpod_flash import Endpoint

counting = Endpoint(name="counting", cpu="cpu3c-1-2")

@Endpoint(name="counter", cpu="cpu3c-1-2")
class Counter:
    def __init__(self):
        self.count = 0

    def more(self):
        self.count += 1
        return self.count

    async def seen(self):
        return self.count

@counting.get("/count")
async def count():
    counter = Counter()
    return [await counter.more(), await counter.more(), await counter.seen()]
"""


@dataclass
class Running:
    """A `flash run`, and what it prints."""

    process: subprocess.Popen[bytes]
    root: Path
    port: int
    output: Path

    @property
    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5, trust_env=False)

    def save(self, source: str, name: str = "main.py") -> None:
        (self.root / name).write_text(textwrap.dedent(source))

    def serves(self, path: str, answer: object, seconds: float = 30) -> None:
        def does() -> bool:
            try:
                response = self.get(path)
            except httpx.TransportError:
                return False
            return response.status_code == 200 and response.json() == answer

        until(does, f"{path} answers {answer}\n{self.printed}", seconds)

    def prints(self, text: str, seconds: float = 30) -> None:
        until(lambda: text in self.printed, f"prints {text!r}", seconds)


@contextlib.contextmanager
def running(
    tmp_path: Path, source: str = SOURCE, *options: str, port: int | None = None, **variables: str
) -> Iterator[Running]:
    root = tmp_path / "project"
    root.mkdir(exist_ok=True)
    (root / "main.py").write_text(source)
    port = port or free_port()
    command = [sys.executable, "-m", "flash_cli.main", "run", "--port", str(port), *options]
    env = environment(**variables)
    del env["FLASH_HOST"]
    output = tmp_path / "output.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
        try:
            yield Running(process, root, port, output)
        except AssertionError as error:
            error.add_note(output.read_text(errors="replace"))
            raise
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def test_every_endpoint_is_served_under_its_name_and_documented(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "worker.py").write_text(JOBS)
    with running(tmp_path) as run:
        run.serves("/example-api/health", {"status": "ok"})
        run.prints("stop   Ctrl-C")
        assert f"POST  {run.url}/example-api/greet" in run.printed
        assert f"POST  {run.url}/jobs/runsync" in run.printed
        assert f"docs   {run.url}/docs" in run.printed
        assert run.get("/docs").status_code == 200
        described = run.get("/openapi.json").json()["paths"]
        assert described["/example-api/greet"]["post"]["description"].startswith("Greet somebody.")
        assert described["/jobs/runsync"]["post"]["description"] == "Work on it."
        call = next(line for line in run.printed.splitlines() if line.strip().startswith("curl"))
        done = subprocess.run(call, shell=True, capture_output=True, text=True, timeout=10, check=False)
        assert done.stdout == '{"message":"Hello, text!"}', done.stderr
        job = httpx.post(f"{run.url}/jobs/runsync", json={"input": {"data": {"a": 1}}}, trust_env=False)
        assert job.json()["output"] == {"worked": {"a": 1}}


def test_an_application_of_queue_based_endpoints_alone_is_served(tmp_path):
    with running(tmp_path, JOBS) as run:
        run.prints(f"POST  {run.url}/jobs/runsync  work  main.py:5")
        run.prints("""'{"input": {"data": {}}}'""")


def test_endpoints_await_each_others_functions_as_they_do_deployed(tmp_path):
    shutil.copytree(ROOT / "examples" / "pipeline", tmp_path / "project")
    (tmp_path / "project" / "counter.py").write_text(COUNTER)
    with running(tmp_path, "") as run:
        run.prints("stop   Ctrl-C")
        answer = httpx.post(f"{run.url}/pipeline/classify", json={"text": "a bcd"}, trust_env=False)
        assert answer.json() == {"best": "bcd", "scores": {"a": 0.1, "bcd": 0.3}}
        job = {"input": {"scores": {"a": 1}}}
        assert httpx.post(f"{run.url}/postprocess/runsync", json=job, trust_env=False).status_code == 200
        run.serves("/counting/count", [1, 2, 2])


def test_a_save_is_served_and_a_new_route_with_it(tmp_path):
    with running(tmp_path) as run:
        run.serves("/example-api/health", {"status": "ok"})
        run.prints("stop   Ctrl-C")
        run.save(SOURCE.replace('"ok"', '"k1"'))
        run.serves("/example-api/health", {"status": "k1"})
        # Within one second and of one size, which is all that Python's caches tell a change by.
        run.save(SOURCE.replace('"ok"', '"k2"').replace("/greet", "/welcome"))
        run.serves("/example-api/health", {"status": "k2"})
        run.prints(f"{run.url}/example-api/welcome")
        # For a moment there are the worker before and the one after.
        until(lambda: run.get("/example-api/greet").status_code == 404, "the old route is gone")
        until(lambda: {run.get("/example-api/greet").status_code for _ in range(5)} == {404}, "for good")


HOLDING = """
@api.get("/hold")
def hold():
    import pathlib
    import time
    with open({begun!r}, "a") as file:
        file.write(".")
    while not pathlib.Path({released!r}).exists():
        time.sleep(0.01)
    return VERSION

@api.get("/version")
def version():
    return VERSION
"""


def holding(tmp_path: Path) -> str:
    """A source with a request that takes until `released` exists; `begun` gets a byte for each."""
    return SOURCE + HOLDING.format(begun=str(tmp_path / "begun"), released=str(tmp_path / "released"))


def in_flight(tmp_path: Path) -> int:
    begun = tmp_path / "begun"
    return begun.stat().st_size if begun.exists() else 0


def test_no_request_is_lost_over_a_save(tmp_path):
    source = holding(tmp_path)
    with running(tmp_path, source + "VERSION = 1\n") as run, concurrent.futures.ThreadPoolExecutor(4) as pool:
        run.prints("stop   Ctrl-C")
        url = f"http://127.0.0.1:{run.port}/example-api/hold"
        asked = [pool.submit(httpx.get, url, timeout=60, trust_env=False) for _ in range(4)]
        until(lambda: in_flight(tmp_path) == 4, "they are in flight")
        run.save(source + "VERSION = 2\n")
        run.serves("/example-api/version", 2)
        (tmp_path / "released").touch()
        assert [each.result().json() for each in asked] == [1] * 4
        run.serves("/example-api/hold", 2)


@pytest.mark.parametrize(
    ("broken", "shown", "kept"),
    [
        (
            "from runpod_flash import Endpoint\napi = Endpoint(\n",
            "main.py:2",
            "the previous code keeps serving",
        ),
        (
            SOURCE.replace('"/greet"', '"greet"'),
            "path must start with '/'",
            "the previous code keeps serving",
        ),
        (SOURCE + "\nimport no_such_package\n", "no_such_package", "the worker keeps serving"),
    ],
)
def test_a_broken_save_is_shown_and_the_code_before_it_serves_on(tmp_path, broken, shown, kept):
    with running(tmp_path) as run:
        run.serves("/example-api/health", {"status": "ok"})
        run.prints("stop   Ctrl-C")
        run.save(broken)
        run.prints(shown)
        run.prints(kept)
        run.serves("/example-api/health", {"status": "ok"})
        run.save(SOURCE.replace('"ok"', '"mended"'))
        run.serves("/example-api/health", {"status": "mended"})


@pytest.mark.parametrize("broken", ["def f(:\n", "import no_such_package\n" + SOURCE, "x = 1\n"])
def test_a_broken_start_waits_for_a_save(tmp_path, broken):
    with running(tmp_path, broken) as run:
        run.prints("waiting for a save")
        run.save(SOURCE)
        run.serves("/example-api/health", {"status": "ok"})


def test_a_save_while_the_source_is_first_read_is_not_missed(tmp_path):
    slow = "import os, pathlib, time\npathlib.Path('reading').touch()\ntime.sleep(2)\n"
    slow += SOURCE.replace('name="example-api"', 'name=os.environ["NO_SUCH"]')
    assert slow.count("NO_SUCH") == 1
    with running(tmp_path, slow) as run:
        until((run.root / "reading").exists, "the module is imported")
        run.save(SOURCE.replace('"ok"', '"saved"'))
        run.serves("/example-api/health", {"status": "saved"})


def test_without_reload_a_broken_start_is_the_end(tmp_path):
    with running(tmp_path, "def f(:\n", "--no-reload") as run:
        assert run.process.wait(30) == 65
        assert "main.py:1" in run.printed


def test_without_reload_a_save_changes_nothing(tmp_path):
    with running(tmp_path, SOURCE, "--no-reload") as run:
        run.serves("/example-api/health", {"status": "ok"})
        run.save(SOURCE.replace('"ok"', '"new"'))
        time.sleep(0.5)
        run.serves("/example-api/health", {"status": "ok"})


def test_the_next_free_port_is_used_where_the_one_asked_for_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(tmp_path, port=port) as run:
            run.prints(f"port {port} is taken: using ")
            run.port = int(run.printed.partition("using ")[2].split()[0])
            run.serves("/example-api/health", {"status": "ok"})


def test_ctrl_c_ends_everything_at_once_with_exit_code_0(tmp_path):
    with running(tmp_path) as run:
        run.serves("/example-api/health", {"status": "ok"})
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            run.get("/example-api/health")


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_does_not_wait_for_long_for_a_request_in_flight(tmp_path, signals):
    with running(tmp_path, holding(tmp_path)) as run:
        run.serves("/example-api/health", {"status": "ok"})
        with socket.create_connection(("127.0.0.1", run.port)) as peer:
            peer.sendall(b"GET /example-api/hold HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: in_flight(tmp_path) == 1, "it is in flight")
            for _ in range(signals):
                run.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            assert run.process.wait(40) == 0  # the request would take for ever


def test_the_server_does_not_outlive_a_killed_command(tmp_path):
    with running(tmp_path) as run:
        run.serves("/example-api/health", {"status": "ok"})
        run.process.kill()
        run.process.wait()

        def gone() -> bool:
            try:
                run.get("/example-api/health")
            except httpx.TransportError:
                return True
            return False

        until(gone, "the server's end")


def test_variables_of_dotenv_are_the_handlers_and_those_given_come_first(tmp_path):
    source = """
    import os
    from runpod_flash import Endpoint

    api = Endpoint(name="api", cpu="cpu3c-1-2", env={"A": os.environ["A"]})

    @api.get("/env")
    def env():
        return [os.environ.get("A"), os.environ.get("B")]
    """
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".env").write_text("A=1\nexport B='x y' # a comment\n")
    with running(tmp_path, textwrap.dedent(source), A="given") as run:
        run.serves("/api/env", ["given", "x y"])
        run.save("B=2\n", ".env")
        run.serves("/api/env", ["given", "2"])


def test_an_endpoints_own_variables_are_its_handlers_too(tmp_path):
    source = """
    import os
    from runpod_flash import Endpoint

    api = Endpoint(name="api", cpu="cpu3c-1-2", env={"TOKEN": "abc"})
    TOKEN = os.environ["TOKEN"]

    @api.get("/env")
    def env():
        return TOKEN
    """
    with running(tmp_path, textwrap.dedent(source)) as run:
        run.serves("/api/env", "abc")
        run.save(source.replace("abc", "abcd"))
        run.serves("/api/env", "abcd")


# Parts.


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\n\n# no\nB = two words # rest\n", {"A": "1", "B": "two words"}),
        ('A="a\\n\\"b\\""\nB=\'$x\\n\'\n', {"A": 'a\n"b"', "B": "$x\\n"}),
        ("export A=a#b\nB=\nC=x=y\n", {"A": "a#b", "B": "", "C": "x=y"}),
        ("A=it's\nB= # nothing\n", {"A": "it's", "B": ""}),
        ("\ufeffA=1\r\nB=$A ${A}\r\n", {"A": "1", "B": "$A ${A}"}),
    ],
)
def test_dotenv_is_read_as_written(tmp_path, text, variables):
    (tmp_path / ".env").write_text(text, encoding="utf-8", newline="")
    assert env_file.read(tmp_path) == variables


@pytest.mark.parametrize("text", ["A\n", "1A=2\n", "A='secret\n", '="secret"\n', 'A="secret"secret\n'])
def test_a_line_of_dotenv_that_is_none_is_named_and_not_shown(tmp_path, text):
    (tmp_path / ".env").write_text(text)
    with pytest.raises(ConfigFault, match=r"\.env:1") as caught:
        env_file.read(tmp_path)
    assert "secret" not in str(caught.value).replace(str(tmp_path), "")


def test_the_line_of_dotenv_that_is_named_is_the_bad_one(tmp_path):
    (tmp_path / ".env").write_text("A='two\nlines'\n\n# no\n\n  B\n")
    with pytest.raises(ConfigFault, match=r"\.env:6"):
        env_file.read(tmp_path)


def test_a_dotenv_that_is_not_utf_8_is_a_fault(tmp_path):
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigFault, match=r"\.env file cannot be read"):
        env_file.read(tmp_path)


def test_an_address_that_is_none_of_this_machines_is_a_fault():
    with pytest.raises(ConfigFault, match=r"Cannot listen on 192\.0\.2\.1"):
        next_free_port("192.0.2.1", 8888)


def test_a_sample_fits_what_a_schema_requires():
    document = {"components": {"schemas": {"User": {"properties": {"name": {"type": "string"}}}}}}
    schema = {
        "type": "object",
        "required": ["user", "tags", "kind", "limit"],
        "properties": {
            "user": {"$ref": "#/components/schemas/User"},
            "tags": {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
            "kind": {"enum": ["a", "b"]},
            "limit": {"type": "integer", "default": 5},
            "other": {"type": "string"},
        },
    }
    assert sample_calls.sample(schema, document) == {
        "user": {"name": "text"},
        "tags": [1],
        "kind": "a",
        "limit": 5,
    }


def test_a_sample_call_has_the_query_parameters_that_the_route_requires():
    parameters = [
        {"in": "path", "name": "item", "schema": {"type": "integer"}},
        {"in": "query", "name": "q", "required": True, "schema": {"type": "string", "example": "a b&c"}},
        {"in": "query", "name": "exact", "required": True, "schema": {"type": "boolean"}},
        {"in": "query", "name": "limit", "schema": {"type": "integer"}},
    ]
    call = sample_calls.from_document({"paths": {"/items/{item}": {"get": {"parameters": parameters}}}})
    assert sample_calls.curl("http://h:1", call) == "curl 'http://h:1/items/1?q=a+b%26c&exact=true'"


def test_a_document_that_leads_in_circles_has_a_sample():
    node = {"properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    assert sample_calls.sample(node, {"components": {"schemas": {"Node": node}}})
