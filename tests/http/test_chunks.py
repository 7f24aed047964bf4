"""Joining the chunks of a body: the same bytes and the same faults as h11 alone, however they come; and whether a
connection can be used again."""

from __future__ import annotations

import random
import socket
from typing import Any

import h11
import httpcore2
import pytest

from lmagent.http.base import Clocks
from lmagent.http.network import ChunkJoiner, SocketStream

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes, size: str | None = None) -> bytes:
    return (size or f"{len(data):x}").encode() + b"\r\n" + data + b"\r\n"


class Script(SocketStream):
    """Receives these pieces one by one, then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(socket.socket(), Clocks())
        self._pieces = iter(pieces)

    def _in_time(self, operation: Any, argument: Any) -> Any:
        return len(argument) if isinstance(argument, memoryview) else next(self._pieces, b"")


def _read(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the pieces of the body that httpcore2 reads of these, and whether the connection is fit for another
    request."""
    stream = Script(pieces)
    origin = httpcore2.Origin(b"http", b"h", 80)
    with httpcore2.HTTP11Connection(origin, stream) as connection:
        response = connection.handle_request(httpcore2.Request("POST", "http://h/", headers={"Host": "h"}))
        stream.splitter.start_body({key.decode().lower(): value.decode() for key, value in response.headers})
        body = list(response.iter_stream())
        response.close()
        return body, connection.is_idle() and stream.splitter.clean


def _plain(pieces: list[bytes]) -> tuple[bytes, bool]:
    """The same by h11 alone."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "h"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    body, ended = b"", False
    for piece in pieces:
        connection.receive_data(piece)
        while not isinstance(event := connection.next_event(), type(h11.NEED_DATA)):
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                ended = True
            if isinstance(event, type(h11.PAUSED) | h11.EndOfMessage):
                break
    return body, ended


def _cut(data: bytes, dice: random.Random) -> list[bytes]:
    places = sorted(dice.sample(range(1, len(data)), min(dice.choice([0, 1, 3, 20]), len(data) - 1)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def test_small_chunks_become_one():
    joiner = ChunkJoiner()
    assert joiner.feed(_chunk(b"one") + _chunk(b"two") + _chunk(b"three")) == _chunk(b"onetwothree")
    assert joiner.feed(_chunk(b"x" * 10)[:5]) == b"a\r\nxx"
    assert joiner.feed(b"x" * 8 + b"\r\n" + _chunk(b"a") + _chunk(b"b") + b"1") == b"x" * 8 + b"\r\n" + _chunk(b"ab")
    assert joiner.feed(b"\r\nc\r\n0\r\n\r\n") == b"1\r\nc\r\n0\r\n\r\n"


def test_an_event_that_is_there_is_not_held_back():
    joiner = ChunkJoiner()
    assert joiner.feed(b"ff\r\ndata: 1\n\n") == b"ff\r\ndata: 1\n\n"


def test_chunks_that_came_together_are_one_piece():
    pieces = [HEAD + _chunk(b"a"), _chunk(b"b") + _chunk(b"c") + _chunk(b"d"), b"0\r\n\r\n"]
    assert _read(pieces) == ([b"a", b"bcd"], True)


def test_any_cut_gives_the_same_body_as_h11_alone():
    dice = random.Random(6)
    for _ in range(400):
        chunks = [bytes(dice.choices(b"data: \r\n0af", k=dice.choice([1, 2, 9, 40]))) for _ in range(dice.randrange(9))]
        sizes = [f"{len(chunk):{dice.choice(['x', 'X', '04x'])}}" for chunk in chunks]
        odd = dice.random() < 0.2
        sizes = [f"{size};a=b" if odd else size for size in sizes]
        end = dice.choice([b"0\r\n\r\n", b"0\r\n\r\n", b"00\r\ntrailer: x\r\n\r\n"])
        early = dice.choice([b"", b"", b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n"])
        whole = early + HEAD + b"".join(map(_chunk, chunks, sizes)) + end
        pieces = _cut(whole, dice)
        body, clean = _read(pieces)
        assert (b"".join(body), True) == (b"".join(chunks), True) == _plain(pieces)
        assert clean == (b"trailer" not in end and not (odd and chunks))


SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
NEXT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "response", [SIZED, HEAD + _chunk(b"hello") + b"0\r\n\r\n", HEAD + _chunk(b"hello") + b"000\r\n\r\n"]
)
def test_bytes_after_the_end_make_a_connection_unfit(response: bytes):
    dice = random.Random(7)
    for _ in range(100):
        body, clean = _read(_cut(response, dice))
        assert (b"".join(body), clean) == (b"hello", True)
    for cut in (0, 1, len(NEXT) - 1, len(NEXT)):
        pieces = [response[:-3], response[-3:] + NEXT[:cut] + b"H", NEXT[cut:]]
        body, clean = _read(pieces)
        assert (b"".join(body), clean) == (b"hello", False)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n\r\n"])
def test_a_blank_line_in_the_body_is_not_the_end_of_the_head(end: bytes):
    head = b"HTTP/1.1 200 OK\ntransfer-encoding: chunked" + end
    whole = head + _chunk(b"a\r\n\r\nb") + _chunk(b"\n\nc") + b"0\r\n\r\n"
    for cut in range(1, len(whole)):
        body, clean = _read([whole[:cut], whole[cut:]])
        assert (b"".join(body), clean) == (b"a\r\n\r\nb\n\nc", True)


@pytest.mark.parametrize(
    "body",
    [
        b"0x1\r\na\r\n",
        b"1_0\r\na\r\n",
        b"+1\r\na\r\n",
        b"zz\r\n",
        b"1\r\nab\r\n",
        b"-1\r\n",
        b"<html>\r\n",
        b"1" * 30 + b"\r\n",
    ],
)
def test_faults_are_left_to_h11(body: bytes):
    for start in (b"", _chunk(b"ok") + _chunk(b"ok")):
        with pytest.raises(h11.RemoteProtocolError):
            _plain([HEAD + start + body])
        with pytest.raises(httpcore2.RemoteProtocolError):
            _read([HEAD + start + body])


@pytest.mark.parametrize("body", [b"", b"5", b"5\r\n", b"5\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0\r\n"])
def test_a_body_cut_short_is_said(body: bytes):
    with pytest.raises(httpcore2.RemoteProtocolError):
        _read([HEAD + body])
