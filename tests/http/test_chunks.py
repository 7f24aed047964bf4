"""Joining the chunks of a body: the same bytes and the same faults as h11 alone, however they come."""

from __future__ import annotations

import random

import h11
import pytest

from lmagent.http.address import address_of
from lmagent.http.dialogue import ChunkJoiner, Dialogue
from lmagent.providers.base import Request

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes, size: str | None = None) -> bytes:
    return (size or f"{len(data):x}").encode() + b"\r\n" + data + b"\r\n"


def _started() -> Dialogue:
    dialogue = Dialogue()
    dialogue.request(address_of("http://h/"), Request(url="http://h/"))
    return dialogue


def _read(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Give a dialogue an answer in these pieces; return its body and whether it ended."""
    dialogue = _started()
    rest = iter(pieces)
    while dialogue.head(next(rest)) is None:
        pass
    body, ended = dialogue.body()
    for piece in rest:
        dialogue.receive(piece)
        more, ended = dialogue.body()
        body += more
    return body, ended


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
    dialogue = _started()
    assert dialogue.head(HEAD + b"ff\r\ndata: 1\n\n")
    assert dialogue.body() == (b"data: 1\n\n", False)


def test_any_cut_gives_the_same_body_as_h11_alone():
    dice = random.Random(6)
    for _ in range(400):
        chunks = [bytes(dice.choices(b"data: \r\n0af", k=dice.choice([1, 2, 9, 40]))) for _ in range(dice.randrange(9))]
        sizes = [f"{len(chunk):{dice.choice(['x', 'X', '04x'])}}" for chunk in chunks]
        sizes = [f"{size};a=b" if dice.random() < 0.05 else size for size in sizes]
        end = dice.choice([b"0\r\n\r\n", b"0\r\n\r\n", b"00\r\ntrailer: x\r\n\r\n"])
        whole = HEAD + b"".join(map(_chunk, chunks, sizes)) + end
        pieces = _cut(whole, dice)
        assert _read(pieces) == (b"".join(chunks), True) == _plain(pieces)


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
        with pytest.raises(h11.RemoteProtocolError):
            _read([HEAD + start + body])


@pytest.mark.parametrize("body", [b"", b"5", b"5\r\n", b"5\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0\r\n"])
def test_a_body_cut_short_is_said(body: bytes):
    dialogue = _started()
    assert dialogue.head(HEAD + body)
    dialogue.body()
    dialogue.receive(b"")
    with pytest.raises(ConnectionResetError):
        dialogue.body()
