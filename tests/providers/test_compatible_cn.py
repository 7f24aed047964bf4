"""The OpenAI-shaped endpoints of Wenxin (v2), MiniMax (v2 and current) and Baichuan (current)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.messages import AssistantMessage, ToolMessage
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.base import BearerAuth, ChatCall, Codec, Request
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.providers.openai.variants import MinimaxV2Codec, WenxinV2Codec
from lmagent.providers.openai.vendor_profiles import BAICHUAN, MINIMAX, MINIMAX_V2
from tests.providers import rules_openai, rules_wenxin
from tests.providers.histories import HISTORIES
from tests.providers.wire import signed
from tests.providers.wire_cn import (
    ASK,
    CHAT,
    RIVER,
    SYSTEM,
    TOLD,
    WEATHER,
    WEATHER_CALL,
    Case,
    assert_error,
    assert_reply,
    assert_request,
    assert_stream,
    chat,
    load,
    names,
    read_pieces,
)

WARM = {"temperature": 0.7, "top_p": 0.8}
WARM_128 = {**WARM, "max_tokens": 128}
THOUGHT = (*ASK, AssistantMessage("<think>\nI need the tool.\n</think>\n\n", (WEATHER_CALL,)), TOLD[2])

CODECS: dict[str, Codec] = {
    "wenxin": WenxinV2Codec("ernie-4.0-turbo-8k"),
    "minimax": MinimaxV2Codec("MiniMax-M2.1"),
    "minimax_v2": MinimaxV2Codec("abab6-chat", profile=MINIMAX_V2),
    "baichuan": OpenAICodec("Baichuan4", profile=BAICHUAN),
}

# Body members of the recordings that we leave out: telemetry, defaults said aloud.
NOISE = ("extra_parameters", "tool_choice")
# Without it these providers send no usage in streams.
USAGE = ("stream_options",)

REQUESTS: list[tuple[str, str, ChatCall, tuple[str, ...]]] = [
    ("wenxin", "30-v2-plain-qianfan-sdk", chat(SYSTEM, RIVER, parameters=WARM), ()),
    ("wenxin", "31-v2-plain", chat(SYSTEM, CHAT, parameters=WARM_128), ()),
    ("wenxin", "32-v2-tools", chat(SYSTEM, ASK, tools=True), ()),
    ("wenxin", "33-v2-tool-result", chat(SYSTEM, TOLD, tools=True), ()),
    ("wenxin", "34-v2-stream", chat(RIVER, stream=True), USAGE),
    ("wenxin", "35-v2-stream-tools", chat(SYSTEM, ASK, tools=True, stream=True), USAGE),
    ("minimax_v2", "30-v2-plain", chat(SYSTEM, RIVER, parameters=WARM_128), ()),
    ("minimax_v2", "31-v2-tools", chat(SYSTEM, ASK, tools=True), ()),
    ("minimax_v2", "32-v2-tool-result", chat(SYSTEM, TOLD, tools=True), ()),
    ("minimax_v2", "33-v2-stream", chat(RIVER, stream=True), ()),
    ("minimax_v2", "34-v2-stream-tools", chat(ASK, tools=True, stream=True), ()),
    ("minimax", "50-openai-compatible-plain", chat(SYSTEM, CHAT, parameters=WARM_128), ()),
    ("minimax", "51-openai-compatible-tools", chat(SYSTEM, ASK, tools=True), ()),
    ("minimax", "52-openai-compatible-tool-result", chat(SYSTEM, THOUGHT, tools=True), ()),
    ("minimax", "53-openai-compatible-stream", chat(RIVER, stream=True), ()),
    ("minimax", "54-openai-compatible-stream-tools", chat(SYSTEM, ASK, tools=True, stream=True), ()),
    ("baichuan", "20-v1-chat-completions-plain", chat(SYSTEM, CHAT, parameters=WARM_128), ()),
    ("baichuan", "21-v1-chat-completions-tools", chat(SYSTEM, ASK, tools=True), ()),
    ("baichuan", "22-v1-chat-completions-tool-result", chat(SYSTEM, TOLD, tools=True), ()),
    ("baichuan", "23-v1-chat-completions-stream", chat(RIVER, stream=True), ()),
    ("baichuan", "24-v1-chat-completions-stream-tools", chat(SYSTEM, ASK, tools=True, stream=True), ()),
]


def folder(name: str) -> str:
    return name.partition("_")[0]


def sent(codec: Codec, call: ChatCall, case: Case) -> Request:
    key = case.request["headers"]["authorization"].removeprefix("Bearer ")
    return signed(codec.build_request(call), BearerAuth(Secret(key)))


def unpacked(body: Any) -> Any:
    """Return a body with schemas in JSON text decoded, because their spacing has no meaning."""
    for tool in body.get("tools", []):
        assert isinstance(tool["function"]["parameters"], str)
        tool["function"]["parameters"] = json.loads(tool["function"]["parameters"])
    return body


@pytest.mark.parametrize(("name", "case", "call", "added"), REQUESTS, ids=[f"{r[0]}-{r[1]}" for r in REQUESTS])
def test_requests_are_what_the_sdks_send(name, case, call, added):
    recorded = load(folder(name), case)
    request = sent(CODECS[name], call, recorded)
    if name == "minimax_v2":
        request = replace(request, content=json.dumps(unpacked(json.loads(request.content))).encode())
        body = unpacked(json.loads(json.dumps(recorded.request["json"])))
        recorded = replace(recorded, request={**recorded.request, "json": body})
    noise = NOISE if call.stream else (*NOISE, "stream")
    assert_request(request, recorded, without=noise, added=added)


@pytest.mark.parametrize(
    ("name", "case"), [row[:2] for row in REQUESTS if not row[2].stream], ids=lambda value: str(value)
)
def test_replies_are_read_as_expected(name, case):
    recorded = load(folder(name), case)
    codec = CODECS[name]
    assert codec.parse_error(200, {}, recorded.json) is None
    assert_reply(codec.parse_reply(recorded.json), recorded)


@pytest.mark.parametrize(("name", "case"), [row[:2] for row in REQUESTS if row[2].stream], ids=lambda value: str(value))
def test_streams_are_read_as_expected_however_they_are_cut(name, case):
    assert_stream(CODECS[name], load(folder(name), case))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("wenxin", "74-v2-error-rate"),
        ("minimax", "70-error-rate-http200"),
        ("minimax_v2", "71-error-auth-http200"),
        ("minimax", "72-openai-compatible-error"),
        ("baichuan", "71-error-rate"),
    ],
)
def test_errors_of_the_cases(name, case):
    recorded = load(folder(name), case)
    assert_error(CODECS[name].parse_error(recorded.status, {}, recorded.json), recorded)


@pytest.mark.parametrize(
    ("name", "status", "body", "kind", "retryable"),
    [
        ("wenxin", 400, {"code": "malformed_json", "message": "m"}, BadRequest, False),
        ("wenxin", 400, {"code": "invalid_messages", "message": "m"}, BadRequest, False),
        ("wenxin", 400, {"code": "invalid_argument", "message": "m"}, BadRequest, False),
        ("wenxin", 400, {"code": "invalid_model", "message": "m"}, BadRequest, False),
        ("wenxin", 400, {"code": "characters_too_long", "message": "m"}, ContextTooLong, False),
        ("wenxin", 400, {"code": "tokens_too_long", "message": "m"}, ContextTooLong, False),
        ("wenxin", 400, {"code": "image_url_unsafe", "type": "unsafe_request", "message": "m"}, ContentFiltered, False),
        ("wenxin", 401, {"code": "invalid_iam_token", "message": "m"}, AuthenticationFailed, False),
        ("wenxin", 429, {"code": "tpm_rate_limit_exceeded", "message": "m"}, RateLimited, True),
        ("wenxin", 500, {"code": "internal", "message": "m"}, ServerFailed, True),
        ("baichuan", 401, {"message": "Invalid API key"}, AuthenticationFailed, False),
        ("baichuan", 429, {"message": "Rate limit reached for requests"}, RateLimited, True),
        ("baichuan", 429, {"message": "Insufficient account balance"}, QuotaExceeded, False),
        ("baichuan", 500, {"message": "m"}, ServerFailed, True),
    ],
)
def test_error_bodies_are_sorted(name, status, body, kind, retryable):
    error = CODECS[name].parse_error(status, {}, {"error": body, "id": "as-1"})
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.request_id == "as-1"


@pytest.mark.parametrize(("code", "kind"), [(1001, RequestTimeout), (1008, QuotaExceeded), (1027, ContentFiltered)])
@pytest.mark.parametrize("name", ["minimax", "minimax_v2"])
def test_minimax_hides_errors_in_replies_and_streams(name, code, kind: type[ProviderError]):
    body = {"choices": None, "base_resp": {"status_code": code, "status_msg": "m"}}
    assert type(CODECS[name].parse_error(200, {}, body)) is kind
    with pytest.raises(kind):
        read_pieces(CODECS[name], [f"data: {json.dumps(body)}\n\n".encode()])


def test_minimax_gets_its_thinking_back_unchanged():
    codec = CODECS["minimax"]
    reply = codec.parse_reply(load("minimax", "51-openai-compatible-tools").json)
    call = chat(SYSTEM, ASK, reply.message, ToolMessage(WEATHER, reply.tool_calls[0].id), tools=True)
    recorded = load("minimax", "52-openai-compatible-tool-result")
    assert_request(sent(codec, call, recorded), recorded)


def test_minimax_search_results_are_not_part_of_the_answer():
    events = [
        {"choices": [{"index": 0, "delta": {"role": "tool", "content": "results"}}]},
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "It rains."}, "finish_reason": "stop"}]},
    ]
    stream = [f"data: {json.dumps({'object': 'chat.completion.chunk', **event})}\n\n".encode() for event in events]
    assert read_pieces(CODECS["minimax_v2"], stream)[0].reply == "It rains."


def test_safety_hits_are_filtered_and_keep_their_text():
    choice = {"index": 0, "message": {"role": "assistant", "content": "no."}, "finish_reason": "normal", "flag": 1}
    for name, marks in (
        ("wenxin", {"need_clear_history": True, "ban_round": -1}),
        ("minimax_v2", {"output_sensitive": True, "output_sensitive_type": 2}),
        ("minimax", {"input_sensitive": True}),
    ):
        for body in ({"choices": [choice], **marks}, {"choices": [{**choice, **marks}]}):
            reply = CODECS[name].parse_reply(body)
            assert (reply.reply, reply.finish_reason, reply.raw_finish_reason) == ("no.", "content_filter", "normal")
            assert reply.message.details[folder(name)] == marks
            chunks = [{"choices": [{"index": 0, "delta": {"content": "no."}}]}, {**body, "object": "chat.completion"}]
            stream = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
            streamed, _ = read_pieces(CODECS[name], stream)
            assert (streamed.reply, streamed.finish_reason) == ("no.", "content_filter")
            assert streamed.message.details[folder(name)] == marks


CHECKS = {
    "wenxin": rules_wenxin.check_v2,
    "minimax": lambda body: rules_openai.check(body, MINIMAX),
    "minimax_v2": lambda body: rules_openai.check(unpacked(body), MINIMAX_V2),
    "baichuan": lambda body: rules_openai.check(body, BAICHUAN),
}


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("name", CODECS)
def test_any_history_can_be_sent(name, history):
    for call in (chat(HISTORIES[history]), chat(HISTORIES[history], tools=True)):
        CHECKS[name](json.loads(CODECS[name].build_request(call).content))


@pytest.mark.parametrize(("platform", "first"), [("wenxin", "30"), ("minimax", "30"), ("baichuan", "20")])
def test_no_case_is_left_out(platform, first):
    last = "40" if platform == "wenxin" else "70"
    tested = {case for name, case, _, _ in REQUESTS if folder(name) == platform}
    assert tested == {name for name in names(platform) if first <= name < last}
