"""Responses to bytes: what a client reads is what the application said, or nothing of it is sent."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_runtime.http.writer import JSON, InvalidResponse, Writer, start_of_json, whole

DATE = [(b"date", b"today")]


class Read:
    """What a client's parser makes of these bytes."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status = parser.get_status_code()
        self.keep_alive = parser.should_keep_alive()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def sent(
    status: int, headers: list[tuple[bytes, bytes]], *parts: bytes, method: str = "GET", version: str = "1.1"
) -> bytes:
    """The bytes of a response with these parts of a body."""
    writer = Writer(method, version, close=False)
    data = writer.head(status, headers, DATE)
    last = len(parts) - 1
    return data + b"".join([writer.body(part, more=number < last) for number, part in enumerate(parts)])


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK"),
        (422, b"HTTP/1.1 422 Unprocessable"),
        (299, b"HTTP/1.1 299 "),
        (599, b"HTTP/1.1 599 "),
    ],
)
def test_a_status_has_its_line(status, line):
    assert sent(status, [], b"").split(b"\r\n")[0].startswith(line)


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, -200, "200", None])
def test_what_is_no_status_of_a_response_is_refused(status):
    with pytest.raises(InvalidResponse, match="not a valid status"):
        sent(status, [], b"")


def test_a_declared_length_is_sent_and_kept():
    data = sent(200, [(b"Content-Length", b"3"), (b"x-a", b"1")], b"a", b"bc")
    assert data == b"HTTP/1.1 200 OK\r\ndate: today\r\nx-a: 1\r\ncontent-length: 3\r\n\r\nabc"


@pytest.mark.parametrize("parts", [[b"abcd"], [b"ab", b"cd"], [b"ab"], [b""]])
def test_a_body_of_another_length_is_refused(parts):
    with pytest.raises(InvalidResponse, match="than its Content-Length"):
        sent(200, [(b"content-length", b"3")], *parts)


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1 ", b"\xb2", b"9" * 5000])
def test_what_is_no_length_is_refused(length):
    with pytest.raises(InvalidResponse, match=r"Content-Length .* is not a number"):
        sent(200, [(b"content-length", length)], b"")


def test_two_lengths_are_one_where_they_agree_and_else_refused():
    with pytest.raises(InvalidResponse):
        sent(200, [(b"content-length", b"1"), (b"content-length", b"2")], b"a")
    data = sent(200, [(b"content-length", b"1"), (b"Content-Length", b"01")], b"a")
    assert data.count(b"content-length") == 1


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
def test_a_body_without_a_length_is_chunked_and_arrives(parts):
    read = Read(sent(200, [], *parts))
    assert (read.body, read.complete) == (b"".join(parts), True)
    assert (b"transfer-encoding", b"chunked") in read.headers


@pytest.mark.parametrize("turned", [False, True])
def test_chunks_have_no_length_beside_them(turned):
    headers = [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")]
    data = sent(200, headers[::-1] if turned else headers, b"abc")
    assert b"content-length" not in data
    assert data.count(b"transfer-encoding") == 1
    assert Read(data).body == b"abc"


@pytest.mark.parametrize("headers", [[], [(b"transfer-encoding", b"chunked")]])
def test_an_old_client_gets_the_body_as_it_is(headers):
    assert sent(200, headers, b"a", b"b", version="1.0") == b"HTTP/1.1 200 OK\r\ndate: today\r\n\r\nab"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_what_has_no_body_has_none_whatever_is_said(method, status):
    data = sent(status, [(b"x-a", b"1")], b"abc", b"d", method=method)
    assert data.endswith(b"\r\nx-a: 1\r\n\r\n")
    assert b"chunked" not in data or method == "HEAD"


def test_head_tells_the_length_that_get_has():
    data = sent(200, [(b"content-length", b"3")], b"", method="HEAD")
    assert data.endswith(b"content-length: 3\r\n\r\n")


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nx", b"\xe9", b"a\0", b"a\t", b"(a)", b"a/b"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidResponse, match="not a valid header name"):
        sent(200, [(name, b"1")], b"")


@pytest.mark.parametrize("value", [b"a\r\nx-b: 1", b"a\n", b"a\r", b"\0", b"\x1b[31m", b"\x7f"])
def test_a_value_adds_no_line(value):
    with pytest.raises(InvalidResponse, match="x-a contains control characters"):
        sent(200, [(b"x-a", value)], b"")


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_header_arrives_alone_or_is_refused(name, value):
    own = (b"content-length", b"transfer-encoding", b"connection", b"upgrade")
    if name.lower() in own:
        return
    try:
        data = sent(200, [(name, value), (b"content-length", b"1")], b"a")
    except InvalidResponse:
        return
    read = Read(data)
    expected = [*DATE, (name.lower(), value.strip(b" \t")), (b"content-length", b"1")]
    assert [(each, value.strip(b" \t")) for each, value in read.headers] == expected
    assert read.body == b"a"


def test_a_refused_head_has_not_started():
    writer = Writer("GET", "1.1", close=False)
    with pytest.raises(InvalidResponse):
        writer.head(200, [(b"x", b"\n")], ())
    assert not writer.has_started
    writer.head(200, [], ())
    assert writer.has_started


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close"])
def test_the_application_may_end_the_connection(value):
    writer = Writer("GET", "1.1", close=False)
    data = writer.head(200, [(b"Connection", value)], ())
    assert writer.close
    assert data.count(b"connection: close\r\n") == 1


def test_the_application_does_not_say_that_it_is_kept():
    writer = Writer("GET", "1.1", close=True)
    data = writer.head(200, [(b"connection", b"keep-alive")], ())
    assert writer.close
    assert b"keep-alive" not in data
    assert data.count(b"connection: close") == 1


@pytest.mark.parametrize("status", [200, 204, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("close", [False, True])
def test_an_answer_of_the_runtimes_own_is_whole(status, method, close):
    data = whole(status, [JSON], DATE, b"{}", method, close=close)
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == (b"" if method == "HEAD" or status == 204 else b"{}")
    assert (b"content-length: 2" in head) == (status != 204)
    assert (b"connection: close" in head) == close
    assert b"chunked" not in head


def test_the_start_of_json_is_that_of_any_200():
    made = start_of_json(DATE) + b"content-length: 2\r\n\r\n{}"
    assert made == whole(200, [JSON], DATE, b"{}", close=False)
