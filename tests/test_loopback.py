from __future__ import annotations

import http.client
import socket
import time

import pytest

from tests.loopback import RESET, STALL, LoopbackServer, answer, json_answer, raw, sse_answer


def test_answers_are_given_in_order_and_the_last_one_repeats():
    with LoopbackServer([json_answer({"n": 1}), answer("two", status=500)]) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        statuses: list[int] = []
        for _ in range(3):
            client.request("POST", "/a?b=1", b'{"q": 1}')
            response = client.getresponse()
            statuses.append(response.status)
            response.read()
        client.close()
        assert statuses == [200, 500, 500]
        assert [request.connection for request in server.requests] == [0, 0, 0]
        assert server.requests[0].path == "/a"
        assert server.requests[0].json == {"q": 1}
        assert server.wait_closed()


def test_stream_is_sent_in_chunks():
    with LoopbackServer(sse_answer({"a": 1}, "[DONE]")) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        client.request("GET", "/")
        assert client.getresponse().read() == b'data: {"a": 1}\n\ndata: [DONE]\n\n'
        client.close()


def test_connection_can_be_reset_or_stalled():
    with LoopbackServer([raw(RESET), raw(STALL)]) as server:
        for kind in (ConnectionResetError, TimeoutError):
            with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises(kind):
                    connection.recv(1)
        assert server.wait_closed()


def test_end_of_the_block_closes_everything_quickly():
    with LoopbackServer(raw(STALL)) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=1)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        server.wait_requests(1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1
    assert connection.recv(1) == b""
    connection.close()
