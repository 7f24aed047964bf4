from __future__ import annotations

import json
from typing import Any

import pytest

from lmagent.core.events import ReasoningDelta, TextDelta
from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
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
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.bailian import BailianCodec
from lmagent.providers.bailian_app import BailianAppCodec, BailianTokenAuth
from lmagent.providers.bailian_app import signed as signed_v3
from lmagent.providers.base import BearerAuth, ChatCall, Codec, NamedTool, Request
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.providers.openai.vendor_profiles import BAILIAN
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from tests.providers import rules_bailian
from tests.providers.histories import HISTORIES as SHARED
from tests.providers.wire import signed
from tests.providers.wire_cn import (
    ASK,
    CHAT,
    GET_WEATHER,
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

KEY = Secret("sk-fake-dashscope-key")
TUNED = {"temperature": 0.7, "top_p": 0.8, "max_tokens": 128}
NATIVE: dict[str, ChatCall] = {
    "01-native-plain": chat(SYSTEM, CHAT, parameters=TUNED),
    "02-native-tools": chat(SYSTEM, ASK, tools=True),
    "03-native-tool-result": chat(SYSTEM, TOLD, tools=True),
    "04-native-stream-incremental": chat(RIVER, stream=True),
    "05-native-stream-cumulative": chat(RIVER, stream=True),
    "06-native-stream-tools-incremental": chat(SYSTEM, ASK, tools=True, stream=True),
    "07-native-stream-tools-cumulative": chat(SYSTEM, ASK, tools=True, stream=True),
    "08-native-plain-text-format": chat(RIVER),
}
COMPATIBLE = (
    "20-compatible-plain",
    "21-compatible-tools",
    "22-compatible-tool-result",
    "23-compatible-stream",
    "24-compatible-stream-tools",
)
STREAMS = [name for name in NATIVE if "stream" in name]


def codec(**fields: Any) -> BailianCodec:
    return BailianCodec("qwen-plus", **fields)


def codec_of(name: str) -> BailianCodec:
    if "08" in name:
        return BailianCodec("qwen-turbo", result_format=None)
    return codec(incremental="cumulative" not in name)


def app(request_id: str = "00000000000000000000000000000001", **fields: Any) -> BailianAppCodec:
    return BailianAppCodec("fake-app-id", new_request_id=lambda: request_id, **fields)


def with_key(request: Request, key: Secret = KEY) -> Request:
    return signed(request, BearerAuth(key))


def body_of(call: ChatCall, dialect: Codec | None = None) -> dict[str, Any]:
    body = json.loads((dialect or codec()).build_request(call).content)
    rules_bailian.check(body)
    return body


def frames(*chunks: Any, event: str = "result") -> bytes:
    return b"".join(f"event:{event}\ndata:{json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks)


def piece(reason: str = "null", **message: Any) -> dict[str, Any]:
    return {"output": {"choices": [{"message": message, "finish_reason": reason}]}, "request_id": "r"}


def test_no_case_is_left_out():
    others = {"40-app-plain", "41-app-stream-cumulative", "70-native-error-rate", "71-native-stream-error"}
    assert set(names("bailian")) == {*NATIVE, *COMPATIBLE, *others, "72-compatible-error", "73-app-error"}


# Native: the wire


@pytest.mark.parametrize("name", NATIVE)
def test_native_request(name: str):
    request = with_key(codec_of(name).build_request(NATIVE[name]))
    # tool_choice "auto" is the default of the API: we leave it out.
    assert_request(request, load("bailian", name), without=["parameters.tool_choice"])
    rules_bailian.check(json.loads(request.content))
    stream = request.headers.get("x-dashscope-sse")
    assert (stream, request.headers["accept"]) == (
        ("enable", "text/event-stream") if name in STREAMS else (None, "application/json; charset=utf-8")
    )


@pytest.mark.parametrize("name", [name for name in NATIVE if name not in STREAMS])
def test_native_reply(name: str):
    case = load("bailian", name)
    assert codec_of(name).parse_error(case.status, {}, case.json) is None
    reply = codec_of(name).parse_reply(case.json)
    assert_reply(reply, case)
    assert reply.request_id == case.json["request_id"]
    assert reply.model_id == f"bailian/{codec_of(name).model}"


@pytest.mark.parametrize("name", STREAMS)
def test_native_stream_however_it_is_cut(name: str):
    assert_stream(codec_of(name), load("bailian", name))


def test_streams_of_one_codec_are_independent():
    case = load("bailian", "05-native-stream-cumulative")
    dialect = codec(incremental=False)
    for _ in range(2):
        reply, _ = read_pieces(dialect, [case.body])
        assert reply.reply == "The Qiantang River."


def test_old_streams_of_bare_text():
    texts = ["The ", "The river."]
    chunks = [{"output": {"text": text, "finish_reason": "null"}} for text in texts]
    chunks.append({"output": {"text": "The river.", "finish_reason": "stop"}, "usage": {"input_tokens": 1}})
    reply, events = read_pieces(codec(incremental=False, result_format=None), [frames(*chunks)])
    assert reply.reply == "The river."
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["The ", "river."]
    assert reply.usage == Usage(input_tokens=1, total_tokens=1)


def test_a_character_cut_in_half_waits_until_it_is_whole():
    texts = ["ab\ufffd", "ab中", "ab中\ufffd"]
    chunks = [piece(content=text) for text in texts] + [piece("stop", content="ab中国")]
    reply, events = read_pieces(codec(incremental=False), [frames(*chunks)])
    assert reply.reply == "ab中国"
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["ab", "中", "国"]


def test_reasoning_in_both_kinds_of_stream_and_never_sent_back():
    for incremental, thoughts in ((True, ["hm", "m"]), (False, ["hm", "hmm"])):
        chunks = [piece(content="", reasoning_content=thought) for thought in thoughts]
        last = "hmm" if not incremental else ""
        chunks.append(piece("stop", content="2", reasoning_content=last))
        reply, events = read_pieces(codec(incremental=incremental), [frames(*chunks)])
        assert (reply.message.reasoning, reply.reply) == ("hmm", "2")
        assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["hm", "m"]
        assert "hmm" not in json.dumps(body_of(chat(UserMessage("q"), reply.message, UserMessage("sure?"))))


def test_usage_details():
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    reply = codec().parse_reply({**piece("stop", content="x"), "usage": usage})
    assert reply.usage == Usage(input_tokens=10, output_tokens=5, total_tokens=15, cached_tokens=4, reasoning_tokens=3)


@pytest.mark.parametrize("incremental", [True, False])
def test_parallel_calls_in_a_stream(incremental: bool):
    def call(index: int, id: str, name: str, arguments: str) -> dict[str, Any]:
        return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}

    steps = [
        [call(0, "a", "add", '{"x"')],
        [call(0, "", "", ":1}") if incremental else call(0, "a", "add", '{"x":1}')],
        [call(1, "b", "now", "")],
    ]
    if not incremental:
        steps[2].insert(0, call(0, "a", "add", '{"x":1}'))
    chunks = [piece(content="", tool_calls=calls) for calls in steps]
    chunks.append(piece("tool_calls", content="", tool_calls=[] if incremental else steps[2]))
    reply, _ = read_pieces(codec(incremental=incremental), [frames(*chunks)])
    assert [(c.id, c.name, c.arguments) for c in reply.tool_calls] == [("a", "add", '{"x":1}'), ("b", "now", "{}")]
    assert reply.finish_reason == "tool_calls"


def test_calls_without_ids_and_indexes_get_them():
    calls = [{"id": "", "function": {"name": "add", "arguments": {"x": 1}}}, {"function": {"name": "now"}}]
    reply = codec().parse_reply(piece("stop", content=None, tool_calls=calls), prefix="3")
    assert [(c.id, c.name, c.arguments) for c in reply.tool_calls] == [
        ("call_000000000000000300000000", "add", '{"x":1}'),
        ("call_000000000000000300000001", "now", "{}"),
    ]


def test_content_may_be_a_list():
    reply = codec().parse_reply(piece("stop", content=[{"text": "a"}, {"image": "x"}, {"text": "b"}]))
    assert reply.reply == "ab"
    reply, _ = read_pieces(codec(), [frames(piece(content=[{"text": "a"}]), piece("length", content=[]))])
    assert (reply.reply, reply.finish_reason) == ("a", "length")


def test_a_stream_without_a_finish_reason_is_not_complete():
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [frames(piece(content="half"))])


@pytest.mark.parametrize(
    "body", [{}, {"output": {}}, {"output": None}, [], None, piece("stop", content=5), {"output": {"choices": [{}]}}]
)
def test_unknown_shapes_are_invalid_responses(body: Any):
    with pytest.raises(InvalidResponse):
        codec().parse_reply(body)


@pytest.mark.parametrize("data", [b"[1]", b"{", b'{"output":{"choices":5}}', b'{"output":{"text":[5]}}'])
def test_unknown_frames_are_invalid_responses(data: bytes):
    with pytest.raises(InvalidResponse):
        codec().parse_event(codec().new_state(), data)


# Errors


def test_recorded_errors():
    case = load("bailian", "70-native-error-rate")
    error = codec().parse_error(case.status, {"retry-after": "7"}, case.json)
    assert_error(error, case)
    assert error is not None
    assert (error.request_id, error.retry_after, error.provider) == ("f1e2d3c4-err1", 7, "bailian")
    case = load("bailian", "71-native-stream-error")
    with pytest.raises(ContextTooLong) as caught:
        read_pieces(codec(), [case.body])
    assert_error(caught.value, case)
    case = load("bailian", "73-app-error")
    assert_error(app().parse_error(case.status, {}, case.json), case)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "retryable"),
    [
        (401, "InvalidApiKey", "x", AuthenticationFailed, False),
        (400, "InvalidParameter", "x", BadRequest, False),
        (400, "InvalidParameter.Stop", "x", BadRequest, False),
        (400, "InvalidParameter", "Range of input length should be [1, 30720]", ContextTooLong, False),
        (400, "DataInspectionFailed", "x", ContentFiltered, False),
        (400, "Arrearage", "x", QuotaExceeded, False),
        (403, "AccessDenied", "x", PermissionDenied, False),
        (403, "AccessDenied.Unpurchased", "x", PermissionDenied, False),
        (403, "AllocationQuota.FreeTierOnly", "x", QuotaExceeded, False),
        (404, "ModelNotFound", "x", NotFound, False),
        (429, "Throttling", "x", RateLimited, True),
        (429, "Throttling.RateQuota", "x", RateLimited, True),
        (429, "Throttling.AllocationQuota", "tokens per minute", RateLimited, True),
        (429, "Throttling.AllocationQuota", "Free allocated quota exceeded.", QuotaExceeded, False),
        (500, "InternalError", "x", ServerFailed, True),
        (500, "InternalError.Algo", "x", ServerFailed, True),
        (500, "RequestTimeOut", "x", RequestTimeout, True),
        (503, "ModelServingError", "x", Overloaded, True),
        (503, "ModelUnavailable", "x", Overloaded, True),
        (418, "Unheard", "x", BadRequest, False),
        (500, "Unheard", "x", ServerFailed, True),
        (200, "Unheard", "x", InvalidResponse, False),
    ],
)
def test_error_codes(status: int, code: str, message: str, kind: type[Exception], retryable: bool):
    fault = {"code": code, "message": message, "request_id": "r"}
    error = codec().parse_error(status, {}, fault)
    assert type(error) is kind
    assert (error.retryable, error.code, error.status) == (retryable, code, status)
    with pytest.raises(type(codec().parse_error(200, {}, fault))):  # the same inside a stream
        read_pieces(codec(), [frames(piece(content="half")), frames(fault, event="error")])


def test_errors_without_a_known_body():
    assert type(codec().parse_error(502, {}, None, "<html>")) is ServerFailed
    assert type(codec().parse_error(429, {}, [])) is RateLimited
    assert codec().parse_error(200, {}, {"code": "", "message": "", **piece("stop", content="x")}) is None


# What is sent


def test_a_stream_always_requests_pieces():
    assert body_of(chat(RIVER, stream=True))["parameters"] == {"result_format": "message", "incremental_output": True}
    assert body_of(chat(RIVER))["parameters"] == {"result_format": "message"}


def test_parameters():
    parameters = {
        "temperature": 2,
        "top_p": 0,
        "top_k": 5,
        "max_tokens": 9,
        "seed": 1,
        "stop": ["x"],
        "presence_penalty": 1,
        "repetition_penalty": 1.1,
        "n": 2,
        "enable_search": True,
        "enable_thinking": False,
        "thinking_budget": 10,
        "parallel_tool_calls": True,
        "extra_headers": {"x-dashscope-datainspection": "enable"},
    }
    request = codec(workspace="ws").build_request(chat(RIVER, parameters=parameters))
    body = json.loads(request.content)
    rules_bailian.check(body)
    sent = {name: value for name, value in parameters.items() if name != "extra_headers"}
    assert body["parameters"] == {"result_format": "message", **sent, "temperature": 1.99, "top_p": 0.01}
    assert request.headers["x-dashscope-datainspection"] == "enable"
    assert request.headers["x-dashscope-workspace"] == "ws"
    assert body_of(chat(RIVER, parameters={"reasoning_effort": "none"}))["parameters"]["enable_thinking"] is False
    assert body_of(chat(RIVER, parameters={"reasoning_effort": "high"}))["parameters"]["enable_thinking"] is True
    wrong = {"temperature": 2.1, "n": 5, "user": "u", "logit_bias": {}}
    for name, value in wrong.items():
        with pytest.raises(ParameterError, match=name):
            codec().build_request(chat(RIVER, parameters={name: value}))


def test_extra_body_reaches_every_level():
    extra = {"parameters": {"new_switch": 1}, "input": {"prompt": "p"}, "task_id": "t"}
    body = json.loads(codec().build_request(chat(RIVER, parameters={"extra_body": extra})).content)
    assert body["parameters"] == {"result_format": "message", "new_switch": 1}
    assert (body["input"]["prompt"], body["input"]["messages"][0]["role"]) == ("p", "user")
    assert body["task_id"] == "t"
    assert extra == {"parameters": {"new_switch": 1}, "input": {"prompt": "p"}, "task_id": "t"}


def test_tool_choice():
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice, sent in (("none", "none"), ("required", named), (NamedTool("get_weather"), named)):
        assert body_of(chat(ASK, tools=True, tool_choice=choice))["parameters"]["tool_choice"] == sent
    two = (GET_WEATHER, ToolSpec(name="now", parameters={"type": "object", "properties": {}}))
    with pytest.raises(ParameterError, match="required"):
        codec().build_request(chat(ASK, tools=two, tool_choice="required"))
    with pytest.raises(ParameterError, match="nothing"):
        codec().build_request(chat(ASK, tools=two, tool_choice=NamedTool("nothing")))


def test_json_mode_has_the_word_in_a_message():
    body = body_of(chat(RIVER, output_schema=OutputSchema(name="x", schema={"type": "object"})))
    assert body["parameters"]["response_format"] == {"type": "json_object"}
    assert "JSON" in body["input"]["messages"][0]["content"]


def test_multimodal_models_have_their_own_path_and_lists():
    parts = UserMessage((TextPart("what?"), ImagePart(url="https://example.com/a.png"), ImagePart(data="aGk=")))
    dialect = BailianCodec("qwen-vl-max")
    assert dialect.features.images
    request = dialect.build_request(chat(SYSTEM, parts))
    assert request.url.endswith("/api/v1/services/aigc/multimodal-generation/generation")
    body = json.loads(request.content)
    rules_bailian.check(body)
    assert body["input"]["messages"] == [
        {"role": "system", "content": [{"text": SYSTEM.content}]},
        {
            "role": "user",
            "content": [
                {"text": "what?"},
                {"image": "https://example.com/a.png"},
                {"image": "data:image/png;base64,aGk="},
            ],
        },
    ]
    assert BailianCodec("qwen3.5-plus").multimodal
    assert not BailianCodec("qwen3-max").multimodal
    assert not BailianCodec("qwen3.5-plus", multimodal=False).multimodal
    for dialect in (codec(), app()):
        with pytest.raises(MessageError, match="an image"):
            dialect.build_request(chat(parts))
    with pytest.raises(MessageError, match="a file"):
        BailianCodec("qwen-vl-max").build_request(chat(UserMessage((FilePart(file_id="f"),))))


CALL_A = ToolCall(id="a", name="add", arguments='{"x": 1}')
CALL_B = ToolCall(id="b", name="now", arguments="{}")
HISTORIES: dict[str, tuple[Any, ...]] = {
    "systems": (SystemMessage("one"), UserMessage("hi"), SystemMessage("two")),
    "system alone": (SYSTEM,),
    "users": (UserMessage("a"), UserMessage((TextPart("b"), TextPart("c")))),
    "assistant first": (AssistantMessage("hello"), UserMessage("hi")),
    "assistant last": (UserMessage("hi"), AssistantMessage("hello")),
    "assistants": (UserMessage("hi"), AssistantMessage("a"), AssistantMessage("b"), UserMessage("c")),
    "told": TOLD,
    **SHARED,
    "parallel": (
        UserMessage("q"),
        AssistantMessage("I look", (CALL_A, CALL_B)),
        ToolMessage("", "b", "now"),
        ToolMessage("broken", "a", "add", is_error=True),
        UserMessage("and?"),
    ),
    "unanswered": (UserMessage("q"), AssistantMessage("", (CALL_A, CALL_B)), ToolMessage("1", "a")),
    "orphan": (UserMessage("q"), ToolMessage("1", "zzz", "add")),
    "call first": (AssistantMessage("", (CALL_A,)), ToolMessage("1", "a")),
    "empty answer": (UserMessage("q"), AssistantMessage(""), UserMessage("w")),
    "foreign details": (
        UserMessage("q"),
        AssistantMessage("x", reasoning="r", details={"anthropic": {"thinking": [1]}}),
        UserMessage("w"),
    ),
}
DIALECTS = {"native": codec(), "multimodal": BailianCodec("qwen-vl-max"), "app": app()}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_any_history_can_be_sent(history: tuple[Any, ...], dialect: Codec):
    body_of(chat(history), dialect)


def test_results_carry_the_name_of_the_tool():
    body = body_of(chat(HISTORIES["unanswered"]))
    results = [message for message in body["input"]["messages"] if message["role"] == "tool"]
    assert [(message["tool_call_id"], message["name"]) for message in results] == [("a", "add"), ("b", "now")]


def test_messages_are_encoded_once_for_each_form():
    history = chat(SYSTEM, CHAT)
    first = codec().build_request(history).content
    assert codec().build_request(history).content == first
    assert isinstance(body_of(history, DIALECTS["multimodal"])["input"]["messages"][1]["content"], list)
    assert codec().build_request(history).content == first


def test_no_secret_in_what_is_shown():
    request = with_key(codec().build_request(chat(CHAT)))
    assert "dashscope-key" not in request.url
    assert request.params == {}


# The app completions


def test_app_request():
    case = load("bailian", "40-app-plain")
    request = with_key(
        app(session_id="s-001").build_request(chat(CHAT, parameters={"top_p": 0.8})), Secret("fake-bailian-token")
    )
    noise = ["BizParams", "DocReferenceType", "DocTagIds", "DocTagCodes"]  # explicit nulls of the SDK
    assert_request(request, case, without=noise)
    case = load("bailian", "41-app-stream-cumulative")
    dialect = app("00000000000000000000000000000002")
    request = with_key(
        dialect.build_request(chat(RIVER, parameters={"top_p": 0.0}, stream=True)), Secret("fake-bailian-token")
    )
    assert_request(request, case, without=[*noise, "SessionId"])


def test_app_reply_and_stream():
    case = load("bailian", "40-app-plain")
    assert app().parse_error(200, {}, case.json) is None
    reply = app().parse_reply(case.json)
    assert_reply(reply, case)
    assert reply.model_id == "bailian/fake-app-id"
    for _ in range(2):  # upstream lost the beginning of a second stream
        assert_stream(app(), load("bailian", "41-app-stream-cumulative"))


def test_app_stream_with_an_end_mark_and_an_error():
    body = load("bailian", "41-app-stream-cumulative").body
    reply, _ = read_pieces(app(), [body, b"\ndata: [DONE]\n\n"])
    assert reply.reply == "The Qiantang River."
    fault = b'data: {"Success":false,"Code":"Throttling","Message":"slow down","RequestId":"r","Data":null}\n\n'
    with pytest.raises(RateLimited, match="slow down"):
        read_pieces(app(), [body, fault])
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(app(), [b""])


def test_app_parameters_and_limits():
    parameters = {"temperature": 0, "top_k": 3, "max_tokens": 9, "stop": ["x"], "seed": 1, "biz_params": {"a": 1}}
    body = body_of(chat(RIVER, parameters={**parameters, "extra_body": {"DocTagIds": [1]}}), app())
    assert body["Parameters"] == {"Temperature": 0, "TopK": 3, "MaxTokens": 9, "Stop": ["x"], "Seed": 1}
    assert (body["BizParams"], body["DocTagIds"]) == ({"a": 1}, [1])
    with pytest.raises(ParameterError, match="presence_penalty"):
        app().build_request(chat(RIVER, parameters={"presence_penalty": 1}))
    with pytest.raises(MessageError, match="tool_mode='prompt'"):
        app().build_request(chat(ASK, tools=True))
    call = chat(RIVER, output_schema=OutputSchema(name="x", schema={"title": "River"}))
    assert '"title":"River"' in body_of(call, app())["Prompt"]
    ids = {json.loads(BailianAppCodec("a").build_request(chat(RIVER)).content)["RequestId"] for _ in range(2)}
    assert len(ids) == 2
    assert type(app().parse_error(500, {}, None, "x")) is ServerFailed
    with pytest.raises(InvalidResponse):
        app().parse_reply({"Success": True, "Data": None})


def token_auth() -> BailianTokenAuth:
    return BailianTokenAuth(
        Secret("LTAIfakefakefake"), Secret("fakeaccesskeysecret"), Secret("fake-agent-key"), new_nonce=lambda: "nonce"
    )


def test_the_signature_of_the_token_call():
    """The vector of the provider's page on signature version 3 (2025-02)."""
    request = Request(
        url="https://ecs.cn-shanghai.aliyuncs.com/",
        headers={"x-acs-action": "RunInstances", "x-acs-version": "2014-05-26"},
        params={"RegionId": "cn-shanghai", "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"},
    )
    now = 1698315752.0  # 2023-10-26T10:22:32Z
    nonce = "3156853299f313e23d1673dc12e1703d"
    ours = signed_v3(request, Secret("YourAccessKeyId"), Secret("YourAccessKeySecret"), now, nonce)
    assert ours.headers["authorization"] == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
        "x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )
    assert ours.headers["x-acs-date"] == "2023-10-26T10:22:32Z"


def test_the_token_is_obtained_once_and_renewed_early():
    auth, question = token_auth(), app().build_request(chat(RIVER))
    assert auth.needs_exchange
    flow = auth.flow(question, 1000.0)
    wanted = next(flow)
    assert (wanted.method, wanted.url) == ("POST", "https://bailian.cn-beijing.aliyuncs.com/")
    assert wanted.params == {"AgentKey": "fake-agent-key"}
    assert (wanted.headers["x-acs-action"], wanted.headers["x-acs-version"]) == ("CreateToken", "2023-06-01")
    assert "fakeaccesskeysecret" not in repr(wanted)
    with pytest.raises(StopIteration) as stop:
        flow.send({"Success": True, "Data": {"Token": "tok-123456", "ExpiredTime": 5000}, "RequestId": "r"})
    assert stop.value.value.headers["authorization"] == "Bearer tok-123456"
    assert stop.value.value.content == question.content
    assert not auth.needs_exchange
    with pytest.raises(StopIteration):
        next(auth.flow(question, 4399.0))
    assert next(auth.flow(question, 4400.0)).params  # 600 s early


def test_a_token_is_forgotten_once_after_a_refusal():
    auth = token_auth()
    flow = auth.flow(app().build_request(chat(RIVER)), 0.0)
    next(flow)
    assert not auth.forget(AuthenticationFailed())
    with pytest.raises(StopIteration):
        flow.send({"Data": {"Token": "tok-123456", "ExpiredTime": 5000}})
    assert not auth.forget(RateLimited())
    assert auth.forget(AuthenticationFailed())
    assert auth.needs_exchange


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"Success": False, "Code": "InvalidAccessKeyId.NotFound", "Message": "no"}, AuthenticationFailed),
        ({"Code": "Throttling.User", "Message": "slow"}, RateLimited),
        ({"Success": False, "Code": "AccessDenied", "Message": "no"}, PermissionDenied),
        ({}, InvalidResponse),
        ([], InvalidResponse),
        ({"Data": {"Token": "", "ExpiredTime": 1}}, InvalidResponse),
    ],
)
def test_no_token(answer: Any, kind: type[Exception]):
    flow = token_auth().flow(app().build_request(chat(RIVER)), 0.0)
    next(flow)
    with pytest.raises(kind):
        flow.send(answer)


# The compatible mode

PLAIN = OpenAICodec("qwen-plus", profile=BAILIAN)
COMPATIBLE_CALLS: dict[str, ChatCall] = {
    "20-compatible-plain": chat(SYSTEM, CHAT, parameters=TUNED),
    "21-compatible-tools": chat(SYSTEM, ASK, tools=True),
    "22-compatible-tool-result": chat(SYSTEM, TOLD, tools=True),
    "23-compatible-stream": chat(RIVER, stream=True),
    "24-compatible-stream-tools": chat(SYSTEM, ASK, tools=True, stream=True),
}


@pytest.mark.parametrize("name", COMPATIBLE)
def test_compatible_request(name: str):
    request = with_key(PLAIN.build_request(COMPATIBLE_CALLS[name]))
    assert_request(request, load("bailian", name), without=["tool_choice"])


@pytest.mark.parametrize("name", COMPATIBLE[:3])
def test_compatible_reply(name: str):
    case = load("bailian", name)
    assert PLAIN.parse_error(case.status, {}, case.json) is None
    assert_reply(PLAIN.parse_reply(case.json), case)


@pytest.mark.parametrize("name", COMPATIBLE[3:])
def test_compatible_stream_however_it_is_cut(name: str):
    assert_stream(PLAIN, load("bailian", name))


def test_compatible_error():
    case = load("bailian", "72-compatible-error")
    error = PLAIN.parse_error(case.status, {}, case.json)
    assert_error(error, case)
    assert error is not None
    assert error.request_id == "f1e2d3c4-err3"


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (401, "invalid_api_key", "x", AuthenticationFailed),
        (400, "invalid_parameter_error", "x", BadRequest),
        (400, "invalid_parameter_error", "Range of input length should be [1, 30720]", ContextTooLong),
        (400, "data_inspection_failed", "x", ContentFiltered),
        (400, "Arrearage", "x", QuotaExceeded),
        (403, "access_denied", "x", PermissionDenied),
        (404, "model_not_found", "x", NotFound),
        (429, "limit_requests", "x", RateLimited),
        (429, "insufficient_quota", "tokens per minute", RateLimited),
        (429, "insufficient_quota", "Free allocated quota exceeded.", QuotaExceeded),
        (500, "internal_error", "x", ServerFailed),
        (503, "x", "x", Overloaded),
    ],
)
def test_compatible_error_codes(status: int, code: str, message: str, kind: type[Exception]):
    body = {"error": {"code": code, "message": message, "param": None, "type": code}, "request_id": "r"}
    error = PLAIN.parse_error(status, {}, body)
    assert type(error) is kind
    assert error.code == code


def test_compatible_continuations_have_an_empty_id_and_name():
    """Also with null instead of empty texts."""
    body = load("bailian", "24-compatible-stream-tools").body.replace(b'"name":""', b'"name":null')
    reply, _ = read_pieces(PLAIN, [body])
    assert [(call.id, call.name) for call in reply.tool_calls] == [("call_7f3a91c2_0", "get_weather")]
    assert json.loads(reply.tool_calls[0].arguments) == {"city": "Hangzhou", "unit": "celsius"}
