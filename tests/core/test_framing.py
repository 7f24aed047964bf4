from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmagent.core import json_text as framing
from lmagent.core.json_text import Frame, FramingError, LineDecoder, SSEDecoder


def frames(pieces, decoder=SSEDecoder) -> list[Frame]:
    made = decoder()
    return [frame for piece in pieces for frame in made.feed(piece)] + made.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [b"a", b"b", b"c"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": comment\nid: 1\nretry: 5\nodd: x\ndata\ndata: a\n\n", [b"a"]),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"data:\n\ndata: \n\ndata: a\n\n", [b"a"]),
        ("data: 你好\u2028\x85\x0b\n\n".encode(), ["你好\u2028\x85\x0b".encode()]),
        (b"", []),
        (b": only a comment", []),
    ],
)
def test_sse_frames_are_the_same_for_every_cut_of_the_body(body, expected):
    assert [frame.data for frame in frames([body])] == expected
    for cut in range(len(body) + 1):
        assert [frame.data for frame in frames([body[:cut], body[cut:]])] == expected
    assert [frame.data for frame in frames([bytes([byte]) for byte in body])] == expected


def test_a_frame_has_its_event_name():
    body = b"event: start\ndata: 1\n\ndata: 2\n\nevent: ping\n\ndata: 3\n\n"
    assert frames([body]) == [Frame(b"1", "start"), Frame(b"2"), Frame(b"3")]


def test_line_decoder_frames_are_the_same_for_every_cut_of_the_body():
    body = b'\xef\xbb\xbf{"a":1}\r\n\r\n{"b":2}\n  \n{"c":3}'
    expected = [Frame(b'{"a":1}'), Frame(b'{"b":2}'), Frame(b'{"c":3}')]
    for cut in range(len(body) + 1):
        assert frames([body[:cut], body[cut:]], LineDecoder) == expected


LINES = st.lists(
    st.sampled_from([b"data: x", b"data:y", b": c", b"event: e", b"", b"data: \xe4\xbd", b"id: 1"]), max_size=12
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(LINES, st.lists(ENDS, min_size=12, max_size=12), st.lists(st.integers(0, 200), max_size=8))
def test_sse_frames_do_not_depend_on_cuts_and_line_ends(lines, ends, cuts):
    body = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    plain = b"".join(line + b"\n" for line in lines)
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[a:b] for a, b in pairwise(places)]
    assert frames(pieces) == frames([body])
    if not _merges(lines, ends):
        assert frames([body]) == frames([plain])


def _merges(lines, ends) -> bool:
    """Whether a lone CR is followed by an empty line ended by LF: that is one CRLF and not two line ends."""
    return any(
        ends[n] == b"\r" and n + 1 < len(lines) and not lines[n + 1] and ends[n + 1] != b"\r" for n in range(len(lines))
    )


@given(st.binary(max_size=300))
def test_sse_decoder_accepts_any_bytes(data):
    frames([data])
    frames([data], LineDecoder)


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: xxxxxxxx\n"])
def test_a_line_or_event_above_the_limit_is_a_framing_error(piece, monkeypatch):
    monkeypatch.setattr(framing, "MAX_EVENT", 1000)
    decoder = SSEDecoder()
    for _ in range(90):
        decoder.feed(piece)
    with pytest.raises(FramingError):
        decoder.feed(piece * 100)


def test_decoding_takes_linear_time():
    def cost(size: int) -> float:
        begun = time.thread_time()
        frames([b"data: ", *[b"abcd"] * size, b"\n\n"])
        return time.thread_time() - begun

    cost(10_000)
    small, large = min(cost(50_000) for _ in range(3)), min(cost(100_000) for _ in range(3))
    assert large < 3 * small
