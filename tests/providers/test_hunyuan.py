from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
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
from lmagent.providers.base import BearerAuth, ChatCall, Codec, NamedTool, Request
from lmagent.providers.hunyuan import HunyuanCodec, HyllmAuth, HyllmCodec, TC3Auth, signed_text
from lmagent.providers.openai.variants import HunyuanCompatibleCodec
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from tests.providers import rules_hunyuan
from tests.providers.histories import HISTORIES as SHARED
from tests.providers.wire import signed
from tests.providers.wire_cn import (
    ASK,
    CHAT,
    GET_WEATHER,
    RIVER,
    SYSTEM,
    TOLD,
    WEATHER,
    WIRE,
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

ID, KEY = Secret("AKIDfakefakefakefake"), Secret("fakesecretkeyfakesecretkey")
NOW = 1700000000.7
TC3 = ("20-tc3-plain", "21-tc3-tools", "22-tc3-tool-result", "23-tc3-stream", "24-tc3-stream-tools")
HYLLM = ("01-hyllm-plain", "02-hyllm-stream")
ERRORS = ("70-tc3-error-signature", "71-tc3-error-limit", "72-hyllm-error")
OPENAI = tuple(
    f"4{number}-openai-{what}"
    for number, what in enumerate(("plain", "tools", "tool-result", "stream", "stream-tools"))
)


def codec(**fields: Any) -> HunyuanCodec:
    return HunyuanCodec("hunyuan-turbos-latest", language="zh-CN", **fields)


def body_of(call: ChatCall, dialect: Codec | None = None) -> dict[str, Any]:
    request = (dialect or codec()).build_request(call)
    body = json.loads(request.content)
    rules_hunyuan.check(body)
    return body


def test_no_case_is_left_out():
    assert set(names("hunyuan")) == {*TC3, *HYLLM, *ERRORS, *OPENAI, "73-openai-compatible-error"}


# TC3: the signature


def test_tc3_vector():
    body = b'{"Model":"hunyuan-turbos-latest","Messages":[{"Role":"user","Content":"hi"}]}'
    request = Request(
        url="https://hunyuan.tencentcloudapi.com/", content=body, headers={"Content-Type": "application/json"}
    )
    headers = signed(request, TC3Auth(ID, KEY), NOW).headers
    assert headers["authorization"] == (
        "TC3-HMAC-SHA256 Credential=AKIDfakefakefakefake/2023-11-14/hunyuan/tc3_request, "
        "SignedHeaders=content-type;host, "
        "Signature=adf97f30b85c2e2b45ed3e4140db5cfbbdeb03a31c8d506d46c42ff9167c6a3c"
    )
    assert headers["x-tc-timestamp"] == "1700000000"
    assert "x-tc-token" not in headers


@pytest.mark.parametrize("name", TC3)
def test_tc3_signatures_of_the_recordings(name: str):
    recorded = json.loads((load_path(name)).read_text(encoding="utf-8"))["request"]
    request = Request(
        url=recorded["url"], content=recorded["body_text"].encode(), headers={"content-type": "application/json"}
    )
    assert signed(request, TC3Auth(ID, KEY), NOW).headers["authorization"] == recorded["headers"]["authorization"]


def load_path(name: str) -> Any:
    return WIRE / "hunyuan" / f"{name}.json"


def test_tc3_signs_a_temporary_key_and_the_port_of_a_private_host():
    request = codec(base_url="http://127.0.0.1:8080/").build_request(chat(CHAT))
    assert request.url == "http://127.0.0.1:8080/"
    ours = signed(request, TC3Auth(ID, KEY, token=Secret("session-token")), NOW)
    assert ours.headers["x-tc-token"] == "session-token"
    elsewhere = signed(codec().build_request(chat(CHAT)), TC3Auth(ID, KEY), NOW)
    assert ours.headers["authorization"] != elsewhere.headers["authorization"]


# TC3: the wire


def question(name: str) -> ChatCall:
    told = (
        *ASK,
        AssistantMessage(
            "",
            (ToolCall(id="call_7f3a91c2_0", name="get_weather", arguments='{"city": "Hangzhou", "unit": "celsius"}'),),
        ),
        ToolMessage(WEATHER, "call_7f3a91c2_0", "get_weather"),
    )
    return {
        "20-tc3-plain": chat(SYSTEM, CHAT, parameters={"temperature": 0.7, "top_p": 0.8}),
        "21-tc3-tools": chat(SYSTEM, ASK, tools=True),
        "22-tc3-tool-result": chat(SYSTEM, told, tools=True),
        "23-tc3-stream": chat(RIVER, stream=True),
        "24-tc3-stream-tools": chat(SYSTEM, ASK, tools=True, stream=True),
    }[name]


def compact(case: Case) -> Case:
    """Compare without the spaces that the recorded caller wrote in the schema."""
    request = json.loads(json.dumps(case.request))
    for tool in request["json"].get("Tools", ()):
        schema = json.loads(tool["Function"]["Parameters"])
        tool["Function"]["Parameters"] = json.dumps(schema, separators=(",", ":"))
    return replace(case, request=request, volatile=("request.headers.authorization",))


@pytest.mark.parametrize("name", TC3)
def test_tc3_request(name: str):
    request = signed(codec().build_request(question(name)), TC3Auth(ID, KEY), NOW)
    # ToolChoice "auto" is the default of the API: we leave it out.
    assert_request(request, compact(load("hunyuan", name)), without=["ToolChoice"])
    rules_hunyuan.check(json.loads(request.content))


@pytest.mark.parametrize("name", TC3[:3])
def test_tc3_reply(name: str):
    case = load("hunyuan", name)
    assert codec().parse_error(case.status, {}, case.json) is None
    reply = codec().parse_reply(case.json)
    assert_reply(reply, case)
    assert reply.request_id == "0c7f1a52-1111-4222-8333-0123456789ab"
    assert reply.model_id == "hunyuan/hunyuan-turbos-latest"


@pytest.mark.parametrize("name", TC3[3:])
def test_tc3_stream_however_it_is_cut(name: str):
    assert_stream(codec(), load("hunyuan", name))


@pytest.mark.parametrize("name", ERRORS)
def test_errors_in_a_200_body(name: str):
    case = load("hunyuan", name)
    dialect = HyllmCodec() if "hyllm" in name else codec()
    error = dialect.parse_error(case.status, {}, case.json)
    assert_error(error, case)
    assert error is not None
    assert error.request_id


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        ("AuthFailure.SecretIdNotFound", AuthenticationFailed, False),
        ("AuthFailure.SignatureExpire", AuthenticationFailed, False),
        ("AuthFailure.UnauthorizedOperation", PermissionDenied, False),
        ("RequestLimitExceeded", RateLimited, True),
        ("RequestLimitExceeded.UinLimitExceeded", RateLimited, True),
        ("LimitExceeded", RateLimited, True),
        ("FailedOperation.EngineServerLimitExceeded", Overloaded, True),
        ("FailedOperation.EngineRequestTimeout", RequestTimeout, True),
        ("FailedOperation.EngineServerError", ServerFailed, True),
        ("FailedOperation.ConsoleServerError", ServerFailed, True),
        ("InternalError", ServerFailed, True),
        ("FailedOperation.ResourcePackExhausted", QuotaExceeded, False),
        ("FailedOperation.FreeResourcePackExhausted", QuotaExceeded, False),
        ("FailedOperation.ServiceStopArrears", QuotaExceeded, False),
        ("ResourceInsufficient.ChargeResourceExhaust", QuotaExceeded, False),
        ("ResourceUnavailable.InArrears", QuotaExceeded, False),
        ("ResourceUnavailable.LowBalance", QuotaExceeded, False),
        ("FailedOperation.ServiceNotActivated", PermissionDenied, False),
        ("FailedOperation.ServiceStop", PermissionDenied, False),
        ("FailedOperation.UserUnAuthError", PermissionDenied, False),
        ("InvalidParameter", BadRequest, False),
        ("InvalidParameterValue.ParameterValueError", BadRequest, False),
        ("InvalidParameterValue.Model", NotFound, False),
        ("OperationDenied.TextIllegalDetected", ContentFiltered, False),
        ("OperationDenied.ImageIllegalDetected", ContentFiltered, False),
        ("Unheard.Of", InvalidResponse, False),
    ],
)
def test_tc3_error_codes(code: str, kind: type[Exception], retryable: bool):
    body = {"Response": {"Error": {"Code": code, "Message": "what happened"}, "RequestId": "r-1"}}
    error = codec().parse_error(200, {}, body)
    assert type(error) is kind
    assert error.retryable is retryable
    assert (error.code, error.request_id, error.provider, error.status) == (code, "r-1", "hunyuan", 200)
    assert "what happened" in str(error)


def test_http_errors_without_a_known_body():
    error = codec().parse_error(502, {"x-tc-requestid": "r-2"}, None, "<html>bad gateway")
    assert type(error) is ServerFailed
    assert error.request_id == "r-2"
    assert type(codec().parse_error(429, {}, ["odd"])) is RateLimited
    assert codec().parse_error(200, {}, None) is None
    assert codec().parse_error(200, {}, {"Response": {"Choices": []}}) is None


@pytest.mark.parametrize(("code", "kind"), [(4000, ServerFailed), ("4001", RequestTimeout)])
def test_an_error_inside_a_stream(code: object, kind: type[Exception]):
    first = b'data: {"Choices":[{"Delta":{"Content":"The "},"FinishReason":""}]}\n\n'
    fault = json.dumps({"ErrorMsg": {"Msg": "engine failed", "Code": code}, "Id": "x"}).encode()
    with pytest.raises(kind, match="engine failed"):
        read_pieces(codec(), [first, b"data: " + fault + b"\n\n"])


def test_a_hidden_error_is_never_read_as_a_reply():
    with pytest.raises(RateLimited):
        codec().parse_reply(load("hunyuan", "71-tc3-error-limit").json)
    with pytest.raises(AuthenticationFailed):
        HyllmCodec().parse_reply(load("hunyuan", "72-hyllm-error").json)


def test_an_error_in_place_of_a_stream_frame():
    state = codec().new_state()
    with pytest.raises(AuthenticationFailed):
        codec().parse_event(state, load("hunyuan", "70-tc3-error-signature").body)


def test_sensitive_is_a_content_filter_and_keeps_the_text():
    reply = codec().parse_reply({"Choices": [{"Message": {"Content": "half"}, "FinishReason": "sensitive"}]})
    assert (reply.finish_reason, reply.raw_finish_reason, reply.reply) == ("content_filter", "sensitive", "half")
    assert reply.usage is None


def test_reasoning_is_read_and_never_sent_back():
    message = {"Role": "assistant", "ReasoningContent": "hmm", "Content": "2"}
    reply = codec().parse_reply({"Response": {"Choices": [{"Message": message, "FinishReason": "stop"}]}})
    assert (reply.message.reasoning, reply.reply) == ("hmm", "2")
    body = body_of(chat(UserMessage("1+1"), reply.message, UserMessage("sure?")))
    assert "hmm" not in json.dumps(body)


def test_parallel_calls_that_all_have_index_0_are_distinguished_by_id():
    def call(id: str, name: str, arguments: str) -> dict[str, Any]:
        return {"Id": id, "Type": "function", "Index": 0, "Function": {"Name": name, "Arguments": arguments}}

    deltas = [[call("a", "add", '{"x"')], [call("a", "add", ":1}")], [call("b", "now", "")], [call("b", "now", "")]]
    chunks = [{"Choices": [{"Delta": {"ToolCalls": calls}, "FinishReason": ""}]} for calls in deltas]
    chunks.append({"Choices": [{"Delta": {}, "FinishReason": "tool_calls"}]})
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    reply, _ = read_pieces(codec(), [body])
    assert [(c.id, c.name, c.arguments) for c in reply.tool_calls] == [("a", "add", '{"x":1}'), ("b", "now", "{}")]


def test_calls_without_ids_get_them_and_objects_become_text():
    calls = [
        {"Index": 0, "Function": {"Name": "add", "Arguments": {"x": "é"}}},
        {"Index": 1, "Function": {"Name": "now", "Arguments": None}},
    ]
    body = {"Response": {"Choices": [{"Message": {"Content": None, "ToolCalls": calls}, "FinishReason": "stop"}]}}
    reply = codec().parse_reply(body, prefix="7")
    assert [(c.id, c.name, c.arguments) for c in reply.tool_calls] == [
        ("call_000000000000000700000000", "add", '{"x":"é"}'),
        ("call_000000000000000700000001", "now", "{}"),
    ]
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "body", [{}, {"Response": {}}, {"Response": {"Choices": []}}, [], None, {"Choices": [{"Message": {"Content": 5}}]}]
)
def test_unknown_shapes_are_invalid_responses(body: Any):
    with pytest.raises(InvalidResponse):
        codec().parse_reply(body)


@pytest.mark.parametrize("data", [b"[1]", b"{", b'{"Choices":5}', b'{"Choices":[{"Delta":{"Content":[]}}]}'])
def test_unknown_frames_are_invalid_responses(data: bytes):
    with pytest.raises(InvalidResponse):
        codec().parse_event(codec().new_state(), data)


def test_tool_choice():
    assert body_of(chat(ASK, tools=True, tool_choice="none"))["ToolChoice"] == "none"
    forced = body_of(chat(ASK, tools=True, tool_choice=NamedTool("get_weather")))
    assert (forced["ToolChoice"], forced["CustomTool"]) == ("custom", forced["Tools"][0])
    # With one tool `required` is that tool.
    assert body_of(chat(ASK, tools=True, tool_choice="required"))["ToolChoice"] == "custom"
    two = (GET_WEATHER, ToolSpec(name="now", parameters={"type": "object", "properties": {}}))
    with pytest.raises(ParameterError, match="required"):
        codec().build_request(chat(ASK, tools=two, tool_choice="required"))
    with pytest.raises(ParameterError, match="nothing"):
        codec().build_request(chat(ASK, tools=True, tool_choice=NamedTool("nothing")))


def test_parameters():
    parameters = {
        "temperature": 0,
        "top_p": 1,
        "stop": ["END"],
        "seed": 7,
        "enable_enhancement": True,
        "reasoning_effort": "none",
        "extra_body": {"TopicChoice": "x"},
        "extra_headers": {"x-trace": "1"},
    }
    request = codec().build_request(chat(RIVER, parameters=parameters))
    body = json.loads(request.content)
    assert (body["Temperature"], body["TopP"], body["Stop"], body["Seed"]) == (0, 1, ["END"], 7)
    assert (body["EnableEnhancement"], body["EnableThinking"], body["TopicChoice"]) == (True, False, "x")
    assert request.headers["x-trace"] == "1"
    for name, value in {"max_tokens": 5, "top_k": 3, "presence_penalty": 1, "seed": 0, "user": "u"}.items():
        with pytest.raises(ParameterError, match=name):
            codec().build_request(chat(RIVER, parameters={name: value}))


def test_the_system_text_describes_an_output_schema():
    call = chat(RIVER, output_schema=OutputSchema(name="x", schema={"type": "object", "title": "River"}))
    assert '"title":"River"' in body_of(call)["Messages"][0]["Content"]
    assert '"title":"River"' in body_of(call, HyllmCodec())["messages"][0]["content"]


def test_features_follow_the_model():
    assert codec().features.tools
    assert HunyuanCodec("hunyuan-functioncall").features.tools
    assert not HunyuanCodec("hunyuan-lite").features.tools
    assert HunyuanCodec("hunyuan-lite", tools=True).features.tools
    assert HunyuanCodec("hunyuan-vision").features.images
    assert not HunyuanCodec("hunyuan-turbo-vision").features.tools
    with pytest.raises(MessageError, match="hunyuan-lite"):
        HunyuanCodec("hunyuan-lite").build_request(chat(ASK, tools=True))
    for dialect in (HunyuanCodec("hunyuan-lite"), HyllmCodec()):
        assert "Tools" not in body_of(chat(ASK, tools=True, tool_choice="none"), dialect)


CALL_A = ToolCall(id="a", name="add", arguments='{"x": 1}')
CALL_B = ToolCall(id="b", name="now", arguments="{}")
HISTORIES: dict[str, tuple[Any, ...]] = {
    "systems": (SystemMessage("one"), UserMessage("hi"), SystemMessage("two")),
    "system alone": (SystemMessage("one"),),
    "users": (UserMessage("a"), UserMessage((TextPart("b"), TextPart("c")))),
    "assistant first": (AssistantMessage("hello"), UserMessage("hi")),
    "assistant last": (UserMessage("hi"), AssistantMessage("hello")),
    "assistants": (UserMessage("hi"), AssistantMessage("a"), AssistantMessage("b"), UserMessage("c")),
    "parallel": (
        UserMessage("q"),
        AssistantMessage("I look", (CALL_A, CALL_B)),
        ToolMessage("", "b", "now"),
        ToolMessage("broken", "a", "add", is_error=True),
    ),
    "then a user": (UserMessage("q"), AssistantMessage("", (CALL_A,)), ToolMessage("1", "a"), UserMessage("and?")),
    "sequence": (
        UserMessage("q"),
        AssistantMessage("", (CALL_A,)),
        ToolMessage("1", "a"),
        AssistantMessage("", (CALL_B,)),
        ToolMessage("2", "b"),
        AssistantMessage("done"),
        UserMessage("thanks"),
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
    "told": TOLD,
    **SHARED,
}


@pytest.mark.parametrize("dialect", [codec(), HunyuanCodec("hunyuan-lite"), HyllmCodec()], ids=["tc3", "lite", "hyllm"])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_any_history_can_be_sent(history: tuple[Any, ...], dialect: Codec):
    body_of(chat(history), dialect)


def test_parallel_results_are_one_turn_in_the_order_of_the_calls():
    body = body_of(chat(HISTORIES["parallel"]))
    assert [message["Role"] for message in body["Messages"]] == ["user", "assistant", "tool", "tool"]
    assert [message.get("ToolCallId") for message in body["Messages"][2:]] == ["a", "b"]
    assert body["Messages"][3]["Content"] == "(no output)"


def test_images():
    parts = UserMessage((TextPart("what?"), ImagePart(url="https://example.com/a.png"), ImagePart(data="aGk=")))
    body = body_of(chat(parts), HunyuanCodec("hunyuan-vision"))
    assert body["Messages"][0]["Contents"] == [
        {"Type": "text", "Text": "what?"},
        {"Type": "image_url", "ImageUrl": {"Url": "https://example.com/a.png"}},
        {"Type": "image_url", "ImageUrl": {"Url": "data:image/png;base64,aGk="}},
    ]
    for dialect in (codec(), HyllmCodec()):
        with pytest.raises(MessageError, match="an image"):
            dialect.build_request(chat(parts))
    with pytest.raises(MessageError, match="a file"):
        HunyuanCodec("hunyuan-vision").build_request(chat(UserMessage((FilePart(url="https://example.com/a.pdf"),))))


def test_too_many_messages_are_refused_before_any_request():
    history = (UserMessage("q"), AssistantMessage("a")) * 20
    for dialect in (codec(), HyllmCodec()):
        with pytest.raises(MessageError, match="at most 40"):
            dialect.build_request(chat(history, UserMessage("q")))
    assert codec(max_messages=None).build_request(chat(history, UserMessage("q")))


def test_url_and_headers_have_no_secret():
    request = signed(codec().build_request(chat(CHAT)), TC3Auth(ID, KEY), NOW)
    assert KEY.reveal() not in repr(request)
    assert KEY.reveal() not in repr(TC3Auth(ID, KEY).__dict__)


# The API of 2023


def hyllm_auth() -> HyllmAuth:
    return HyllmAuth(1300000000, ID, KEY, new_query_id=lambda: "query_id_00000000-0000-4000-8000-000000000001")


@pytest.mark.parametrize("name", HYLLM)
def test_hyllm_request_and_signature(name: str):
    parameters = {"temperature": 0.7, "top_p": 0.8} if name == HYLLM[0] else {}
    call = chat(CHAT, parameters=parameters, stream=name == HYLLM[1])
    # LMClient added 10,000 seconds to the clock; we take it as it is.
    request = signed(HyllmCodec().build_request(call), hyllm_auth(), now=1700010000)
    assert_request(request, load("hunyuan", name))
    rules_hunyuan.check(json.loads(request.content))


def test_hyllm_signed_text():
    recorded = load("hunyuan", HYLLM[0]).request
    assert signed_text(recorded["url"], recorded["json"]) == (
        "hunyuan.cloud.tencent.com/hyllm/v1/chat/completions?app_id=1300000000&expired=1700096400"
        '&messages=[{"role":"user","content":"Hello"},{"role":"assistant","content":"Hello! How can I help?"},'
        '{"role":"user","content":"Name one river in Zhejiang."}]'
        "&query_id=query_id_00000000-0000-4000-8000-000000000001&secret_id=AKIDfakefakefakefake&stream=0"
        "&temperature=0.7&timestamp=1700010000&top_p=0.8"
    )


def test_hyllm_query_ids_differ():
    auth = HyllmAuth(1, ID, KEY)
    ids = {json.loads(signed(HyllmCodec().build_request(chat(CHAT)), auth).content)["query_id"] for _ in range(2)}
    assert len(ids) == 2


def test_hyllm_reply_and_stream():
    case = load("hunyuan", HYLLM[0])
    assert HyllmCodec().parse_error(200, {}, case.json) is None
    reply = HyllmCodec().parse_reply(case.json)
    assert_reply(reply, case)
    assert reply.model_id == "hunyuan/v1"
    assert_stream(HyllmCodec(), load("hunyuan", HYLLM[1]))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Signature mismatch", AuthenticationFailed),
        ("concurrency limit", RateLimited),
        ("quota used up", QuotaExceeded),
        ("internal error", ServerFailed),
        ("odd", InvalidResponse),
    ],
)
def test_hyllm_errors_are_sorted_by_their_words(message: str, kind: type[Exception]):
    fault = {"error": {"code": 1, "message": message}, "req_id": "r"}
    assert type(HyllmCodec().parse_error(200, {}, fault)) is kind
    with pytest.raises(kind):
        HyllmCodec().parse_event(HyllmCodec().new_state(), json.dumps(fault).encode())
    assert type(HyllmCodec().parse_error(500, {}, None, "x")) is ServerFailed


def test_hyllm_takes_no_tools_and_few_parameters():
    assert not HyllmCodec().features.tools
    with pytest.raises(MessageError, match="tool_mode='prompt'"):
        HyllmCodec().build_request(chat(ASK, tools=True))
    with pytest.raises(ParameterError, match="max_tokens"):
        HyllmCodec().build_request(chat(ASK, parameters={"max_tokens": 3}))
    with pytest.raises(InvalidResponse):
        HyllmCodec().parse_reply({"choices": []})


# The endpoint that speaks OpenAI's language

PLAIN = HunyuanCompatibleCodec("hunyuan-turbos-latest")
OFF = {"enable_enhancement": False}
OPENAI_CALLS: dict[str, ChatCall] = {
    "40-openai-plain": chat(
        SYSTEM, CHAT, parameters={"max_tokens": 128, "temperature": 0.7, "top_p": 0.8, "enable_enhancement": False}
    ),
    "41-openai-tools": chat(SYSTEM, ASK, tools=True, parameters=OFF),
    "42-openai-tool-result": chat(SYSTEM, TOLD, tools=True, parameters=OFF),
    "43-openai-stream": chat(RIVER, stream=True, parameters=OFF),
    "44-openai-stream-tools": chat(SYSTEM, ASK, tools=True, stream=True, parameters=OFF),
}


@pytest.mark.parametrize("name", OPENAI)
def test_compatible_request(name: str):
    request = signed(PLAIN.build_request(OPENAI_CALLS[name]), BearerAuth(Secret("sk-fake-hunyuan-key")))
    # tool_choice "auto" is the default: we leave it out.
    assert_request(request, load("hunyuan", name), without=["tool_choice"])


@pytest.mark.parametrize("name", OPENAI[:3])
def test_compatible_reply(name: str):
    case = load("hunyuan", name)
    assert PLAIN.parse_error(case.status, {}, case.json) is None
    assert_reply(PLAIN.parse_reply(case.json), case)


@pytest.mark.parametrize("name", OPENAI[3:])
def test_compatible_stream_however_it_is_cut(name: str):
    assert_stream(PLAIN, load("hunyuan", name))


def test_compatible_error():
    case = load("hunyuan", "73-openai-compatible-error")
    assert_error(PLAIN.parse_error(case.status, {}, case.json), case)


@pytest.mark.parametrize("dialect", [PLAIN, HunyuanCompatibleCodec("hunyuan-lite")], ids=["tools", "no tools"])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_compatible_any_history_can_be_sent(history: tuple[Any, ...], dialect: Codec):
    body_of(chat(history), dialect)


def test_compatible_models_without_tools():
    lite = HunyuanCompatibleCodec("hunyuan-lite")
    assert not lite.features.tools
    assert HunyuanCompatibleCodec("hunyuan-lite", tools=True).features.tools
    with pytest.raises(MessageError, match="tool_mode='prompt'"):
        lite.build_request(chat(ASK, tools=True))
    assert "tools" not in body_of(chat(ASK, tools=True, tool_choice="none"), lite)


def test_compatible_order_is_a_bad_request():
    """The error that users reported for messages that did not alternate."""
    fault = {
        "id": "x",
        "message": "messages 中 user（tool） 和 assistant 角色需交替出现",
        "type": "invalid_request_error",
    }
    error = PLAIN.parse_error(400, {}, {"error": {**fault, "code": "1001"}})
    assert type(error) is BadRequest
    assert error.code == "1001"
