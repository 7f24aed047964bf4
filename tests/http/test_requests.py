"""What of a request goes on the wire, to the byte, and what never does."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from lmagent.errors import ConfigurationError
from lmagent.http.base import Timeouts
from lmagent.http.transport import HttpTransport
from lmagent.providers.base import Request
from tests.loopback import LoopbackServer, json_answer


def send(server: LoopbackServer, **members: Any) -> None:
    transport = HttpTransport(proxy="")
    request = Request(**{"url": server.url + "/chat", "content": b"{}", **members})
    try:
        transport.open(request, Timeouts(), time.monotonic() + 5).read(1000)
    finally:
        transport.close()


def test_the_bytes_of_a_request():
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while not b"".join(received).endswith(b"{}"):
                received.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        request = Request(
            url=f"http://127.0.0.1:{port}/chat", content=b"{}", params={"a": "b"}, headers={"X-Name": " 值"}
        )
        transport = HttpTransport(proxy="")
        transport.open(request, Timeouts(), time.monotonic() + 5).read(1000)
        transport.close()
        thread.join()
    head = (
        f"POST /chat?a=b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\naccept: */*\r\naccept-encoding: gzip, deflate\r\n"
        "user-agent: lmagent\r\nx-name: 值\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert received == [head.encode()]  # in one piece


def test_a_body_is_counted_whatever_the_headers_say():
    with LoopbackServer(json_answer({})) as server:
        send(server, headers={"Content-Length": "99", "Transfer-Encoding": "chunked", "Host": "other.example"})
        [request] = server.requests
        assert request.body == b"{}"
        assert request.headers["content-length"] == "2"
        assert request.headers["host"] == "other.example"
        assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("name", ["authorization", "host", "content-length", "Transfer-Encoding"])
@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nx: y", "a\rb", "a\0b", "a\x7fb", "a\ud800"])
def test_no_value_ends_its_line(name: str, value: str):
    with LoopbackServer(json_answer({})) as server:
        with pytest.raises(ConfigurationError, match="characters") as caught:
            send(server, headers={name: value})
        assert server.requests == []
        assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "名"])
def test_no_odd_name(name: str):
    with LoopbackServer(json_answer({})) as server:
        with pytest.raises(ConfigurationError):
            send(server, headers={name: "x"})
        assert server.requests == []


def test_no_url_or_parameter_ends_the_request_line():
    with LoopbackServer(json_answer({})) as server:
        send(server, url=server.url + "/a b\r\n?c d", params={"e f": "g\r\nh: i"})
        assert [each.target for each in server.requests] == ["/a%20b?c%20d&e+f=g%0D%0Ah%3A+i"]


def test_no_method_is_more_than_a_word():
    with LoopbackServer(json_answer({})) as server:
        with pytest.raises(ConfigurationError):
            send(server, method="POST / HTTP/1.1\r\nx: y\r\n\r\nGET")
        assert server.requests == []
