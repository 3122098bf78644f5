"""What is no proper HTTP, or comes slowly, or breaks off: refused or answered, and the worker serves on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import random
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server, serve, until, user_code

SOURCE = """
import asyncio
from fastapi import Request

started = []

async def echo(data: dict):
    return data

async def slow(seconds: float, name: str = ""):
    started.append(name)
    await asyncio.sleep(seconds)
    return name

async def who_started():
    return started

async def headers(request: Request):
    return dict(request.headers)

async def endless():
    while True:
        yield "x" * 1024
        await asyncio.sleep(0.005)
"""
ROUTES = [
    ("POST", "/echo", "echo"),
    ("GET", "/slow", "slow"),
    ("GET", "/started", "who_started"),
    ("POST", "/headers", "headers"),
    ("GET", "/endless", "endless"),
]
BODY = b'{"data": {"a": 1}}'
ANSWER = b'{"a":1}'


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return user_code(tmp_path_factory.mktemp("malformed"), SOURCE, ROUTES)


@pytest.fixture(scope="module")
def server(directory: Path):
    with serve(directory.parent, FLASH_APP_DIR=directory, FLASH_WORKERS=1) as running:
        yield running


@pytest.fixture(scope="module")
def narrow(directory: Path):
    """One request at a time."""
    settings = {"FLASH_WORKERS": 1, "FLASH_MAX_CONCURRENCY": 1}
    with serve(directory.parent, separate_health=True, FLASH_APP_DIR=directory, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(directory: Path):
    """A second for each request."""
    with serve(
        directory.parent, FLASH_APP_DIR=directory, FLASH_WORKERS=1, FLASH_REQUEST_TIMEOUT=1
    ) as running:
        yield running


def assert_serves(server: Server) -> None:
    assert [status for status, _ in answers(converse(server, get(b"/ping", CLOSE)))] == [200]
    assert server.client.post("/echo", json={"data": {"a": 1}}).content == ANSWER


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """After the block the same worker serves on, and has nothing to be sorry for in its log."""
    workers, logged = server.workers(), len(server.log)
    yield
    assert_serves(server)
    assert server.workers() == workers
    new = server.log[logged:]
    assert "Traceback" not in new
    assert '"level": "ERROR"' not in new


def connect(server: Server, seconds: float = 5) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=seconds)


def receive(client: socket.socket) -> bytes:
    """What comes until the connection is closed; fails where it stays open."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            received += chunk
    return received


def converse(server: Server, *pieces: bytes, pause: float = 0.02, seconds: float = 5) -> bytes:
    """Send the pieces one after another, and take what comes until the connection is closed."""
    with connect(server, seconds) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            if piece is not pieces[-1]:
                time.sleep(pause)
        return receive(client)


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """The status and the body of each response; all of them must have a length."""
    found = []
    while received:
        assert received.startswith(b"HTTP/1.1 "), received
        head, _, rest = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        assert length or status < 200, head
        size = int(length[1]) if length else 0
        assert len(rest) >= size, received
        found.append((status, rest[:size]))
        received = rest[size:]
    return found


def reset(client: socket.socket) -> None:
    """End the connection with an RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def get(path: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET %s HTTP/1.1" % path, b"Host: x", *lines, b"", b""])


def post(*lines: bytes, body: bytes = BODY, path: bytes = b"/echo") -> bytes:
    head = [b"POST %s HTTP/1.1" % path, b"Host: x", b"Content-Type: application/json", *lines, b"", b""]
    return b"\r\n".join(head) + body


def chunked(body: bytes, *lines: bytes, path: bytes = b"/echo") -> bytes:
    return post(b"Transfer-Encoding: chunked", *lines, body=body, path=path)


LENGTH = b"Content-Length: %d" % len(BODY)
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
CLOSE = b"Connection: close"

REFUSED = {
    "chunk-size-no-number": chunked(b"zz\r\n" + BODY),
    "chunk-size-negative": chunked(b"-1\r\n" + BODY),
    "chunk-size-with-0x": chunked(b"0x12\r\n" + BODY),
    "chunk-size-empty": chunked(b"\r\n" + BODY),
    "chunk-size-of-17-digits": chunked(b"F" * 17 + b"\r\n" + BODY),
    "chunk-without-its-end": chunked(CHUNK[:-2] + b"0\r\n\r\n"),
    "chunk-longer-than-its-size": chunked(b"2\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "second-chunk-bad": chunked(CHUNK + b"zz\r\n"),
    "length-and-chunked": chunked(CHUNK + b"0\r\n\r\n", LENGTH),
    "chunked-and-length": post(LENGTH, b"Transfer-Encoding: chunked", body=CHUNK + b"0\r\n\r\n"),
    "chunked-not-last": post(b"Transfer-Encoding: chunked, gzip", body=CHUNK),
    "another-coding": post(b"Transfer-Encoding: gzip"),
    "coding-identity": post(b"Transfer-Encoding: identity"),
    "two-lengths": post(LENGTH, b"Content-Length: 3"),
    "two-lengths-in-one": post(LENGTH + b", 3"),
    "length-negative": post(b"Content-Length: -1"),
    "length-with-a-sign": post(b"Content-Length: +18"),
    "length-in-hex": post(b"Content-Length: 0x12"),
    "length-over-64-bits": post(b"Content-Length: 18446744073709551616"),
    "length-of-5000-digits": post(b"Content-Length: " + b"9" * 5000),
    "length-empty": post(b"Content-Length: "),
    "folded-header": get(b"/started", b"X: a\r\n b"),
    "folded-first": b"GET /started HTTP/1.1\r\n X: a\r\n\r\n",
    "nul-in-a-value": get(b"/started", b"X: a\0b"),
    "nul-in-a-name": get(b"/started", b"X\0: a"),
    "nul-in-the-target": get(b"/star\0ted"),
    "header-without-colon": get(b"/started", b"nothing"),
    "header-without-name": get(b"/started", b": nothing"),
    "space-before-the-colon": get(b"/started", b"Host : y"),
    "bare-lf": b"GET /started HTTP/1.1\nHost: x\n\n",
    "bare-cr": b"GET /started HTTP/1.1\rHost: x\r\r",
    "garbage": b"\x01\x02 what is this\r\n\r\n",
    "a-method-of-nobodys": b"FETCH /started HTTP/1.1\r\nHost: x\r\n\r\n",
    "a-version-of-nobodys": b"GET /started HTTP/2.5\r\nHost: x\r\n\r\n",
    "no-version-number": b"GET /started HTTP/one\r\nHost: x\r\n\r\n",
    "target-with-spaces": get(b"/star ted"),
    "target-in-utf8": get("/stärted".encode()),
    "target-without-a-path": get(b"http://x"),
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    "tls-client-hello": bytes.fromhex("16030100c8010000c40303") + random.Random(1).randbytes(194),
    "answer-of-a-server": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_malformed_http_is_one_400_and_the_end_of_the_connection(server, sent):
    with unharmed(server):
        half = len(sent) // 2
        for pieces in ([sent], [sent[:half], sent[half:]], [sent[:-1], sent[-1:]]):
            ((status, body),) = answers(converse(server, *pieces))
            assert status == 400
            # A request whose head was good has an id by then.
            assert set(json.loads(body)) in ({"detail"}, {"detail", "request_id"})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /\r\n\r\n", 404),
        (b"GET /started HTTP/1.0\r\n\r\n", 200),
        (b"\r\n\r\n" + get(b"/started", CLOSE), 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (get(b"http://x/started", CLOSE), 200),
        (get(b"/%ff%00%0d%0a", CLOSE), 404),
        (get(b"//", CLOSE), 404),
        (get(b"/" + b"../" * 50, CLOSE), 404),
        (get(b"/started", CLOSE, *[b"a:"] * 10_000), 200),
        (get(b"/started", CLOSE, *[b"a:"] * 60_000), 431),
        (chunked(CHUNK[:-2] + b"\r\n0\r\n\r\n", CLOSE), 200),
        (chunked(CHUNK.replace(b"\r\n", b";name=value\r\n", 1) + b"0\r\n\r\n", CLOSE), 200),
        (chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n", CLOSE), 200),
    ],
    ids=[
        "http-0.9", "http-1.0", "empty-lines-first", "asterisk", "absolute-target", "escapes", "two-slashes",
        "dots", "10000-headers", "60000-headers", "chunked", "chunk-extension", "chunks-of-a-byte",
    ],
)  # fmt: skip
def test_odd_http_gets_the_status_it_deserves(server, sent, status):
    with unharmed(server):
        ((found, _),) = answers(converse(server, sent))
        assert found == status


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "multipart/form-data"])
def test_a_body_of_another_type_that_is_no_text_is_a_4xx(server, kind):
    with unharmed(server):
        answer = server.client.post("/echo", content=b"\xff\xfe", headers={"content-type": kind})
        assert 400 <= answer.status_code < 500


CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c"


@pytest.mark.parametrize("pieces", [(CONNECT,), (CONNECT[:30], CONNECT[30:])], ids=["whole", "in-two"])
def test_a_connect_is_not_implemented(server, pieces):
    with unharmed(server):
        ((status, _),) = answers(converse(server, *pieces))
        assert status == 501


def test_pipelined_offers_to_upgrade_are_passed_over(server):
    with unharmed(server):
        with connect(server) as client:
            client.sendall(get(b"/slow?seconds=0&name=a", UPGRADE) + get(b"/slow?seconds=0&name=b", UPGRADE))
            client.sendall(get(b"/slow?seconds=0&name=c", CLOSE))
            received = receive(client)
        assert answers(received) == [(200, b'"a"'), (200, b'"b"'), (200, b'"c"')]


PIPELINE = [
    get(b"/slow?seconds=0.2&name=first"),
    post(LENGTH),
    get(b"/ping"),
    chunked(CHUNK + b"0\r\n\r\n"),
    get(b"/nowhere"),
    get(b"/slow?seconds=0&name=last", CLOSE),
]


@pytest.mark.parametrize("size", [10_000, 100, 7], ids=["at-once", "in-pieces", "in-bits"])
def test_pipelined_requests_are_all_answered_in_order(server, size):
    sent = b"".join(PIPELINE)
    with unharmed(server):
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        found = answers(converse(server, *pieces, pause=0.001))
        assert [status for status, _ in found] == [200, 200, 200, 200, 404, 200]
        assert [found[index][1] for index in (0, 1, 3, 5)] == [b'"first"', ANSWER, ANSWER, b'"last"']


def test_what_follows_a_request_to_close_is_passed_over(server):
    with unharmed(server):
        found = answers(converse(server, post(LENGTH, CLOSE) + get(b"/started") + b"garbage\r\n\r\n"))
        assert found == [(200, ANSWER)]


@pytest.mark.parametrize(
    "first", [get(b"/slow?seconds=0&name=a"), get(b"/slow?seconds=1&name=a")], ids=["fast", "slow"]
)
@pytest.mark.parametrize("pause", [None, 0.4], ids=["in-one", "later"])
def test_a_bad_request_behind_a_good_one_does_not_take_its_answer(server, first, pause):
    with unharmed(server):
        if pause is None:
            received = converse(server, first + b"garbage\r\n\r\n")
        else:
            received = converse(server, first, b"garbage\r\n\r\n", pause=pause)
        time.sleep(0.3)
        found = answers(received)
        assert found[0] == (200, b'"a"')
        assert [status for status, _ in found[1:]] in ([], [400])


def test_garbage_while_a_stream_is_sent_does_not_get_into_the_stream(server):
    with unharmed(server):
        with connect(server) as client:
            client.sendall(get(b"/endless"))
            time.sleep(0.1)
            client.sendall(b"garbage\r\n\r\n")
            client.settimeout(1)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while len(received) < 200_000 and (chunk := client.recv(65536)):
                    received += chunk
        assert received.count(b"HTTP/1.1 ") == 1


def test_a_head_in_two_parts_behind_a_long_body_is_served(server):
    body = json.dumps({"data": {"a": "x" * 300_000}}).encode()
    with unharmed(server), connect(server) as client:
        client.sendall(post(b"Content-Length: %d" % len(body), body=body))
        received = b""
        while len(received) < 300_000:
            received += client.recv(65536)
        client.sendall(get(b"/started", CLOSE)[:20])
        time.sleep(0.1)
        client.sendall(get(b"/started", CLOSE)[20:])
        ((status, _),) = answers(receive(client))
        assert status == 200


def test_expect_100_continue_is_continued_once_and_answered(server):
    sent = post(LENGTH, b"Expect: 100-continue", CLOSE)
    with unharmed(server):
        with connect(server) as client:
            client.sendall(sent[: -len(BODY)])
            assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(BODY)
            assert answers(receive(client)) == [(200, ANSWER)]
        statuses = [status for status, _ in answers(converse(server, sent))]
        assert statuses in ([100, 200], [200])


def test_expect_100_continue_is_not_continued_where_the_body_is_too_large(server):
    with unharmed(server):
        received = converse(server, post(b"Content-Length: 99999999", b"Expect: 100-continue", body=b""))
        assert [status for status, _ in answers(received)] == [413]


def test_a_half_closed_connection_gets_a_whole_answer_or_none(server):
    for path in (b"/started", b"/ping", b"/slow?seconds=0.2"):
        with unharmed(server), connect(server) as client:
            client.sendall(get(path, CLOSE))
            client.shutdown(socket.SHUT_WR)
            assert [status for status, _ in answers(receive(client))] in ([], [200])


@pytest.mark.parametrize("end", [reset, socket.socket.close])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /sta",
        post(LENGTH)[:-5],
        chunked(CHUNK),
        chunked(CHUNK[:-5]),
        chunked(CHUNK + b"0\r\n"),
        post(b"Content-Length: 1000000", body=b"x" * 500_000),
        post(b"Content-Length: 1000000", b"Expect: 100-continue", body=b""),
        get(b"/slow?seconds=0.3"),
        get(b"/endless"),
        b"garbage\r\n\r\n",
        chunked(CHUNK) + b"zz\r\n",
    ],
    ids=[
        "nothing", "in-the-head", "in-the-body", "between-chunks", "in-a-chunk", "before-the-end",
        "in-a-long-body", "before-100", "in-the-handler", "in-the-answer", "refused", "refused-in-the-body",
    ],
)  # fmt: skip
def test_a_client_that_breaks_off_leaves_nothing_behind(server, sent, end):
    with unharmed(server):
        for wait in (0, 0.1):
            client = connect(server)
            client.sendall(sent)
            time.sleep(wait)
            end(client)
        time.sleep(0.3)


def test_a_client_that_breaks_off_its_pipeline_leaves_nothing_behind(server):
    with unharmed(server):
        client = connect(server)
        client.sendall(get(b"/slow?seconds=0.3") * 2)
        time.sleep(0.1)
        reset(client)
        time.sleep(0.3)


def test_a_request_whose_client_resets_while_it_waits_never_runs(narrow):
    with unharmed(narrow):
        first = connect(narrow)
        first.sendall(get(b"/slow?seconds=3&name=stays", CLOSE))
        until(lambda: narrow.metric("flash_requests_running") == 1, "it runs")
        waiting = [connect(narrow) for _ in range(5)]
        for client in waiting:
            client.sendall(get(b"/slow?seconds=5&name=leaves"))
        until(lambda: narrow.metric("flash_requests_waiting") == 5, "the others wait")
        for client in waiting:
            reset(client)
        with first:
            assert answers(receive(first)) == [(200, b'"stays"')]
        started = narrow.client.get("/started").json()
        assert "stays" in started
        assert "leaves" not in started


STOPPED = {
    "in-the-body": post(LENGTH)[:-5],
    "before-the-body": post(LENGTH, body=b""),
    "between-chunks": chunked(CHUNK),
    "in-a-chunk": chunked(CHUNK[:-5]),
    "in-a-chunk-of-exabytes": chunked(b"7FFFFFFFFFFFFFFF\r\n" + BODY),
    "in-a-chunk-size": chunked(b"12"),
    "in-the-trailers": chunked(CHUNK + b"0\r\nX: y\r\n"),
}


def test_a_body_whose_sender_stops_is_408(hurried):
    with unharmed(hurried), concurrent.futures.ThreadPoolExecutor(len(STOPPED)) as pool:
        begun = time.monotonic()
        received = list(pool.map(lambda sent: converse(hurried, sent), STOPPED.values()))
        assert 0.9 < time.monotonic() - begun < 4
        for name, each in zip(STOPPED, received, strict=True):
            assert [status for status, _ in answers(each)] == [408], name


def test_garbage_in_a_body_is_one_400_also_when_the_time_is_over(hurried):
    with unharmed(hurried), connect(hurried) as client:
        client.sendall(chunked(CHUNK))
        time.sleep(0.1)
        client.sendall(b"zz\r\n")
        assert [status for status, _ in answers(receive(client))] == [400]
        time.sleep(1.2)


def test_a_body_that_comes_too_slowly_is_408_though_it_never_stops(hurried):
    sent = post(LENGTH)
    with unharmed(hurried), connect(hurried) as client:
        client.sendall(sent[: -len(BODY)])
        for byte in BODY * 2:
            client.sendall(bytes([byte]))
            if select.select([client], [], [], 0.1)[0]:
                break
        assert [status for status, _ in answers(receive(client))] == [408]


@pytest.mark.parametrize("which", ["server", "narrow"])
def test_200_connections_that_say_nothing_keep_nobody_waiting(request, which):
    server = request.getfixturevalue(which)
    with unharmed(server), contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(200)]
        for _ in range(20):
            begun = time.monotonic()
            assert_serves(server)
            assert time.monotonic() - begun < 2
        silent[-1].sendall(get(b"/slow?seconds=0&name=", CLOSE))
        assert [status for status, _ in answers(receive(silent[-1]))] == [200]


def test_a_slow_sender_keeps_nobody_waiting_and_is_answered(server):
    sent = post(LENGTH, CLOSE)
    slow = [sent[at : at + 1] for at in range(15)]
    with unharmed(server), concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(converse, server, *slow, sent[15:], pause=0.2)
        while not answer.done():
            begun = time.monotonic()
            assert_serves(server)
            assert time.monotonic() - begun < 2
            time.sleep(0.05)
        assert answers(answer.result()) == [(200, ANSWER)]


def test_trailers_are_no_headers(server):
    trailers = b"X-Late: 1\r\nAuthorization: Bearer late\r\n\r\n"
    with unharmed(server):
        received = converse(server, chunked(CHUNK + b"0\r\n" + trailers, CLOSE, path=b"/headers"))
        ((status, body),) = answers(received)
        assert status in (200, 400)
        assert b"late" not in body


def test_trailers_have_a_limit(server):
    block = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
    with unharmed(server), connect(server) as client:
        client.sendall(chunked(CHUNK + b"0\r\n"))
        for _ in range(20):  # 2 MB
            try:
                client.sendall(block)
            except ConnectionError:
                break
        assert select.select([client], [], [], 1)[0], "nobody minds 2 MB of trailers"


def throw(server: Server, requests: list[bytes], at_once: int = 25) -> None:
    """Send each on a connection of its own; whatever comes back must be HTTP."""
    for start in range(0, len(requests), at_once):
        with contextlib.ExitStack() as stack:
            clients = []
            for sent in requests[start : start + at_once]:
                client = stack.enter_context(connect(server))
                client.sendall(sent)
                clients.append((client, sent))
            time.sleep(0.05)
            for client, sent in clients:
                if select.select([client], [], [], 0)[0]:
                    received = client.recv(65536)
                    assert not received or received.startswith(b"HTTP/1.1 "), sent


def test_random_bytes_do_no_harm(server):
    dice = random.Random(20261124)
    requests = [dice.randbytes(dice.randrange(1, 400)) for _ in range(150)]
    requests += [b"GET /" + dice.randbytes(60) + b" HTTP/1.1\r\n\r\n" for _ in range(75)]
    requests += [get(b"/started", b"X: " + dice.randbytes(60)) for _ in range(75)]
    requests += [chunked(dice.randbytes(100)) for _ in range(50)]
    with unharmed(server):
        throw(server, requests)


def mutated(dice: random.Random, sent: bytes) -> bytes:
    """The request with one to three small changes."""
    data = bytearray(sent)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(data))
        change = dice.randrange(6)
        if change == 0:
            data[at] = dice.randrange(256)
        elif change == 1:
            data.insert(at, dice.choice(b"\0\r\n :;,%?#\xff0A"))
        elif change == 2:
            del data[at : at + dice.randrange(1, 8)]
        elif change == 3:
            data[at:at] = data[at : at + dice.randrange(1, 40)]
        elif change == 4:
            data[at] ^= 1 << dice.randrange(8)
        else:
            other = dice.randrange(len(data))
            data[at], data[other] = data[other], data[at]
        data = data or bytearray(b"\r")
    return bytes(data)


def test_changes_to_valid_requests_do_no_harm(server):
    dice = random.Random(20261124)
    valid = [
        post(LENGTH),
        chunked(CHUNK + b"0\r\nX: y\r\n\r\n"),
        get(b"/slow?seconds=0&name=a", UPGRADE),
        post(LENGTH, b"Expect: 100-continue"),
        b"".join(PIPELINE),
    ]
    with unharmed(server):
        throw(server, [mutated(dice, dice.choice(valid)) for _ in range(600)])


def test_nothing_is_read_from_a_client_that_takes_no_answers_until_it_does(server):
    request = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    many, most = request * 1000, 24 << 20  # far more than the kernel keeps of a connection
    with socket.create_connection(("127.0.0.1", server.port), timeout=1) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < most:
                sent += client.send(many[sent % len(many) :])
        assert sent < most
        client.settimeout(5)
        expected, answers, rest = sent // len(request), 0, b""
        while answers < expected:
            rest += client.recv(1 << 20)
            *whole, rest = rest.split(b'{"status":"healthy"}')
            answers += len(whole)
    assert server.ping() == 200


def test_a_client_of_http_1_0_is_not_told_to_continue(server):
    head = b"POST /echo HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(BODY)
    assert converse(server, head, BODY).startswith(b"HTTP/1.1 200 ")
