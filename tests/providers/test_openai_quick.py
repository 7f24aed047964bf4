"""Chunks that are cut give the same deltas as decoded ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmagent.providers.openai.chat as openai
from lmagent.core.events import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from lmagent.providers.openai.chat import OpenAICodec

BASE = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CALL = {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "save", "arguments": "{"}}]}


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return json.dumps({**BASE, "choices": [choice], **more}, ensure_ascii=False).encode()


def text(piece: str, **more: Any) -> bytes:
    return chunk({"content": piece}, **more)


def arguments(piece: str, index: int = 0) -> bytes:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})


def read(chunks: list[bytes], lessons: int = 8) -> list[Delta]:
    codec = OpenAICodec("m", base_url="http://x.example/v1")
    state = codec.new_state()
    state.lessons = lessons
    return [delta for data in [*chunks, b"[DONE]"] for delta in codec.parse_event(state, data)]


def decoded(chunks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return which chunks were decoded."""
    seen: list[bytes] = []

    def counting(data: bytes) -> Any:
        seen.append(data)
        return json.loads(data)

    monkeypatch.setattr(openai, "loads", counting)
    read(chunks)
    return seen


def test_only_what_differs_is_decoded(monkeypatch: pytest.MonkeyPatch):
    begin = [chunk({"role": "assistant", "content": ""}), text("Hello")]
    alike = [text(piece) for piece in (" world", "!", " 你好", "m", "lmagent", "}]}", " ")]
    other = [text('a "quote"'), text("a\nline"), text("x", created=2)]
    assert decoded([*begin, *alike, *other, text("after")], monkeypatch) == [*begin, *other, text("after")]


def test_arguments_and_thoughts_are_cut_too(monkeypatch: pytest.MonkeyPatch):
    thoughts = [chunk({"reasoning_content": piece}) for piece in ("So", " I", " think")]
    pieces = [arguments(piece) for piece in ("a1", "b222", "c3333")]
    start = [chunk({"role": "assistant"}), chunk(CALL)]
    assert decoded([start[0], *thoughts, start[1], *pieces], monkeypatch) == [
        start[0], thoughts[0], start[1], pieces[0]
    ]  # fmt: skip
    assert read([start[0], *thoughts, start[1], *pieces])[:-1] == [
        *[ReasoningDelta(piece) for piece in ("So", " I", " think")],
        ToolCallDelta(0, "call_1", "save", "{"),
        *[ToolCallDelta(0, "", "", piece) for piece in ("a1", "b222", "c3333")],
    ]


def test_the_number_of_learned_patterns_is_limited():
    codec = OpenAICodec("m")
    state = codec.new_state()
    chunks = [text(f"word{number}", obfuscation="x" * (number % 7)) for number in range(50)]
    assert [delta for data in chunks for delta in codec.parse_event(state, data)] == [
        TextDelta(f"word{number}") for number in range(50)
    ]
    assert state.lessons == 0


@pytest.mark.parametrize(
    "chunks",
    [
        [text("m"), text("n"), text("m")],  # the text is also the name of the model
        [text("a"), text("b").replace(b'"b"', b'"\\u0062"'), text("c")],
        [text("a", note={"content": "a"}), text("b", note={"content": "a"}), text("b", note={"content": "b"})],
        [text("a"), text("b").replace(b'"b"', b'"b"  '), text("c")],
        [text("a"), b"\xef\xbb\xbf" + text("b"), text("c")],
        [text("a"), text("b").replace(b'"b"', b'"\xff"'), text("c")],
        [text("a"), text("b").replace(b'"b"', b'"\t"'), text("c")],
        [text("a"), text("b").replace(b'"b"', b"null"), text("c")],
        [text("a"), text("b").replace(b'"b"', b'"b", "refusal": "no"'), text("c")],
        [text("a"), text("b")[:-3] + b"}]}", text("c")],
        [chunk({"reasoning": "a", "reasoning_content": "a"}), chunk({"reasoning": "b", "reasoning_content": "a"})],
        [chunk(CALL), arguments("a1"), arguments("b2"), arguments("{a1b2"), arguments("}")],
        [chunk(CALL), arguments("x"), arguments("y"), chunk(CALL), arguments("x"), arguments("z")],
        [chunk(CALL), arguments('"a": 1}'), arguments("x"), arguments('"b": 2}')],
    ],
)
def test_unusual_chunks_are_read_by_the_full_reader(chunks: list[bytes]):
    begin = chunk({"role": "assistant", "content": ""})

    def outcome(lessons: int) -> Any:
        try:
            return read([begin, *chunks, chunk({}, usage={"total_tokens": 1})], lessons)
        except Exception as error:
            return type(error), str(error)

    assert outcome(8) == outcome(0)


words = st.text(max_size=5) | st.sampled_from(
    ["m", "lmagent", "c1", "content", "null", '"', "\\", "\\n", "1e999", "{}"]
)
deltas = st.one_of(
    words.map(lambda word: {"content": word}),
    words.map(lambda word: {"content": word, "role": "assistant"}),
    words.map(lambda word: {"reasoning_content": word}),
    words.map(lambda word: {"reasoning": word, "reasoning_content": word}),
    st.tuples(words, st.integers(0, 1)).map(
        lambda pair: {"tool_calls": [{"index": pair[1], "function": {"arguments": pair[0]}}]}
    ),
    st.just(CALL),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(deltas, st.sampled_from([{}, {}, {"created": 2}]), st.booleans()), max_size=20))
def test_any_stream_reads_the_same(items: list[tuple[dict[str, Any], dict[str, Any], bool]]):
    chunks = [
        json.dumps(json.loads(chunk(delta, **more)), ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        for delta, more, ascii_only in items
    ]
    end = json.dumps({**BASE, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).encode()
    assert read([*chunks, end]) == read([*chunks, end], 0)
