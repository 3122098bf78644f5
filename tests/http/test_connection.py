"""Connections: what a client is not to blame for."""

import time

from uvicorn.server import ServerState

from flash_runtime.http.connection import HEAD_SECONDS, Connection


class Transport:
    """What a connection needs of one."""

    def __init__(self):
        self.written = b""
        self.reading = True

    def get_extra_info(self, name):
        return None

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return False

    def write(self, data):
        self.written += data

    def write_eof(self):
        pass


class Request:
    """One that is answered when the test says so."""

    keep_alive = True
    response_complete = False

    def on_body_end(self):
        pass

    def advance(self):
        pass

    def answer(self, connection):
        self.response_complete = True
        connection.on_response_complete(self)


class Opener:
    def __init__(self):
        self.requests = []

    def open(self, connection, head):
        self.requests.append(Request())
        return self.requests[-1]


def test_a_head_whose_rest_is_not_read_for_long_is_not_late():
    opener, transport = Opener(), Transport()
    connection = Connection(opener, ServerState())
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET / HT")
    assert not transport.reading
    connection._parser.head_since -= 2 * HEAD_SECONDS  # as if it had come long ago
    connection.look_after(time.monotonic())
    assert connection.refusal is None
    opener.requests[0].answer(connection)
    assert transport.reading
    connection.look_after(time.monotonic())
    assert connection.refusal is None
    connection.look_after(time.monotonic() + 2 * HEAD_SECONDS)
    assert connection.refusal is not None
