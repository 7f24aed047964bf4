from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmagent.core.events import TextDelta
from lmagent.core.json_text import Frame
from lmagent.core.messages import AssistantMessage, ImagePart, SystemMessage, ToolCall, ToolMessage, Usage, UserMessage
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    InvalidResponse,
    MessageError,
    NotFound,
    Overloaded,
    ParameterError,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.base import BearerAuth, ChatCall, NamedTool, Request
from lmagent.providers.openai.variants import CharacterV4Codec, ZhipuV4Codec
from lmagent.providers.zhipu import CHARACTER, CharacterCodec, MetaDecoder, ZhipuAuth, ZhipuCodec, unwrapped
from lmagent.toolkit.schema import OutputSchema
from tests.providers import rules_zhipu
from tests.providers.histories import HISTORIES as SHARED
from tests.providers.wire_cn import (
    ASK,
    CHAT,
    RIVER,
    SYSTEM,
    TOLD,
    assert_error,
    assert_reply,
    assert_request,
    assert_stream,
    chat,
    load,
    names,
    read_pieces,
)

KEY = Secret("fakeid0123456789.fakesecret0123456789")
NOW = 1700000000.0
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInNpZ25fdHlwZSI6IlNJR04iLCJ0eXAiOiJKV1QifQ."
    "eyJhcGlfa2V5IjoiZmFrZWlkMDEyMzQ1Njc4OSIsImV4cCI6MTcwMDAwMDE4MDAwMCwidGltZXN0YW1wIjoxNzAwMDAwMDAwMDAwfQ."
    "kx8tNENx63XtWBWiJLWT4qiXjUTm8YDpAVN-qjOxCfk"
)
V3 = {
    "10-v3-chatglm_turbo-invoke": ZhipuCodec("chatglm_turbo"),
    "11-v3-chatglm_turbo-sse": ZhipuCodec("chatglm_turbo"),
    "12-v3-characterglm-invoke": CharacterCodec(),
    "13-v3-characterglm-sse": CharacterCodec(),
    "20-v3-sdk-invoke": ZhipuCodec("chatglm_turbo"),
    "21-v3-sdk-sse": ZhipuCodec("chatglm_turbo", incremental=True),
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "10-v3-chatglm_turbo-invoke": {"temperature": 0.7, "top_p": 0.8, "request_id": "req-0001"},
    "11-v3-chatglm_turbo-sse": {"temperature": 0.7, "top_p": 0.8, "request_id": "req-0001"},
    "20-v3-sdk-invoke": {"temperature": 0.7, "top_p": 0.8},
}
STREAMS = [name for name in V3 if name.endswith("sse")]
V4 = (
    "30-v4-plain",
    "31-v4-tools",
    "32-v4-tool-result",
    "33-v4-stream",
    "34-v4-stream-tools",
    "35-v4-temperature-zero",
    "36-v4-jwt-and-character-meta",
    "40-v4-plain",
    "41-v4-tools",
    "42-v4-tool-result",
)
V4_ERRORS = ("70-v4-error-rate", "71-v4-error-auth")


def codec() -> ZhipuCodec:
    return ZhipuCodec("chatglm_turbo")


def signed(request: Request, auth: ZhipuAuth, now: float = NOW) -> Request:
    with pytest.raises(StopIteration) as stop:
        next(auth.flow(request, now))
    return stop.value.value


def body_of(call: ChatCall, dialect: ZhipuCodec | None = None) -> dict[str, Any]:
    body = json.loads((dialect or codec()).build_request(call).content)
    rules_zhipu.check(body)
    return body


def test_no_case_is_left_out():
    assert set(names("zhipu")) == {*V3, *V4, *V4_ERRORS, "72-v3-error"}


# The token


def test_the_token_vector():
    assert ZhipuAuth(KEY).token(NOW) == TOKEN
    assert signed(codec().build_request(chat(CHAT)), ZhipuAuth(KEY)).headers["authorization"] == TOKEN
    with_bearer = signed(codec().build_request(chat(CHAT)), ZhipuAuth(KEY, scheme="Bearer"))
    assert with_bearer.headers["authorization"] == f"Bearer {TOKEN}"


def test_the_token_of_the_new_sdk_has_a_longer_lifetime():
    """Case 36 was recorded without a fixed clock, so the times are read from its token."""
    recorded = load("zhipu", "36-v4-jwt-and-character-meta").request["headers"]["authorization"].removeprefix("Bearer ")
    payload = recorded.split(".")[1]
    times = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    auth = ZhipuAuth(KEY, lifetime_s=(times["exp"] - times["timestamp"]) / 1000)
    assert auth.token(times["timestamp"] / 1000) == recorded


@pytest.mark.parametrize("key", ["nodot", "two.dots.here", ".x", "x.", ""])
def test_a_key_of_another_form_is_refused_at_once_and_not_shown(key: str):
    with pytest.raises(ConfigurationError, match=r"<id>\.<secret>") as caught:
        ZhipuAuth(Secret(key))
    assert len(key) < 3 or key not in str(caught.value)


def test_an_expired_token_is_renewed_once():
    auth = ZhipuAuth(KEY)
    expired = codec().parse_error(401, {}, {"error": {"code": "1003", "message": "expired"}})
    assert isinstance(expired, AuthenticationFailed)
    assert auth.forget(expired)
    assert not auth.forget(AuthenticationFailed(code="1002"))
    assert not auth.needs_exchange
    assert auth.token(NOW) != auth.token(NOW + 1)


def test_no_secret_in_what_is_shown():
    request = signed(codec().build_request(chat(CHAT)), ZhipuAuth(KEY))
    assert "fakesecret0123456789" not in repr(request)
    assert "fakesecret0123456789" not in repr(ZhipuAuth(KEY).__dict__)


# v3: the wire


@pytest.mark.parametrize("name", V3)
def test_v3_request(name: str):
    call = chat(CHAT, parameters=PARAMETERS.get(name, {}), stream=name in STREAMS)
    request = signed(V3[name].build_request(call), ZhipuAuth(KEY))
    # zhipuai 1.0.7 names the charset of a JSON body; JSON has one.
    case = load("zhipu", name)
    if name == "20-v3-sdk-invoke":
        assert request.headers["authorization"] == case.request["headers"]["authorization"]
        assert_request(request, case, headers=False)
    else:
        assert_request(request, case)
    rules_zhipu.check(json.loads(request.content))


@pytest.mark.parametrize("name", [name for name in V3 if name not in STREAMS])
def test_v3_reply(name: str):
    case = load("zhipu", name)
    assert V3[name].parse_error(case.status, {}, case.json) is None
    reply = V3[name].parse_reply(case.json)
    assert_reply(reply, case)
    assert (reply.request_id, reply.response_id) == ("8065132691421499000", "8065132691421499000")


@pytest.mark.parametrize("name", STREAMS)
def test_v3_stream_however_it_is_cut(name: str):
    assert_stream(V3[name], load("zhipu", name))


def test_model_ids():
    assert codec().model_id == "zhipu/chatglm_turbo"
    assert CharacterCodec().model_id == "zhipu-character/characterglm"
    for dialect in (codec(), CharacterCodec()):
        assert not dialect.features.tools


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ('" Hello\\nworld"', "Hello\nworld"),
        ('"Hello"', "Hello"),
        ('" 他说：\\"好\\""', '他说："好"'),
        ('" raw\nline"', "raw\nline"),
        ('" broken \\x "', "broken \\x "),
        (" plain", "plain"),
        ("plain", "plain"),
        ('"', '"'),
        ("", ""),
        ('"  two"', " two"),
    ],
)
def test_content_is_unwrapped(content: str, shown: str):
    assert unwrapped(content) == shown


def test_usage_may_hold_the_total_alone():
    data = {"choices": [{"role": "assistant", "content": "hi"}], "usage": {"total_tokens": 9}}
    reply = codec().parse_reply({"code": 200, "data": data, "success": True})
    assert reply.usage == Usage(total_tokens=9)
    del data["usage"]
    assert codec().parse_reply({"code": 200, "data": data, "success": True}).usage is None


# v3: framing and events


def test_meta_comes_before_its_event_and_empty_events_are_kept():
    decoder = MetaDecoder()
    body = b'\xef\xbb\xbfevent: add\r\nid: 1\r\ndata: a\r\n\r\n: ping\n\nevent:finish\ndata:\nmeta: {"x":1}\n\n'
    assert decoder.feed(body) == [Frame(b"a", "add"), Frame(b'{"x":1}', "meta"), Frame(b"", "finish")]
    assert decoder.close() == []


def test_data_lines_are_joined_by_line_breaks():
    frames = MetaDecoder().feed(b"event: add\ndata: a\ndata: b\n\nevent: add\ndata:\ndata:\n\n")
    assert [frame.data for frame in frames] == [b"a\nb", b"\n"]


@given(
    st.lists(
        st.sampled_from(["event: add", "event:finish", "data: 你", "data:", "meta: {}", ": x", "id: 1", "", "odd"])
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_frames_do_not_depend_on_how_the_bytes_are_cut(lines: list[str], end: str, data: st.DataObject):
    body = (end.join(lines) + end).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    def frames(chunks: list[bytes]) -> list[Frame]:
        decoder = MetaDecoder()
        return [frame for chunk in chunks for frame in decoder.feed(chunk)] + decoder.close()

    assert frames(pieces) == frames([body])


def test_the_end_may_lack_its_blank_line():
    reply, _ = read_pieces(codec(), [b"event: add\ndata: hi\n\nevent: finish\ndata:"])
    assert (reply.reply, reply.finish_reason, reply.usage) == ("hi", "stop", None)


def test_a_stream_without_finish_is_not_complete():
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [b"event: add\ndata: hi\n\n"])


def test_finish_may_carry_the_last_text_and_what_follows_is_ignored():
    reply, _ = read_pieces(
        codec(), ["event: add\ndata: 你\n\nevent: finish\ndata: 好\n\nevent: add\ndata: !\n\n".encode()]
    )
    assert reply.reply == "你好"


def test_a_cumulative_stream():
    dialect = ZhipuCodec("chatglm_turbo", incremental=False)
    assert body_of(chat(RIVER, stream=True), dialect)["incremental"] is False
    assert "incremental" not in body_of(chat(RIVER), dialect)
    texts = ["The Qian", "The Qiantang ", "The Qiantang River."]
    body = "".join(f"event: add\ndata: {text}\n\n" for text in texts) + "event: finish\ndata: The Qiantang River.\n\n"
    reply, events = read_pieces(dialect, [body.encode()])
    assert reply.reply == "The Qiantang River."
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["The Qian", "tang ", "River."]


def test_error_events():
    for data, kind in {
        '{"code":1302,"msg":"too fast"}': RateLimited,
        '{"code":1301,"msg":"unsafe"}': ContentFiltered,
        "something broke": InvalidResponse,
    }.items():
        with pytest.raises(kind):
            read_pieces(codec(), [b"event: add\ndata: hi\n\n", f"event: error\ndata: {data}\n\n".encode()])


def test_an_interruption_keeps_the_text():
    for data in ("敏感词", '{"code":1301,"msg":"unsafe"}', ""):
        body = f"event: add\ndata: half\n\nevent: interrupted\ndata: {data}\n\n"
        reply, _ = read_pieces(codec(), [body.encode()])
        assert (reply.finish_reason, reply.raw_finish_reason) == ("content_filter", "interrupted")
        assert reply.reply == "half"
    with pytest.raises(ServerFailed):
        read_pieces(codec(), [b'event: interrupted\ndata: {"code":1230,"msg":"x"}\n\n'])


# Errors


def test_v3_error_in_a_200_body():
    case = load("zhipu", "72-v3-error")
    assert_error(codec().parse_error(case.status, {}, case.json), case)


@pytest.mark.parametrize("name", V4_ERRORS)
def test_v4_errors_are_read_as_well(name: str):
    case = load("zhipu", name)
    assert_error(codec().parse_error(case.status, {}, case.json), case)


CODES = [
    *((code, AuthenticationFailed, False) for code in (1000, 1001, 1002, 1003, 1004)),
    *((code, PermissionDenied, False) for code in (1110, 1111, 1112, 1121, 1212, 1220, 1221)),
    *((code, QuotaExceeded, False) for code in (1113, 1304, 1308, 1310)),
    *((code, ServerFailed, True) for code in (1200, 1230, 1234)),
    *((code, BadRequest, False) for code in (1210, 1213, 1214, 1215, 1231)),
    *((code, NotFound, False) for code in (1211, 1222)),
    (1261, ContextTooLong, False),
    *((code, ContentFiltered, False) for code in (1300, 1301)),
    *((code, RateLimited, True) for code in (1302, 1303)),
    *((code, Overloaded, True) for code in (1305, 1312)),
    (9999, InvalidResponse, False),
]


@pytest.mark.parametrize(("code", "kind", "retryable"), CODES)
def test_error_codes(code: int, kind: type[Exception], retryable: bool):
    error = codec().parse_error(200, {}, {"code": code, "msg": "what happened", "success": False})
    assert type(error) is kind
    assert (error.retryable, error.code, error.provider) == (retryable, str(code), "zhipu")
    assert "what happened" in str(error)


def test_the_code_decides_not_the_status():
    error = codec().parse_error(429, {}, {"error": {"code": "1113", "message": "欠费"}})
    assert type(error) is QuotaExceeded
    assert type(codec().parse_error(429, {"retry-after": "3"}, None, "busy")) is RateLimited
    assert codec().parse_error(429, {"retry-after": "3"}, None, "busy").retry_after == 3
    assert type(codec().parse_error(500, {}, {"error": {"code": "77", "message": "x"}})) is ServerFailed
    failed = {"code": 200, "success": True, "data": {"task_status": "FAIL", "request_id": "r"}}
    error = codec().parse_error(200, {}, failed)
    assert type(error) is ServerFailed
    assert error.request_id == "r"


@pytest.mark.parametrize(
    "body", [{}, {"data": {}}, {"data": {"choices": []}}, [], None, {"data": {"choices": [{"content": 1}]}}]
)
def test_unknown_shapes_are_invalid_responses(body: Any):
    with pytest.raises(InvalidResponse):
        codec().parse_reply(body)


# What is sent


def test_the_ends_of_a_range_are_sent_as_the_nearest_value():
    body = body_of(chat(RIVER, parameters={"temperature": 0, "top_p": 1}))
    assert (body["temperature"], body["top_p"]) == (0.01, 0.99)
    assert body_of(chat(RIVER, parameters={"temperature": 1.0}), CharacterCodec())["temperature"] == 0.99
    for name, value in {"temperature": 1.5, "top_p": -0.1}.items():
        with pytest.raises(ParameterError, match=f"{name}.* from 0 to 1"):
            codec().build_request(chat(RIVER, parameters={name: value}))


def test_features_that_v3_lacks_are_refused():
    for name, value in {"max_tokens": 5, "stop": ["x"], "seed": 1, "top_k": 3, "user": "u"}.items():
        with pytest.raises(ParameterError, match=name):
            codec().build_request(chat(RIVER, parameters={name: value}))
    with pytest.raises(MessageError, match="tool_mode='prompt'"):
        codec().build_request(chat(ASK, tools=True))
    with pytest.raises(MessageError, match="an image"):
        codec().build_request(chat(UserMessage((ImagePart(url="https://example.com/a.png"),))))


def test_the_system_text_describes_an_output_schema():
    call = chat(RIVER, output_schema=OutputSchema(name="x", schema={"type": "object", "title": "River"}))
    assert '"title":"River"' in body_of(call)["prompt"][0]["content"]


def test_vendor_parameters_and_addresses():
    parameters = {
        "ref": {"enable": True, "search_query": "q"},
        "return_type": "text",
        "extra_body": {"request_id": "r-123456"},
        "extra_headers": {"x-trace": "1"},
    }
    request = codec().build_request(chat(RIVER, parameters=parameters))
    body = json.loads(request.content)
    assert (body["ref"]["enable"], body["return_type"], body["request_id"]) == (True, "text", "r-123456")
    assert request.headers["x-trace"] == "1"


def test_the_card_of_a_character():
    dialect = CharacterCodec(meta={"bot_name": "Guide"})
    assert body_of(chat(RIVER), dialect)["meta"] == {**CHARACTER, "bot_name": "Guide"}
    call = chat(RIVER, parameters={"meta": {"user_name": "Traveller"}})
    assert body_of(call, dialect)["meta"] == {**CHARACTER, "bot_name": "Guide", "user_name": "Traveller"}
    assert body_of(chat(RIVER), dialect)["meta"]["user_name"] == "User"
    with pytest.raises(ParameterError, match="meta"):
        codec().build_request(call)


CALL = ToolCall(id="a", name="add", arguments='{"x": 1}')
HISTORIES: dict[str, tuple[Any, ...]] = {
    "systems": (SystemMessage("one"), UserMessage("hi"), SystemMessage("two")),
    "system alone": (SYSTEM,),
    "users": (UserMessage("a"), UserMessage("b")),
    "assistant first": (AssistantMessage("hello"), UserMessage("hi")),
    "assistant last": (UserMessage("hi"), AssistantMessage("hello")),
    "told": TOLD,
    **SHARED,
    "parallel": (
        UserMessage("q"),
        AssistantMessage("I look", (CALL, ToolCall(id="b", name="now"))),
        ToolMessage("", "b", "now"),
        ToolMessage("broken", "a", "add", is_error=True),
        UserMessage("and?"),
    ),
    "unanswered": (UserMessage("q"), AssistantMessage("", (CALL,))),
    "orphan": (UserMessage("q"), ToolMessage("1", "zzz", "add")),
    "empty answer": (UserMessage("q"), AssistantMessage(""), UserMessage("w")),
    "foreign details": (
        UserMessage("q"),
        AssistantMessage("x", reasoning="r", details={"anthropic": {"thinking": [1]}}),
        UserMessage("w"),
    ),
}


@pytest.mark.parametrize("dialect", [codec(), CharacterCodec()], ids=["v3", "character"])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_any_history_can_be_sent(history: tuple[Any, ...], dialect: ZhipuCodec):
    body_of(chat(history), dialect)


def test_the_system_prompt_is_put_in_front_of_the_first_user_message():
    assert body_of(chat(SYSTEM, RIVER))["prompt"] == [
        {"role": "user", "content": "You are a concise travel assistant.\n\nName one river in Zhejiang."}
    ]


# v4: OpenAI's language

GLM = ZhipuV4Codec("glm-4")
TUNED = {"temperature": 0.7, "top_p": 0.8, "max_tokens": 128}
V4_CALLS: dict[str, ChatCall] = {
    "30-v4-plain": chat(SYSTEM, CHAT, parameters=TUNED),
    "31-v4-tools": chat(SYSTEM, ASK, tools=True),
    "32-v4-tool-result": chat(SYSTEM, TOLD, tools=True),
    "33-v4-stream": chat(RIVER, stream=True),
    "34-v4-stream-tools": chat(SYSTEM, ASK, tools=True, stream=True),
    "35-v4-temperature-zero": chat(RIVER, parameters={"temperature": 0, "top_p": 1}),
    "40-v4-plain": chat(SYSTEM, CHAT, parameters=TUNED),
    "41-v4-tools": chat(SYSTEM, ASK, tools=True),
    "42-v4-tool-result": chat(SYSTEM, TOLD, tools=True),
}
NOISE = ["response_format", "thinking", "tool_choice"]
"""Explicit nulls of the SDK, and the default choice."""


@pytest.mark.parametrize("name", V4_CALLS)
def test_v4_request(name: str):
    request = signed_with(GLM.build_request(V4_CALLS[name]), BearerAuth(KEY))
    case = load("zhipu", name)
    # The SDK names the charset of a JSON body; JSON has one.
    assert request.headers["authorization"] == case.request["headers"]["authorization"]
    assert_request(request, case, without=NOISE, headers=False)
    rules_zhipu.check(json.loads(request.content))


def signed_with(request: Request, auth: Any) -> Request:
    with pytest.raises(StopIteration) as stop:
        next(auth.flow(request, NOW))
    return stop.value.value


def test_v4_character_with_a_token():
    card = {"user_info": "a traveller", "bot_info": "a guide", "bot_name": "Guide", "user_name": "Traveller"}
    dialect = CharacterV4Codec("charglm-3", meta=card)
    case = load("zhipu", "36-v4-jwt-and-character-meta")
    request = signed_with(dialect.build_request(chat(RIVER)), ZhipuAuth(KEY, scheme="Bearer"))
    assert_request(request, case, without=NOISE, headers=False)
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    rules_zhipu.check(json.loads(request.content))
    assert dialect.model_id == "zhipu-character/charglm-3"
    assert not dialect.features.tools
    other = dialect.build_request(chat(RIVER, parameters={"meta": {"bot_name": "Bob"}, "temperature": 0}))
    body = json.loads(other.content)
    assert body["meta"] == {**card, "bot_name": "Bob"}
    assert (body["temperature"], body["do_sample"]) == (0.01, False)
    history = chat(SYSTEM, TOLD)
    sent = json.loads(dialect.build_request(history).content)
    assert all(message["role"] in ("system", "user", "assistant") for message in sent["messages"])
    with pytest.raises(MessageError, match="tool_mode='prompt'"):
        dialect.build_request(chat(ASK, tools=True))


@pytest.mark.parametrize("name", [name for name in V4 if "stream" not in name])
def test_v4_reply(name: str):
    case = load("zhipu", name)
    assert GLM.parse_error(case.status, {}, case.json) is None
    assert_reply(GLM.parse_reply(case.json), case)


@pytest.mark.parametrize("name", [name for name in V4 if "stream" in name])
def test_v4_stream_however_it_is_cut(name: str):
    assert_stream(GLM, load("zhipu", name))


@pytest.mark.parametrize("name", V4_ERRORS)
def test_v4_recorded_errors(name: str):
    case = load("zhipu", name)
    assert_error(GLM.parse_error(case.status, {}, case.json), case)


@pytest.mark.parametrize(("code", "kind", "retryable"), CODES[:-1])
def test_v4_error_codes(code: int, kind: type[Exception], retryable: bool):
    """The code decides, whatever the status is."""
    for status in (400, 401, 429, 500, 200):
        error = GLM.parse_error(status, {}, {"error": {"code": str(code), "message": "what happened"}})
        assert type(error) is kind
        assert (error.retryable, error.code) == (retryable, str(code))


def test_v4_finish_reasons():
    def reply(reason: str) -> Any:
        body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "half"}, "finish_reason": reason}]}
        return GLM.parse_reply(body)

    assert (reply("sensitive").finish_reason, reply("sensitive").reply) == ("content_filter", "half")
    assert reply("length").finish_reason == "length"
    with pytest.raises(ServerFailed, match="network_error"):
        reply("network_error")
    stream = b'data: {"choices":[{"index":0,"delta":{"content":"half"},"finish_reason":"network_error"}]}\n\n'
    for end in (b"data: [DONE]\n\n", b""):
        with pytest.raises(ServerFailed) as caught:
            read_pieces(GLM, [stream, end])
        assert caught.value.retryable


def test_v4_takes_one_stop_text():
    assert json.loads(GLM.build_request(chat(RIVER, parameters={"stop": ["x"]})).content)["stop"] == ["x"]
    with pytest.raises(ParameterError, match="at most 1"):
        GLM.build_request(chat(RIVER, parameters={"stop": ["x", "y"]}))
    assert json.loads(GLM.build_request(chat(RIVER, parameters={"user": "u-1"})).content)["user_id"] == "u-1"


def test_v4_refuses_tool_choices_except_auto():
    for choice in ("required", NamedTool("get_weather")):
        with pytest.raises(ParameterError, match="auto"):
            GLM.build_request(chat(ASK, tools=True, tool_choice=choice))
    body = json.loads(GLM.build_request(chat(ASK, tools=True, tool_choice="none")).content)
    assert "tools" not in body


def test_v4_pieces_and_a_repetition_of_a_call():
    """`tool_stream`, and private servers that repeat the whole message at the end."""

    def chunk(arguments: str, reason: str | None = None, **call: Any) -> bytes:
        calls = [{"index": 0, **call, "function": {"arguments": arguments, **({"name": "add"} if call else {})}}]
        choice = {"index": 0, "delta": {"role": "assistant", "tool_calls": calls}, "finish_reason": reason}
        return b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"

    body = chunk('{"x"', id="a", type="function") + chunk(":1}") + chunk('{"x":1}', "tool_calls")
    reply, _ = read_pieces(GLM, [body, b"data: [DONE]\n\n"])
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("a", "add", '{"x":1}')]


@pytest.mark.parametrize("dialect", [GLM, CharacterV4Codec("charglm-4")], ids=["v4", "character"])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_v4_any_history_can_be_sent(history: tuple[Any, ...], dialect: ZhipuV4Codec):
    rules_zhipu.check(json.loads(dialect.build_request(chat(history)).content))


def test_v4_an_output_schema_is_json_mode():
    call = chat(RIVER, output_schema=OutputSchema(name="x", schema={"type": "object"}))
    assert json.loads(GLM.build_request(call).content)["response_format"] == {"type": "json_object"}
