from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.messages import ImagePart, UserMessage
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    InvalidResponse,
    MessageError,
    ParameterError,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.baichuan import BaichuanCodec, BaichuanSignatureAuth
from lmagent.providers.base import Request
from lmagent.toolkit.schema import OutputSchema
from tests.providers import rules_baichuan
from tests.providers.histories import HISTORIES
from tests.providers.wire import sent_json, signed
from tests.providers.wire_cn import (
    ASK,
    CHAT,
    RIVER,
    SYSTEM,
    assert_error,
    assert_reply,
    assert_request,
    assert_stream,
    chat,
    load,
    read_pieces,
)

NOW = 1_700_000_000.7
AUTH = BaichuanSignatureAuth(Secret("fake-baichuan-key"), Secret("fake-baichuan-secret"))
WARM = {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "with_search_enhance": False}


def codec() -> BaichuanCodec:
    return BaichuanCodec("Baichuan2-53B")


def line(content: str, reason: str = "", **fields: Any) -> bytes:
    message = {"role": "assistant", "content": content, "finish_reason": reason}
    return json.dumps({"code": 0, "msg": "success", "data": {"messages": [message]}, **fields}).encode() + b"\n"


@pytest.mark.parametrize(
    ("case", "call"),
    [("01-v1-chat-plain", chat(CHAT, parameters=WARM)), ("02-v1-chat-stream", chat(CHAT, stream=True))],
)
def test_requests_are_what_upstream_sends(case, call):
    recorded = load("baichuan", case)
    ours = signed(codec().build_request(call), AUTH, NOW)
    rules_baichuan.check(sent_json(ours))
    headers = dict(recorded.request["headers"])
    assert headers.pop("x-bc-request-id") == "your requestId"  # a placeholder that upstream copied from the docs
    assert_request(ours, replace(recorded, request={**recorded.request, "headers": headers}))
    assert ours.content == recorded.request["body_text"].encode()


def test_the_signature_is_the_documented_vector():
    content = b'{"model": "Baichuan2-53B", "messages": [{"role": "user", "content": "hi"}]}'
    request = signed(Request(url="https://api.baichuan-ai.com/v1/chat", content=content), AUTH, NOW)
    assert request.headers == {
        "authorization": "Bearer fake-baichuan-key",
        "x-bc-timestamp": "1700000000",
        "x-bc-sign-algo": "MD5",
        "x-bc-signature": "ee7e8ca70d967616b1e2c03e08f18642",
    }
    assert request.content == content


def test_the_signature_covers_exactly_the_bytes_that_are_sent():
    request = codec().build_request(chat(UserMessage("你好")))
    assert "你好".encode() in request.content
    one, other = signed(request, AUTH, NOW), signed(replace(request, content=request.content + b" "), AUTH, NOW)
    assert one.headers["x-bc-signature"] != other.headers["x-bc-signature"]
    assert one.content == request.content


def test_replies_are_read_as_expected():
    recorded = load("baichuan", "01-v1-chat-plain")
    assert codec().parse_error(200, {}, recorded.json) is None
    assert_reply(codec().parse_reply(recorded.json), recorded)


def test_streams_are_read_as_expected_however_they_are_cut():
    assert_stream(codec(), load("baichuan", "02-v1-chat-stream"))


def test_the_last_message_is_the_answer_and_completion_tokens_count_too():
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "finish_reason": "length"}]
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    reply = codec().parse_reply({"code": 0, "data": {"messages": messages}, "usage": usage})
    assert (reply.reply, reply.finish_reason, reply.usage.output_tokens, reply.usage.total_tokens) == (
        "y",
        "length",
        2,
        3,
    )


def test_a_stream_without_usage_ends_with_its_finish_reason():
    reply, _ = read_pieces(codec(), [line("a"), line("b", "stop")])
    assert (reply.reply, reply.finish_reason, reply.usage) == ("ab", "stop", None)
    reply, _ = read_pieces(codec(), [line("a"), line("b", "stop").rstrip()])  # the last newline may be missing
    assert reply.reply == "ab"
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [line("a")])


@pytest.mark.parametrize(
    "strange", [{}, [], None, "x", {"data": None}, {"data": {"messages": []}}, {"data": {"messages": [{}]}}]
)
def test_unknown_shapes_are_invalid_responses(strange):
    with pytest.raises(InvalidResponse):
        codec().parse_reply(strange)


def test_a_line_that_is_not_json_is_an_invalid_response():
    with pytest.raises(InvalidResponse):
        read_pieces(codec(), [b"data: {}\n"])


# Errors


def test_error_of_the_case():
    recorded = load("baichuan", "70-v1-chat-error-apikey")
    assert_error(codec().parse_error(recorded.status, {}, recorded.json), recorded)


@pytest.mark.parametrize(
    ("code", "message", "kind", "retryable"),
    [
        (1, "system error", ServerFailed, True),
        (10000, "invalid parameters", BadRequest, False),
        (10100, "m", AuthenticationFailed, False),
        (10101, "m", AuthenticationFailed, False),
        (10102, "m", AuthenticationFailed, False),
        (10103, "m", AuthenticationFailed, False),
        (10104, "m", AuthenticationFailed, False),
        (10105, "m", AuthenticationFailed, False),
        (10200, "service unavailable", ServerFailed, True),
        (10203, "Rate limit reached", RateLimited, True),
        (10203, "请求频率超限", RateLimited, True),
        (77777, "m", InvalidResponse, False),
    ],
)
def test_error_codes_are_sorted(code, message, kind, retryable):
    error = codec().parse_error(200, {"x-bc-request-id": "r1"}, {"code": code, "msg": message, "data": None})
    assert type(error) is kind
    assert (error.retryable, error.code, error.request_id) == (retryable, str(code), "r1")
    assert message in error.message
    assert ("clock" in error.message) is (code in (10103, 10104))


def test_errors_without_a_body_are_sorted_by_status():
    assert type(codec().parse_error(429, {"retry-after": "3"}, None, "slow")) is RateLimited
    assert codec().parse_error(429, {"retry-after": "3"}, None).retry_after == 3
    assert type(codec().parse_error(500, {}, {})) is ServerFailed


def test_an_error_inside_and_in_place_of_a_stream_is_raised():
    error = json.dumps({"code": 1, "msg": "system error"}).encode()
    for chunks in ([line("a"), error + b"\n"], [error]):
        with pytest.raises(ServerFailed):
            read_pieces(codec(), chunks)


# Histories, parameters


@pytest.mark.parametrize("name", HISTORIES)
def test_any_history_can_be_sent(name):
    rules_baichuan.check(sent_json(codec().build_request(chat(HISTORIES[name]))))


def test_system_text_is_put_before_the_user_message():
    request = sent_json(codec().build_request(chat(SYSTEM, RIVER)))
    assert request["messages"] == [{"role": "user", "content": f"{SYSTEM.content}\n\n{RIVER.text}"}]


def test_features_that_the_old_api_lacks_are_refused():
    assert not codec().features.tools
    with pytest.raises(MessageError, match="tool_mode"):
        codec().build_request(chat(ASK, tools=True))
    with pytest.raises(MessageError, match="an image"):
        codec().build_request(chat(UserMessage((ImagePart(url="http://x/y.png"),))))


def test_the_system_text_describes_an_output_schema():
    call = chat(RIVER, output_schema=OutputSchema(name="r", schema={"type": "object"}))
    content = sent_json(codec().build_request(call))["messages"][0]["content"]
    assert '{"type":"object"}' in content
    assert content.endswith(RIVER.text)


def test_parameters_are_translated():
    def rendered(**parameters: Any) -> Any:
        request = sent_json(codec().build_request(chat(RIVER, parameters=parameters)))
        return {name: request[name] for name in request if name not in ("model", "messages")}

    assert rendered() == {}
    assert rendered(temperature=0, top_p=1, top_k=0) == {"parameters": {"temperature": 0, "top_p": 0.99, "top_k": 0}}
    assert rendered(with_search_enhance=True) == {"parameters": {"with_search_enhance": True}}
    assert rendered(extra_body={"x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    "parameters", [{"temperature": 1.1}, {"top_k": 21}, {"max_tokens": 5}, {"stop": ["a"]}, {"seed": 1}]
)
def test_parameters_that_cannot_be_expressed_are_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        codec().build_request(chat(RIVER, parameters=parameters))
