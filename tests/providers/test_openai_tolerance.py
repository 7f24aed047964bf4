"""Servers and models that deviate from Chat Completions: each deviation has one defined outcome.

The rules are numbered as in docs/providers/compatible.md. Whole replies and streams go through the same reader, so most
deviations are tested both ways.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.events import ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, ToolCallStart
from lmagent.core.json_text import Frame
from lmagent.core.messages import Reply, Usage
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    InvalidResponse,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.base import ChatCall
from lmagent.providers.openai.chat import OPENAI, OpenAICodec
from lmagent.providers.openai.vendor_profiles import MINIMAX
from tests.providers.wire import frames_of, read_frames, read_stream

CODEC = OpenAICodec("m")
TAGGED = OpenAICodec("m", profile=replace(OPENAI, think_tags=True))


def body(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"id": "r1", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}


def whole(message: Any, finish: Any = "stop", *, codec: OpenAICodec = CODEC, **more: Any) -> Reply:
    data = json.loads(json.dumps(body(message, finish, **more)))
    assert codec.parse_error(200, {}, data) is None
    return codec.parse_reply(data)


def chunk(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": "r1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def calls(*items: Any, finish: Any = None) -> dict[str, Any]:
    return chunk({"tool_calls": list(items)}, finish)


def sse(*chunks: Any, done: bool = True) -> bytes:
    text = "".join(f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n" for item in chunks)
    return (text + "data: [DONE]\n\n" * done).encode()


STOP = chunk({}, "stop")
CALLED = chunk({}, "tool_calls")


def streamed(*chunks: Any, done: bool = True, codec: OpenAICodec = CODEC) -> Reply:
    return read_stream(codec, sse(*chunks, done=done))


def called(reply: Reply) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in reply.tool_calls]


def piece(
    index: int | None = None, id: Any = ..., name: Any = ..., arguments: Any = ..., type: Any = ...
) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not ...}
    item = {k: v for k, v in (("index", index), ("id", id), ("type", type)) if v is not ... and v is not None}
    if id is None:
        item["id"] = None
    return item | ({"function": function} if function else {})


# Rule 1: arguments


ARGUMENTS = [
    ('{"a": 1}', '{"a": 1}'),
    ({"a": 1, "b": "你"}, '{"a":1,"b":"你"}'),
    (None, "{}"),
    ("", "{}"),
    ("  \n", "{}"),
    ({}, "{}"),
    ("{}", "{}"),
    ('"{\\"a\\": 1}"', '{"a": 1}'),
    ('""', "{}"),
    ('{"a": ', '{"a": '),
    ("city=Paris", "city=Paris"),
    ('{"a": NaN}', '{"a": NaN}'),
    ('{"a": Infinity}', '{"a": Infinity}'),
    ('[{"a": 1}]', '[{"a": 1}]'),
    ([1], "[1]"),
    (7, "7"),
    (False, "false"),
    ('"just text"', "just text"),
    ("null", "null"),
]


@pytest.mark.parametrize(("wire", "expected"), ARGUMENTS)
def test_arguments_in_every_shape(wire: Any, expected: str) -> None:
    item = piece(0, "c1", "f", wire)
    assert called(whole({"tool_calls": [item]})) == [("c1", "f", expected)]
    assert called(streamed(calls(item), CALLED)) == [("c1", "f", expected)]


def test_missing_arguments_and_functions() -> None:
    assert called(whole({"tool_calls": [{"id": "c1", "function": {"name": "f"}}]})) == [("c1", "f", "{}")]
    assert called(whole({"tool_calls": [{"id": "c1"}]})) == [("c1", "", "{}")]
    assert called(whole({"tool_calls": [{"id": "c1", "function": None}]})) == [("c1", "", "{}")]
    assert called(streamed(calls(piece(0, "c1", "f")), CALLED)) == [("c1", "f", "{}")]


def test_unpacking_arguments_is_noted_on_the_call() -> None:
    (call,) = whole({"tool_calls": [piece(0, "c1", "f", '"{\\"a\\": 1}"')]}).tool_calls
    assert call.repairs == ("encoded as a string",)
    pieces = [calls(piece(0, "c1", "f", '"{\\"a')), calls(piece(0, arguments='\\": 1}"'))]
    assert called(streamed(*pieces, CALLED)) == [("c1", "f", '{"a": 1}')]


# Rule 2: ids

FIRST, SECOND, THIRD = (f"call_{1:016}{index:08}" for index in range(3))
"""What calls without an id of their own get: `call_` and 24 digits."""


@pytest.mark.parametrize("odd", [..., None, ""])
def test_missing_ids_are_minted(odd: Any) -> None:
    items = [piece(None, odd, "f", "{}"), piece(None, odd, "g", '{"a":1}')]
    expected = [(FIRST, "f", "{}"), (SECOND, "g", '{"a":1}')]
    assert called(whole({"tool_calls": items})) == expected
    assert called(streamed(calls(*items), CALLED)) == expected
    assert called(streamed(*(calls(item) for item in items), CALLED)) == expected


def test_minted_ids_carry_the_prefix() -> None:
    reply = CODEC.parse_reply(body({"tool_calls": [piece(name="f")]}), prefix="7")
    assert reply.tool_calls[0].id == "call_000000000000000700000000"


def test_repeated_ids_are_made_unique() -> None:
    items = [piece(0, "c1", "f", '{"a":1}'), piece(1, "c1", "f", '{"a":2}')]
    expected = [("c1", "f", '{"a":1}'), (SECOND, "f", '{"a":2}')]
    assert called(whole({"tool_calls": items})) == expected
    assert called(streamed(calls(*items), CALLED)) == expected
    bare = [{k: v for k, v in item.items() if k != "index"} for item in items]
    assert called(streamed(calls(*bare), CALLED)) == expected


def test_ids_that_are_numbers() -> None:
    assert called(whole({"tool_calls": [piece(0, 5, "f")]}))[0][0] == "5"


# Rules 3 and 4: types, absence, parts


def test_absence_in_every_spelling() -> None:
    for message in (
        {"content": "hi"},
        {"content": "hi", "tool_calls": None, "function_call": None, "refusal": None},
        {"content": "hi", "tool_calls": [], "reasoning_content": None, "reasoning_details": []},
    ):
        reply = whole(message)
        assert (reply.reply, reply.tool_calls, reply.finish_reason) == ("hi", (), "stop")
    for message in ({"content": None}, {"content": ""}, {"role": "assistant"}):
        assert whole({**message, "tool_calls": [piece(0, "c", "f", "{}")]}).reply == ""
        assert whole({**message, "role": "assistant"}).reply == ""


def test_content_as_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "text", "text": "m"}]},
        {"type": "text", "text": "ans"},
        "wer",
        {"type": "reference", "reference_ids": [1]},
    ]
    reply = whole({"content": parts})
    assert (reply.reply, reply.message.reasoning) == ("answer", "hmm")
    reply = streamed(chunk({"content": parts[:1]}), chunk({"content": parts[1:]}), STOP)
    assert (reply.reply, reply.message.reasoning) == ("answer", "hmm")


@pytest.mark.parametrize("content", [7, {"text": "x"}, True])
def test_content_of_an_unknown_shape(content: Any) -> None:
    with pytest.raises(InvalidResponse, match="unknown shape"):
        whole({"content": content})
    with pytest.raises(InvalidResponse, match="unknown shape"):
        streamed(chunk({"content": content}))


# Rule 5: finish reasons


FINISH = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "": "stop",
    None: "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "error": "error",
    "network_error": "error",
    "moon_phase": "other",
}


@pytest.mark.parametrize(("wire", "expected"), FINISH.items())
def test_finish_reasons(wire: str | None, expected: str) -> None:
    reply = whole({"content": "hi"}, wire)
    assert reply.finish_reason == expected
    assert reply.raw_finish_reason == (wire or None)
    assert streamed(chunk({"content": "hi"}), chunk({}, wire)).finish_reason == expected


@pytest.mark.parametrize("wire", ["stop", "", None, "eos", "end_turn", "function_call", "moon_phase"])
def test_calls_decide_the_finish_reason(wire: str | None) -> None:
    item = piece(0, "c1", "f", "{}")
    assert whole({"tool_calls": [item]}, wire).finish_reason == "tool_calls"
    assert streamed(calls(item), chunk({}, wire)).finish_reason == "tool_calls"


@pytest.mark.parametrize("wire", ["length", "content_filter", "error"])
def test_a_call_that_was_cut_is_not_run(wire: str) -> None:
    items = [piece(0, "c1", "f", '{"a":1}'), piece(1, "c2", "f", '{"a":')]
    for reply in (whole({"tool_calls": items}, wire), streamed(calls(*items), chunk({}, wire))):
        assert reply.finish_reason == wire
        assert [bool(call.problem) for call in reply.tool_calls] == [False, True]


# Rule 6: reasoning


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_in_both_spellings(name: str) -> None:
    reply = whole({"content": "hi", name: "hm"})
    assert (reply.message.reasoning, reply.reply) == ("hm", "hi")
    reply = streamed(chunk({name: "h"}), chunk({name: "m", "content": ""}), chunk({"content": "hi"}), STOP)
    assert (reply.message.reasoning, reply.reply) == ("hm", "hi")


def test_reasoning_in_both_spellings_at_once_counts_once() -> None:
    assert whole({"content": "", "reasoning": "hm", "reasoning_content": "hm"}).message.reasoning == "hm"


def test_reasoning_details_are_shown_and_kept_if_they_must_be_sent_back() -> None:
    codec = OpenAICodec("m", profile=replace(OPENAI, provider="router", reasoning_details=True))
    details = [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}]
    reply = whole({"content": "hi", "reasoning_details": details}, codec=codec)
    assert reply.message.reasoning == "hm"
    assert reply.message.details == {"router": {"reasoning_details": details}}
    pieces = [
        {"type": "reasoning.text", "text": "h", "index": 0, "signature": None},
        {"type": "reasoning.text", "text": "m", "index": 0, "signature": "s"},
        {"type": "reasoning.encrypted", "data": "xyz", "index": 1},
    ]
    reply = streamed(*(chunk({"reasoning_details": [item]}) for item in pieces), STOP, codec=codec)
    assert reply.message.reasoning == "hm"
    assert reply.message.details["router"]["reasoning_details"] == [
        {"type": "reasoning.text", "text": "hm", "index": 0, "signature": "s"},
        {"type": "reasoning.encrypted", "data": "xyz", "index": 1},
    ]
    assert whole({"content": "hi", "reasoning_details": details}).message.details == {}


THOUGHT = "<think>\nI need 3 < 4.\n</think>\n\nYes <think> no"


def test_think_tags_are_text_unless_the_profile_says_so() -> None:
    assert whole({"content": THOUGHT}).reply == THOUGHT
    reply = whole({"content": THOUGHT}, codec=TAGGED)
    assert (reply.reply, reply.message.reasoning) == ("Yes <think> no", "I need 3 < 4.")
    assert reply.message.details == {"openai": {"think": "<think>\nI need 3 < 4.\n</think>\n\n"}}


@pytest.mark.parametrize("text", [THOUGHT, "  " + THOUGHT, "<think></think>", "<think>x</think>", "<thin", "", "hello"])
def test_think_tags_wherever_they_are_cut(text: str) -> None:
    expected = whole({"content": text}, codec=TAGGED)
    for cut in range(len(text) + 1):
        reply = streamed(chunk({"content": text[:cut]}), chunk({"content": text[cut:]}), STOP, codec=TAGGED)
        assert (reply.message, reply.finish_reason) == (expected.message, "stop")
    reply = streamed(*(chunk({"content": char}) for char in text), STOP, codec=TAGGED)
    assert reply.message == expected.message
    think = expected.message.details.get("openai", {}).get("think", "")
    assert think + expected.reply == text


def test_thinking_without_an_end_tag_is_kept() -> None:
    reply = streamed(chunk({"content": "<think>hm </thi"}), chunk({}, "length"), codec=TAGGED)
    assert (reply.reply, reply.message.reasoning, reply.finish_reason) == ("", "hm </thi", "length")


# Rule 7: usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"total_tokens": 0, "total_characters": 0}, None),
        ("many", None),
        ({"total_tokens": 30}, Usage(total_tokens=30)),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(input_tokens=3, total_tokens=3)),
        ({"prompt_tokens": "3", "completion_tokens": 2}, Usage(output_tokens=2, total_tokens=2)),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": None},
            Usage(input_tokens=3, output_tokens=2, total_tokens=5),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
            Usage(input_tokens=3, output_tokens=2, total_tokens=5, cached_tokens=1),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "prompt_cache_hit_tokens": 2},
            Usage(input_tokens=3, output_tokens=2, total_tokens=5, cached_tokens=2),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 3},
            Usage(input_tokens=3, output_tokens=2, total_tokens=5, cached_tokens=3),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "total_tokens": 9,
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(input_tokens=3, output_tokens=6, total_tokens=9, reasoning_tokens=4),
        ),
    ],
)
def test_usage_in_every_spelling(usage: Any, expected: Usage | None) -> None:
    assert whole({"content": "hi"}, usage=usage).usage == expected
    assert streamed(chunk({"content": "hi"}), chunk({}, "stop", usage=usage)).usage == expected
    assert streamed(chunk({"content": "hi"}), STOP, {"choices": [], "usage": usage}).usage == expected
    assert streamed(chunk({"content": "hi"}), chunk({}, "stop", x_groq={"id": "q", "usage": usage})).usage == expected


def test_usage_in_every_chunk_the_last_one_counts() -> None:
    chunks = [chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": n}) for n in (1, 2, 3)]
    assert streamed(*chunks, STOP).usage == Usage(input_tokens=1, output_tokens=3, total_tokens=4)


# Rules 8 and 9: errors


@pytest.mark.parametrize(
    ("status", "content", "kind", "code"),
    [
        (200, {"error": {"message": "x", "code": 502}}, ServerFailed, "502"),
        (200, {"error": {"message": "x", "code": 429, "metadata": {}}}, RateLimited, "429"),
        (200, {"error": {"code": 402, "message": "Insufficient credits"}}, QuotaExceeded, "402"),
        (200, {"error": {"message": "odd"}}, InvalidResponse, None),
        (200, {"error": "text only"}, InvalidResponse, None),
        (200, {"choices": None, "base_resp": {"status_code": 9999, "status_msg": "?"}}, InvalidResponse, "9999"),
        (200, {"code": "Throttling", "message": "slow", "request_id": "q"}, InvalidResponse, "Throttling"),
        (200, {"detail": "nope"}, InvalidResponse, None),
        (200, [{"error": {"code": 503, "message": "x"}}], Overloaded, "503"),
        (200, [], InvalidResponse, None),
        (200, "ok", InvalidResponse, None),
        (200, {"object": "error", "message": "bad", "code": 400}, BadRequest, "400"),
        (400, {"error": {"message": "m", "type": "invalid_request_error", "code": None}}, BadRequest, None),
        (400, {"error": "text"}, BadRequest, "text"),
        (400, {"message": "m"}, BadRequest, None),
        (400, {"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, BadRequest, "400"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, BadRequest, None),
        (400, {"error": {"message": {"deep": 1}}}, BadRequest, None),
        (400, {"error": {"metadata": {"raw": "upstream said"}, "code": 400}}, BadRequest, "400"),
        (400, {"error": {"message": "This model's maximum context length is 5"}}, ContextTooLong, None),
        (413, {"error": {"message": "context window exceeded"}}, ContextTooLong, None),
        (
            400,
            {"error": {"message": "x", "code": "content_policy_violation"}},
            ContentFiltered,
            "content_policy_violation",
        ),
        (400, {"error": {"message": "x", "code": "tool_use_failed"}}, BadRequest, "tool_use_failed"),
        (401, {"error": {"message": "x", "type": "invalid_request_error"}}, AuthenticationFailed, None),
        (402, {"error": {"message": "x"}}, QuotaExceeded, None),
        (403, {"statusCode": 403, "message": "x"}, PermissionDenied, "403"),
        (404, {"error": {"message": "x", "code": "model_not_found"}}, NotFound, "model_not_found"),
        (429, {"error": {"message": "x", "code": "insufficient_quota"}}, QuotaExceeded, "insufficient_quota"),
        (429, {"error": {"message": "x", "type": "insufficient_quota"}}, QuotaExceeded, None),
        (429, {"error": {"message": "Insufficient account balance"}}, QuotaExceeded, None),
        (429, {"statusCode": 429, "message": "slow"}, RateLimited, "429"),
        (429, None, RateLimited, None),
        (500, {"error": {"message": "context length table broke", "type": "server_error"}}, ServerFailed, None),
        (502, None, ServerFailed, None),
        (503, {"error": {"message": "x"}}, Overloaded, None),
        (529, {"error": {"type": "overloaded_error", "message": "x"}}, Overloaded, None),
        (418, {}, BadRequest, None),
        (400, [], BadRequest, None),
        (500, 7, ServerFailed, None),
    ],
)
def test_error_bodies(status: int, content: Any, kind: type[ProviderError], code: str | None) -> None:
    error = CODEC.parse_error(status, {"x-request-id": "q1"}, content)
    assert type(error) is kind
    assert (error.code, error.status, error.request_id, error.provider) == (code, status, "q1", "openai")
    assert error.message
    if status == 200:
        with pytest.raises(kind):
            CODEC.parse_reply(content)


def test_an_error_inside_a_choice() -> None:
    failed = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "upstream is down"}}
    with pytest.raises(ServerFailed, match="upstream is down"):
        CODEC.parse_reply({"choices": [{**failed, "message": {"content": ""}}]})
    with pytest.raises(ServerFailed, match="upstream is down"):
        streamed(chunk({"content": "hel"}), {"choices": [{**failed, "delta": {"content": ""}}]})
    fine = {"index": 0, "finish_reason": "stop", "error": None, "message": {"content": "hi"}}
    assert CODEC.parse_reply({"choices": [fine]}).reply == "hi"


def test_bodies_that_are_not_json() -> None:
    page = "<!DOCTYPE html><html><head><title>502 Bad\nGateway</title></head><body>secret</body></html>"
    for status, kind in ((200, InvalidResponse), (502, ServerFailed), (404, NotFound)):
        error = CODEC.parse_error(status, {}, None, page)
        assert type(error) is kind
        assert "HTML" in error.message
        assert "secret" not in error.message
    assert CODEC.parse_error(500, {}, None, "").message == "HTTP status 500 without a message"
    assert CODEC.parse_error(200, {}, None, "") is None  # a stream whose body has not been read
    assert CODEC.parse_error(500, {}, None, "a\x1b[31m\n" + "x" * 500).message.startswith("a\\x1b[31m\\nxxx")
    assert len(CODEC.parse_error(500, {}, None, "x" * 500).message) <= 202


@pytest.mark.parametrize(
    "content", [None, {}, {"choices": None}, {"choices": []}, {"choices": [{}]}, {"choices": [None]}]
)
def test_replies_without_a_message(content: Any) -> None:
    with pytest.raises(InvalidResponse):
        CODEC.parse_reply(content)


def test_an_answer_without_choices_raises_an_error_that_shows_the_body() -> None:
    with pytest.raises(InvalidResponse, match=r"no choices: \{'id': 'r', 'choices': \[\]\}"):
        CODEC.parse_reply({"id": "r", "choices": []})
    with pytest.raises(InvalidResponse, match=r"without an answer: \{'choices': None\}"):
        streamed({"choices": None})


@pytest.mark.parametrize("choices", [{}, "x", [[]], ["x"], [{"message": "x"}], [{"message": []}], [{"message": 5}]])
def test_replies_of_an_unknown_shape(choices: Any) -> None:
    with pytest.raises(InvalidResponse) as caught:
        CODEC.parse_reply({"choices": choices})
    assert caught.value.body == {"choices": choices}


@pytest.mark.parametrize("items", [["x"], {"a": 1}, "x", [None]])
def test_tool_calls_of_an_unknown_shape(items: Any) -> None:
    with pytest.raises(InvalidResponse, match="unknown shape"):
        whole({"tool_calls": items})
    with pytest.raises(InvalidResponse, match="unknown shape"):
        streamed(chunk({"tool_calls": items}))


def test_an_error_in_the_stream_keeps_earlier_deltas() -> None:
    for failure, kind in (
        ({"error": {"message": "x", "type": "server_error"}}, ServerFailed),
        (
            {"id": "r1", "error": {"code": 429, "message": "x"}, "choices": [{"delta": {}, "finish_reason": "error"}]},
            RateLimited,
        ),
        ({"choices": None, "base_resp": {"status_code": 1, "status_msg": "x"}}, InvalidResponse),
        (chunk({"content": "more"}, error={"code": 503, "message": "x"}), Overloaded),
    ):
        state = CODEC.new_state()
        assert CODEC.parse_event(state, json.dumps(chunk({"content": "hi"})).encode()) == [TextDelta("hi")]
        with pytest.raises(kind):
            CODEC.parse_event(state, json.dumps(failure).encode())


@pytest.mark.parametrize("data", ["<html>", "{", '{"choices": [{"delta": {"content": NaN}}]}', "7", '"x"', "[]"])
def test_chunks_of_an_unknown_shape(data: str) -> None:
    with pytest.raises(InvalidResponse):
        streamed(data)


# Rule 10: which call a piece belongs to


def test_interleaved_indexes() -> None:
    reply = streamed(
        calls(piece(0, "c1", "f", ""), piece(1, "c2", "g", "")),
        calls(piece(1, arguments='{"b"')),
        calls(piece(0, arguments='{"a"'), piece(1, arguments=":2}")),
        calls(piece(0, arguments=":1}")),
        CALLED,
    )
    assert called(reply) == [("c1", "f", '{"a":1}'), ("c2", "g", '{"b":2}')]


def test_indexes_that_skip_or_start_late() -> None:
    reply = streamed(calls(piece(3, "c1", "f", "{}")), calls(piece(7, "c2", "g", "{}")), CALLED)
    assert called(reply) == [("c1", "f", "{}"), ("c2", "g", "{}")]


def test_indexes_that_are_texts() -> None:
    pieces: list[Any] = [piece(name="f", arguments=""), piece(arguments='{"a":1}')]
    items = [{**item, "index": index} for index in ("0", "1") for item in pieces]
    expected = [(FIRST, "f", '{"a":1}'), (SECOND, "f", '{"a":1}')]
    assert called(streamed(*(calls(item) for item in items), CALLED)) == expected


def test_missing_indexes() -> None:
    reply = streamed(
        calls(piece(None, "c1", "f", '{"a"')),
        calls(piece(None, arguments=":1}")),
        calls(piece(None, "c2", "g", "")),
        calls(piece(None, "c2", None, '{"b":2}')),
        CALLED,
    )
    assert called(reply) == [("c1", "f", '{"a":1}'), ("c2", "g", '{"b":2}')]


def test_every_call_numbered_zero() -> None:
    expected = [("c1", "f", '{"a":1}'), ("c2", "f", '{"a":2}'), ("c3", "g", "{}")]
    items = [piece(0, *call) for call in expected]
    assert called(streamed(calls(*items), CALLED)) == expected
    assert called(streamed(*(calls(item) for item in items), CALLED)) == expected
    assert called(whole({"tool_calls": items})) == expected


def test_every_call_numbered_zero_and_no_ids() -> None:
    items = [piece(0, None, "f", '{"a":1}'), piece(0, None, "f", '{"a":2}'), piece(0, None, "g", "")]
    expected = [(FIRST, "f", '{"a":1}'), (SECOND, "f", '{"a":2}'), (THIRD, "g", "{}")]
    assert called(streamed(calls(*items), CALLED)) == expected
    assert called(streamed(*(calls(item) for item in items), CALLED)) == expected


def test_calls_without_arguments_in_one_list() -> None:
    items = [piece(None, None, "f", ""), piece(None, None, "g", "")]
    assert called(streamed(calls(*items), CALLED)) == [(FIRST, "f", "{}"), (SECOND, "g", "{}")]


def test_an_id_that_comes_late() -> None:
    reply = streamed(calls(piece(0, None, "f", "")), calls(piece(0, "c1", None, "{}")), CALLED)
    assert called(reply) == [("c1", "f", "{}")]
    reply = streamed(calls(piece(None, None, "f", "")), calls(piece(None, "c1", None, '{"a":1}')), CALLED)
    assert called(reply) == [("c1", "f", '{"a":1}')]


def test_a_new_id_on_every_piece_of_one_call() -> None:
    reply = streamed(
        calls(piece(0, "c1", "f", '{"a"')), calls(piece(0, "c9", None, ":")), calls(piece(0, "c8", "", "1}")), CALLED
    )
    assert called(reply) == [("c1", "f", '{"a":1}')]


# Rule 11: names


def test_arguments_under_another_id_do_not_change_a_complete_call() -> None:
    chunks = [calls(piece(0, "a", "f", '{"a":1}')), calls(piece(0, "b", arguments='{"b":2}'))]
    assert called(streamed(*chunks, CALLED)) == [("a", "f", '{"a":1}'), ("b", "", '{"b":2}')]


def test_a_name_repeated_with_every_piece() -> None:
    pieces = ['{"a"', ":", "1", "}"]
    for number in ("c1", None):
        reply = streamed(*(calls(piece(0, number, "add", text)) for text in pieces), CALLED)
        assert [(c.name, c.arguments) for c in reply.tool_calls] == [("add", '{"a":1}')]


def test_a_name_in_pieces() -> None:
    reply = streamed(
        calls(piece(0, "c1", "get_")), calls(piece(0, name="weather")), calls(piece(0, name="", arguments="{}")), CALLED
    )
    assert called(reply) == [("c1", "get_weather", "{}")]
    reply = streamed(calls(piece(0, "c1", "get_")), calls(piece(0, name="get_weather")), CALLED)
    assert called(reply) == [("c1", "get_weather", "{}")]


def test_empty_ids_and_names_in_later_pieces() -> None:
    for empty in ("", None):
        reply = streamed(
            calls(piece(0, "c1", "f", "")),
            calls(piece(0, empty, empty, '{"a"')),
            calls(piece(0, empty, empty, ":1}")),
            CALLED,
        )
        assert called(reply) == [("c1", "f", '{"a":1}')]


def test_names_with_a_models_own_marks() -> None:
    assert called(whole({"tool_calls": [piece(0, "functions.f:0", "functions.f", "{}")]})) == [
        ("functions.f:0", "f", "{}")
    ]
    assert called(whole({"tool_calls": [piece(0, "c", "f<|channel|>commentary", "{}")]})) == [("c", "f", "{}")]


# Rule 12: whole calls, and calls that come twice


def test_a_whole_call_with_finish_and_usage_in_one_chunk() -> None:
    item = piece(0, "c1", "f", {"a": 1})
    reply = streamed(chunk({"tool_calls": [item]}, "tool_calls", usage={"total_tokens": 3}))
    assert called(reply) == [("c1", "f", '{"a":1}')]
    assert reply.usage == Usage(total_tokens=3)


def test_a_whole_call_that_comes_twice_runs_once() -> None:
    for item in (
        piece(0, "c1", "f", '{"a":1}'),
        piece(0, "c1", "f", {"a": 1}),
        piece(None, "c1", "f", '{"a":1}'),
        piece(0, "c1", "f", "{}"),
        piece(0, "c1", "f", ""),
    ):
        once = called(streamed(calls(item), CALLED))
        assert called(streamed(calls(item), calls(item), CALLED)) == once
        assert len(once) == 1


def test_arguments_repeated_at_the_end() -> None:
    pieces = [calls(piece(0, "c1", "f", '{"a"')), calls(piece(0, arguments=":1}"))]
    for again in (piece(0, arguments='{"a":1}'), piece(0, "c1", "f", '{"a":1}'), piece(0, None, "f", '{"a":1}')):
        assert called(streamed(*pieces, calls(again), CALLED)) == [("c1", "f", '{"a":1}')]


def test_a_piece_that_comes_twice_breaks_the_json_and_is_not_run_with_a_wrong_value() -> None:
    reply = streamed(calls(piece(0, "c1", "f", '{"a')), calls(piece(0, arguments='{"a')), CALLED)
    assert called(reply) == [("c1", "f", '{"a{"a')]


def test_empty_braces_before_the_real_arguments() -> None:
    reply = streamed(
        calls(piece(0, "c1", "f", "{}")), calls(piece(0, arguments='{"a"')), calls(piece(0, arguments=":1}")), CALLED
    )
    assert called(reply) == [("c1", "f", '{"a":1}')]


def test_the_last_event_is_the_whole_message() -> None:
    last = {"id": "r1", "object": "chat.completion", **body({"content": "hello", "reasoning_content": "hm"})}
    reply = streamed(chunk({"reasoning_content": "hm"}), chunk({"content": "hel"}), last, done=False)
    assert (reply.reply, reply.message.reasoning) == ("hello", "hm")
    for ours in (piece(0, "c1", "f", '{"a":1}'), piece(None, None, "f", '{"a":1}'), piece(0, "c1", "f", '{"a"')):
        last = {"object": "chat.completion", **body({"tool_calls": [piece(0, "c1", "f", '{"a":1}')]}, "tool_calls")}
        reply = streamed(calls(ours), last, done=False)
        assert [(c.name, c.arguments) for c in reply.tool_calls] == [("f", '{"a":1}')]


def test_chunks_under_the_name_of_whole_replies() -> None:
    chunks = [chunk({"content": "a"}), chunk({"content": "b"}), chunk({"content": "c"}, "stop")]
    assert streamed(*({**item, "object": "chat.completion"} for item in chunks)).reply == "abc"


def test_a_whole_reply_as_the_only_event() -> None:
    reply = streamed({"object": "chat.completion", **body({"content": "hi", "tool_calls": [piece(0, "c", "f", "{}")]})})
    assert (reply.reply, called(reply)) == ("hi", [("c", "f", "{}")])


# Rule 13: legal oddities


def test_empty_choices_null_deltas_and_repeated_roles() -> None:
    reply = streamed(
        {"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"id": "r1", "choices": None},
        {"id": "r1"},
        chunk(None),
        {"id": "r1", "choices": [{"index": 0}]},
        {"id": "r1", "choices": [{"index": 0, "content_filter_results": {}, "finish_reason": None}]},
        {"id": "r1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "h"}}]},
        chunk({"role": "assistant", "content": "i", "tool_calls": None, "name": "Bot"}),
        chunk({"role": "assistant", "content": None}),
        chunk({"content": ""}, ""),
        chunk({"content": ""}, "null"),
        "null",
        STOP,
        {"id": "r1", "choices": []},
    )
    assert (reply.reply, reply.finish_reason, reply.response_id) == ("hi", "stop", "r1")


def test_only_the_first_choice_is_read() -> None:
    both = [{"index": 1, "delta": {"content": "B"}}, {"index": 0, "delta": {"content": "A"}}]
    reply = streamed(chunk({"role": "assistant", "content": ""}), {"choices": both}, {"choices": both[:1]}, STOP)
    assert reply.reply == "A"
    data = body({"content": "A"})
    data["choices"].append({"index": 1, "message": {"content": "B"}})
    assert CODEC.parse_reply(data).reply == "A"


def test_choices_without_an_index() -> None:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in "hi"]
    assert streamed(*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]}).reply == "hi"
    assert streamed(*chunks).reply == "hi"


def test_legacy_function_calls() -> None:
    reply = whole({"content": None, "function_call": {"name": "f", "arguments": {"a": 1}}}, "function_call")
    assert (called(reply), reply.finish_reason) == ([(FIRST, "f", '{"a":1}')], "tool_calls")
    both = {"function_call": {"name": "f", "arguments": "{}"}, "tool_calls": [piece(0, "c1", "f", "{}")]}
    assert called(whole(both)) == [("c1", "f", "{}")]
    assert called(
        streamed(calls(piece(0, "c1", "f", "{}")), chunk({"function_call": both["function_call"]}), CALLED)
    ) == [("c1", "f", "{}")]


# Rules 14 and 15: framing and the end


def test_comments_crlf_bom_and_retry_lines() -> None:
    lines = [
        "\ufeff: OPENROUTER PROCESSING",
        "",
        "retry: 3000",
        "id: 7",
        "event: message",
        "data:" + json.dumps(chunk({"content": "你"}), ensure_ascii=False),
        "",
        ": keep-alive",
        "",
        "",
        "data: " + json.dumps(chunk({"content": "好"})),
        "",
        "data:",
        "",
        "data: " + json.dumps(STOP),
        "",
        "data: [DONE]",
        "",
        "",
    ]
    for end in ("\n", "\r\n", "\r"):
        assert read_stream(CODEC, end.join(lines).encode()).reply == "你好"


def test_the_end_of_a_stream() -> None:
    hi = chunk({"content": "hi"})
    assert streamed(hi, STOP, done=False).reply == "hi"  # no [DONE] after a finish reason
    assert streamed(hi).finish_reason == "stop"  # [DONE] without a finish reason is an end mark too
    for unfinished in ((hi,), (hi, chunk({}, "")), ()):
        builder, _ = read_frames(CODEC, frames_of(CODEC, [sse(*unfinished, done=False)]))
        assert builder.done is None
    builder, _ = read_frames(CODEC, frames_of(CODEC, [sse(calls(piece(0, "c1", "f", "{}")), done=False)]))
    assert builder.done is None
    assert builder.message().tool_calls == ()  # a call of an unfinished stream is not run
    with pytest.raises(InvalidResponse, match="without an answer"):
        streamed()


def test_nothing_counts_after_the_end() -> None:
    late = sse(chunk({"content": "hi"}), STOP) + sse(chunk({"content": "late"}), calls(piece(0, "c", "f", "{}")), STOP)
    reply = read_stream(CODEC, late)
    assert (reply.reply, reply.tool_calls) == ("hi", ())


def test_html_in_place_of_a_stream_raises_an_error() -> None:
    builder, _ = read_frames(CODEC, frames_of(CODEC, [b"<html><body>busy</body></html>"]))
    assert builder.done is None


# Text that cannot be stored, refusals, order


def test_lone_surrogates_become_replacement_characters() -> None:
    call = b'{"index":0,"id":"c","function":{"name":"f","arguments":"{\\"a\\":\\"\\udfff\\"}"}}'
    delta = b'{"content":"a\\ud800b","tool_calls":[' + call + b"]}"
    data = b'{"id":"r1","choices":[{"index":0,"delta":' + delta + b',"finish_reason":"stop"}]}'
    builder, _ = read_frames(CODEC, [Frame(data)])
    reply = builder.reply()
    assert reply.reply == "a\ufffdb"
    assert reply.tool_calls[0].arguments == '{"a":"\ufffd"}'


def test_a_surrogate_pair_escaped_inside_arguments_in_two_pieces() -> None:
    reply = streamed(calls(piece(0, "c", "f", '{"a":"\\ud83d')), calls(piece(0, arguments='\\ude00"}')), CALLED)
    assert json.loads(reply.tool_calls[0].arguments) == {"a": "😀"}


def test_refusals() -> None:
    reply = whole({"content": None, "refusal": "I can't."})
    assert (reply.finish_reason, reply.reply, reply.message.refusal) == ("refusal", "I can't.", "I can't.")
    chunks = [chunk({"refusal": "I "}), chunk({"refusal": "can't."}), STOP]
    assert streamed(*chunks).message == reply.message
    _, events = read_frames(CODEC, frames_of(CODEC, [sse(*chunks)]))
    assert events == [RefusalDelta("I "), RefusalDelta("can't.")]
    assert whole({"content": [{"type": "refusal", "refusal": "No."}]}).message.refusal == "No."


def test_deltas_come_one_by_one() -> None:
    state = CODEC.new_state()
    chunks = [
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "hi"}),
        chunk({"content": "ho"}),
        calls(piece(0, "c1", "f", "")),
        calls(piece(0, arguments='{"a":1}')),
    ]
    found = [list(CODEC.parse_event(state, json.dumps(item).encode())) for item in chunks]
    assert found == [
        [ReasoningDelta("hm")],
        [TextDelta("hi")],
        [TextDelta("ho")],
        [ToolCallDelta(0, "c1", "f", "")],
        [ToolCallDelta(0, "", "", '{"a":1}')],
    ]


def test_the_first_delta_of_a_call_has_its_name() -> None:
    _, events = read_frames(CODEC, frames_of(CODEC, [sse(calls(piece(0, "c1", "f", "{}")), CALLED)]))
    assert [event for event in events if isinstance(event, ToolCallStart)] == [ToolCallStart("c1", 0, "f")]


def test_long_arguments_take_linear_work() -> None:
    state = CODEC.new_state()
    first = calls(piece(0, "c1", "f", '{"a":"'))
    CODEC.parse_event(state, json.dumps(first).encode())
    data = json.dumps(calls(piece(0, arguments="x}x}"))).encode()
    for _ in range(20_000):
        CODEC.parse_event(state, data)
    (call,) = state.calls.opened
    assert len(call.pieces) == 20_001


# Anything at all

JUNK: tuple[Any, ...] = (
    None,
    "",
    "x",
    0,
    -1,
    2.5,
    True,
    [],
    {},
    [None],
    ["x"],
    [{}],
    {"a": 1},
    {"index": "0"},
    "\ufffd",
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _put(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = value.copy()
    copy[path[0]] = _put(value[path[0]], path[1:], junk)
    return copy


FULL: dict[str, Any] = {
    "content": "hi",
    "reasoning_content": "hm",
    "reasoning": "hm",
    "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}],
    "refusal": "no",
    "function_call": {"name": "f", "arguments": "{}"},
    "tool_calls": [piece(0, "c1", "f", '{"a"', type="function"), piece(1, "c2", "g", {"b": [1]})],
}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
ERROR_BODY = {
    "error": {
        "message": "m",
        "type": "t",
        "code": "c",
        "param": "p",
        "innererror": {"code": "x"},
        "metadata": {"raw": 1},
    },
    "base_resp": {"status_code": 1, "status_msg": "m"},
    "message": "m",
    "code": 5,
    "detail": [{"msg": "m"}],
    "request_id": "q",
    "object": "error",
    "type": "t",
}


@pytest.mark.parametrize(
    "codec", [CODEC, TAGGED, OpenAICodec("m", profile=MINIMAX)], ids=["plain", "tagged", "minimax"]
)
def test_junk_in_any_place_gives_a_reply_or_a_provider_error(codec: OpenAICodec) -> None:
    replies = body(FULL, "stop", usage=USAGE, error=None, x_groq={"usage": USAGE}, object="chat.completion")
    chunks = chunk(FULL, None, usage=USAGE, error=None)
    for template, stream in ((replies, False), (chunks, True)):
        for place in _places(template):
            for junk in JUNK:
                data = _put(template, place, junk)
                try:
                    reply = (
                        streamed(chunk({"content": "a"}), data, data, STOP, codec=codec)
                        if stream
                        else codec.parse_reply(data)
                    )
                except ProviderError:
                    continue
                except AssertionError:
                    assert stream, "a whole reply has no other end"
                    continue
                for call in reply.tool_calls:
                    assert isinstance(call.id, str)
                    assert call.id
                    assert isinstance(call.arguments, str)
                assert codec.build_request(ChatCall(messages=(reply.message,))).content


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_junk_in_any_error_body_gives_an_error_or_nothing(status: int) -> None:
    for place in _places(ERROR_BODY):
        for junk in JUNK:
            data = _put(ERROR_BODY, place, junk)
            error = CODEC.parse_error(status, {"retry-after": "soon"}, data, "text")
            if error is None and status == 200:  # no error to be seen, and no answer either
                with pytest.raises(InvalidResponse):
                    CODEC.parse_reply(data)
                continue
            assert isinstance(error, ProviderError)
            assert error.message
            assert error.code is None or isinstance(error.code, str)


def test_an_exactly_repeated_call_runs_once_in_replies_and_streams():
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    other = {**call, "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
    message = {"role": "assistant", "tool_calls": [call, call, other]}
    reply = OpenAICodec("m").parse_reply({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert [c.arguments for c in reply.tool_calls] == ['{"city":"Paris"}', '{"city":"Rome"}']
    assert len({c.id for c in reply.tool_calls}) == 2
    numbered = [{**item, "index": index} for index, item in enumerate(message["tool_calls"])]
    for chunks in ([calls(*numbered)], [calls(item) for item in numbered]):
        assert called(streamed(*chunks, CALLED)) == called(reply)


def test_an_invalid_entry_of_reasoning_details_does_not_fail_the_answer():
    for odd in ([5, None, {"type": "reasoning.text", "text": "hm"}], "text", {"a": 1}, 5):
        message = {"role": "assistant", "content": "hi", "reasoning_details": odd}
        reply = OpenAICodec("m").parse_reply({"choices": [{"message": message, "finish_reason": "stop"}]})
        assert reply.reply == "hi"
