from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.messages import AssistantMessage, ImagePart, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
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
from lmagent.providers.base import NamedTool, Request
from lmagent.providers.wenxin import MODELS, AccessTokenAuth, BceSignatureAuth, IamBearerAuth, KeyPairAuth, WenxinCodec
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from tests.providers import rules_wenxin
from tests.providers.histories import HISTORIES
from tests.providers.wire import sent_json, signed
from tests.providers.wire_cn import (
    ASK,
    CHAT,
    GET_WEATHER,
    RIVER,
    SYSTEM,
    TOLD,
    WEATHER,
    WEATHER_CALL,
    assert_error,
    assert_reply,
    assert_request,
    assert_stream,
    chat,
    load,
    read_pieces,
)

THOUGHTS = "The user wants the weather in Hangzhou, so I should call get_weather."
TOLD_WITH_THOUGHTS = (
    *ASK,
    AssistantMessage("", (WEATHER_CALL,), details={"wenxin": {"thoughts": THOUGHTS}}),
    ToolMessage(WEATHER, WEATHER_CALL.id, "get_weather"),
)
SDK_NOISE = ("stream", "extra_parameters")  # telemetry; and `false` is what leaving it out means
TOKEN = AccessTokenAuth(Secret("24.fake-access-token"))


def codec(model: str = "ERNIE-Bot", **options: Any) -> WenxinCodec:
    return WenxinCodec(model, **options)


def event(text: str = "", **fields: Any) -> bytes:
    return f"data: {json.dumps({'result': text, **fields})}\n\n".encode()


# Requests


@pytest.mark.parametrize(
    ("case", "call", "noise"),
    [
        (
            "01-classic-plain",
            chat(SYSTEM, CHAT, parameters={"temperature": 0.7, "top_p": 0.8, "max_tokens": 128}),
            SDK_NOISE,
        ),
        ("02-classic-function", chat(ASK, tools=True, parameters={"temperature": 0.7}), SDK_NOISE),
        (
            "03-classic-function-result",
            chat(TOLD_WITH_THOUGHTS, tools=True, parameters={"temperature": 0.7}),
            SDK_NOISE,
        ),
        ("04-classic-stream", chat(RIVER, stream=True), ("extra_parameters",)),
        ("05-classic-stream-function", chat(ASK, tools=True, stream=True), ("extra_parameters",)),
        ("51-classic-plain-lmclient", chat(SYSTEM, CHAT, parameters={"temperature": 0}), ()),
        ("52-classic-function-lmclient", chat(ASK, tools=True), ()),
        ("53-classic-function-result-lmclient", chat(TOLD_WITH_THOUGHTS, tools=True), ()),
    ],
)
def test_requests_are_what_the_sdks_send(case, call, noise):
    request = signed(codec().build_request(call), TOKEN)
    assert_request(request, load("wenxin", case), without=noise)
    rules_wenxin.check(sent_json(request))


def test_request_of_erniebot_differs_in_an_empty_content_only():
    case = load("wenxin", "20-classic-erniebot-function-result")
    request = signed(codec().build_request(chat(TOLD_WITH_THOUGHTS, tools=True)), TOKEN)
    theirs = json.loads(json.dumps(case.request))
    assert theirs["json"]["messages"][1]["content"] is None  # both are accepted; ours is the form of qianfan's SDK
    theirs["json"]["messages"][1]["content"] = ""
    assert_request(request, replace(case, request=theirs), without=["max_output_tokens"])


# Replies


@pytest.mark.parametrize(
    "case",
    [
        "01-classic-plain",
        "02-classic-function",
        "03-classic-function-result",
        "20-classic-erniebot-function-result",
        "51-classic-plain-lmclient",
        "52-classic-function-lmclient",
        "53-classic-function-result-lmclient",
    ],
)
def test_replies_are_read_as_expected(case):
    recorded = load("wenxin", case)
    assert codec().parse_error(200, {}, recorded.json) is None
    reply = codec().parse_reply(recorded.json)
    assert_reply(reply, recorded)
    thoughts = recorded.expect.get("thoughts")
    assert reply.message.details == ({"wenxin": {"thoughts": thoughts}} if thoughts else {})


@pytest.mark.parametrize("case", ["04-classic-stream", "05-classic-stream-function"])
def test_streams_are_read_as_expected_however_they_are_cut(case):
    recorded = load("wenxin", case)
    reply = assert_stream(codec(), recorded)
    assert reply.message.details.get("wenxin", {}).get("thoughts") == recorded.expect.get("thoughts")


def test_a_reply_is_sent_back_unchanged():
    reply = codec().parse_reply(load("wenxin", "02-classic-function").json)
    call = chat(ASK, reply.message, ToolMessage(WEATHER, reply.tool_calls[0].id, "get_weather"), tools=True)
    request = signed(codec().build_request(call), TOKEN)
    assert_request(request, load("wenxin", "53-classic-function-result-lmclient"))


def test_minted_ids_carry_the_prefix():
    [call] = codec().parse_reply(load("wenxin", "02-classic-function").json, prefix="7").tool_calls
    assert call.id == "call_000000000000000700000000"


def test_thoughts_and_finish_reason_may_be_missing():
    reply = codec().parse_reply({"result": "", "function_call": {"name": "f", "arguments": "{}"}})
    assert (reply.finish_reason, reply.raw_finish_reason) == ("tool_calls", None)
    assert reply.message.details == {}
    reply = codec().parse_reply({"result": "x", "usage": None})
    assert (reply.finish_reason, reply.usage) == ("stop", None)
    assert codec().parse_reply({"result": "x", "is_truncated": True}).finish_reason == "length"
    assert codec().parse_reply({"result": "x", "finish_reason": "new"}).finish_reason == "other"


@pytest.mark.parametrize(
    ("arguments", "text"), [("", "{}"), (None, "{}"), ("  ", "{}"), ({"x": "你"}, '{"x":"你"}'), ('{"x": ', '{"x": ')]
)
def test_arguments_are_kept_as_text(arguments, text):
    reply = codec().parse_reply({"result": "", "function_call": {"name": "f", "arguments": arguments}})
    assert reply.tool_calls[0].arguments == text


def test_a_safety_hit_is_content_filter_and_keeps_the_text():
    reply = codec().parse_reply(
        {"result": "no.", "need_clear_history": True, "ban_round": -1, "finish_reason": "normal"}
    )
    assert (reply.reply, reply.finish_reason) == ("no.", "content_filter")
    assert reply.message.details == {"wenxin": {"need_clear_history": True, "ban_round": -1}}
    streamed, _ = read_pieces(codec(), [event("n"), event("o.", need_clear_history=True, ban_round=2, is_end=True)])
    assert (streamed.reply, streamed.finish_reason) == ("no.", "content_filter")


def test_unknown_shapes_are_invalid_responses():
    for strange in (
        {},
        [],
        None,
        "x",
        {"result": 5},
        {"function_call": {"arguments": "{}"}},
        {"result": "", "function_call": 1},
    ):
        with pytest.raises(InvalidResponse):
            assert codec().parse_reply(strange).reply
    with pytest.raises(InvalidResponse):
        read_pieces(codec(), [b"data: <html>\n\n"])
    assert codec().parse_reply({"result": "x", "new_field": {"a": 1}}).reply == "x"


def test_an_error_inside_a_stream_is_raised():
    with pytest.raises(Overloaded) as caught:
        read_pieces(codec(), [event("The "), b'data: {"error_code":336100,"error_msg":"busy"}\n\n'])
    assert (caught.value.code, caught.value.retryable) == ("336100", True)


def test_a_stream_without_end_mark_is_not_complete():
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [event("The ")])


def test_events_after_the_end_mark_are_ignored():
    reply, _ = read_pieces(codec(), [event("a", is_end=True), b"data: [DONE]\n\n", event("b", is_end=True)])
    assert reply.reply == "a"


# Errors


@pytest.mark.parametrize("case", ["71-classic-error-qps", "72-classic-error-bad-messages", "73-classic-token-error"])
def test_errors_of_the_cases(case):
    recorded = load("wenxin", case)
    assert_error(codec().parse_error(recorded.status, {}, recorded.json), recorded)


def test_error_of_an_expired_token_makes_the_auth_refresh():
    recorded = load("wenxin", "70-classic-error-token-expired")
    error = codec().parse_error(recorded.status, {}, recorded.json)
    assert_error(error, recorded)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (1, ServerFailed, True),
        (2, ServerFailed, True),
        (3, BadRequest, False),
        (4, RateLimited, True),
        (6, PermissionDenied, False),
        (13, AuthenticationFailed, False),
        (14, AuthenticationFailed, False),
        (15, ServerFailed, True),
        (17, QuotaExceeded, False),
        (18, RateLimited, True),
        (19, QuotaExceeded, False),
        (100, AuthenticationFailed, False),
        (110, AuthenticationFailed, False),
        (111, AuthenticationFailed, False),
        (336000, ServerFailed, True),
        (336001, BadRequest, False),
        (336002, BadRequest, False),
        (336003, BadRequest, False),
        (336004, PermissionDenied, False),
        (336005, PermissionDenied, False),
        (336006, BadRequest, False),
        (336007, ContextTooLong, False),
        (336103, ContextTooLong, False),
        (336100, Overloaded, True),
        (336501, RateLimited, True),
        (336502, RateLimited, True),
        (424242, InvalidResponse, False),
    ],
)
def test_error_codes_are_sorted(code, kind, retryable):
    for answer in ({"error_code": code, "error_msg": "m", "id": "as-1"}, {"code": code, "msg": "m", "id": "as-1"}):
        error = codec().parse_error(200, {}, answer)
        assert type(error) is kind
        assert (error.retryable, error.code, error.message, error.request_id) == (retryable, str(code), "m", "as-1")
        assert (error.provider, error.model, error.status) == ("wenxin", "ERNIE-Bot", 200)


def test_errors_without_a_body_are_sorted_by_status():
    assert type(codec().parse_error(502, {}, None, "<html>bad gateway")) is ServerFailed
    assert type(codec().parse_error(404, {}, {})) is NotFound
    assert type(codec().parse_error(500, {}, {"error_code": "x", "error_msg": "m"})) is ServerFailed
    assert codec().parse_error(200, {}, {"error_code": 0, "result": "x"}) is None


# Histories


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("model", ["ERNIE-Bot", "ERNIE-Speed-8K"])
def test_any_history_can_be_sent(name, model):
    messages = HISTORIES[name]
    rules_wenxin.check(sent_json(codec(model).build_request(chat(messages))))
    if codec(model).features.tools:
        rules_wenxin.check(sent_json(codec(model).build_request(chat(messages, tools=True))))


def test_system_text_is_put_before_the_user_message_with_functions():
    request = sent_json(codec().build_request(chat(SYSTEM, SystemMessage("Be kind."), ASK, tools=True)))
    assert "system" not in request
    assert request["messages"][0]["content"] == f"{SYSTEM.content}\n\nBe kind.\n\n{ASK[0].text}"
    assert sent_json(codec().build_request(chat(SYSTEM)))["messages"] == [{"role": "user", "content": SYSTEM.content}]


def test_parallel_calls_are_sent_as_consecutive_pairs():
    calls = (ToolCall(id="a", name="f"), ToolCall(id="b", name="g", arguments='{"x":1}'))
    messages = (UserMessage("q"), AssistantMessage("hm", calls), ToolMessage("1", "b"), ToolMessage('{"y":2}', "a"))
    assert sent_json(codec().build_request(chat(messages, tools=True)))["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "hm", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": '{"y":2}'},
        {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": '{"x":1}'}},
        {"role": "function", "name": "g", "content": '{"tool_result":"1"}'},
    ]


def test_results_are_json_objects():
    def content(result: str, *, is_error: bool = False) -> str:
        message = ToolMessage(result, WEATHER_CALL.id, is_error=is_error)
        call = chat(ASK, AssistantMessage("", (WEATHER_CALL,)), message, tools=True)
        return sent_json(codec().build_request(call))["messages"][-1]["content"]

    assert content("晴") == '{"tool_result":"晴"}'
    assert content("[1]") == '{"tool_result":"[1]"}'
    assert content(' {"a": 1}') == ' {"a": 1}'
    assert content("boom", is_error=True) == '{"error":"boom"}'


def test_images_are_refused():
    message = UserMessage((ImagePart(url="http://x/y.png"),))
    with pytest.raises(MessageError, match="wenxin cannot express a user message with an image"):
        codec().build_request(chat(message))


def test_building_changes_nothing_and_repeats():
    call = chat(TOLD, tools=True)
    first = codec().build_request(call)
    assert codec().build_request(call) == first
    assert call == chat(TOLD, tools=True)


# Models, functions, tool choice, parameters


def test_the_endpoint_is_chosen_by_the_model():
    def end(model: str, **options: Any) -> str:
        return codec(model, **options).build_request(chat(RIVER)).url.rpartition("/chat/")[2]

    assert end("ERNIE-Bot") == end("ERNIE-3.5-8K") == "completions"
    assert end("ERNIE-Bot-turbo") == "eb-instant"
    assert end("ernie-bot-4") == "completions_pro"
    assert end("ERNIE-Speed-8K") == "ernie_speed"
    assert end("ERNIE-Character-8K") == "ernie-char-8k"
    assert end("Llama_2_7B") == "llama_2_7b"
    assert end("mine", endpoint="abc_123") == "abc_123"
    assert codec("ERNIE-Bot").model_id == "wenxin/ERNIE-Bot"


def test_models_without_functions_refuse_tools_unless_overridden():
    assert [codec(model).features.tools for model in ("ERNIE-Bot-4", "ERNIE-Bot-turbo", "unknown")] == [
        True,
        False,
        False,
    ]
    assert sum(facts.functions for facts in MODELS.values()) == 9
    with pytest.raises(MessageError, match="tool_mode"):
        codec("ERNIE-Bot-turbo").build_request(chat(ASK, tools=True))
    assert "functions" in sent_json(codec("ERNIE-Bot-turbo", tools=True).build_request(chat(ASK, tools=True)))


def test_functions_always_have_a_description_and_properties():
    spec = ToolSpec(name="what_time_is_it")
    assert sent_json(codec().build_request(chat(ASK, tools=(spec,))))["functions"] == [
        {
            "name": "what_time_is_it",
            "description": "what time is it",
            "parameters": {"type": "object", "properties": {}},
        }
    ]


def test_tool_choice():
    def choice(value: Any, *tools: ToolSpec) -> Any:
        request = sent_json(codec().build_request(chat(ASK, tools=tools or (GET_WEATHER,), tool_choice=value)))
        return request.get("tool_choice"), "functions" in request

    named = {"type": "function", "function": {"name": "get_weather"}}
    assert choice("auto") == (None, True)
    assert choice("none") == (None, False)
    assert choice(NamedTool("get_weather")) == (named, True)
    assert choice("required") == (named, True)  # the only tool there is
    with pytest.raises(ParameterError, match="required"):
        choice("required", GET_WEATHER, ToolSpec(name="add"))


def test_an_extra_member_replaces_ours():
    request = codec().build_request(chat(RIVER, parameters={"extra_body": {"messages": [1]}}))
    assert request.content.count(b'"messages"') == 1
    assert sent_json(request)["messages"] == [1]


def test_parameters_are_translated():
    def rendered(**parameters: Any) -> dict[str, Any]:
        request = sent_json(codec().build_request(chat(RIVER, parameters=parameters)))
        rules_wenxin.check(request)
        return {name: value for name, value in request.items() if name != "messages"}

    assert rendered(temperature=0) == {"temperature": 0.01}
    assert rendered(temperature=1, top_p=0, max_tokens=1) == {"temperature": 1, "top_p": 0, "max_output_tokens": 2}
    assert rendered(stop=["a"], user="u", penalty_score=1.5) == {"stop": ["a"], "user_id": "u", "penalty_score": 1.5}
    assert rendered(parallel_tool_calls=False) == {}
    assert rendered(response_format={"type": "json_object"}) == {"response_format": "json_object"}
    assert rendered(extra_body={"disable_search": True}) == {"disable_search": True}


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 1.5},
        {"penalty_score": 3},
        {"stop": ["a"] * 5},
        {"response_format": {"type": "json_schema"}},
        {"stop": ["a" * 21]},
        {"parallel_tool_calls": True},
        {"seed": 1},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"top_k": 3},
        {"reasoning_effort": "low"},
    ],
)
def test_parameters_that_cannot_be_expressed_are_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        codec().build_request(chat(RIVER, parameters=parameters))


def test_structured_output_asks_for_a_json_object():
    request = codec().build_request(chat(RIVER, output_schema=OutputSchema(name="r", schema={"type": "object"})))
    assert sent_json(request)["response_format"] == "json_object"
    assert '{"type":"object"}' in sent_json(request)["system"]


def test_extra_headers_are_sent():
    request = codec().build_request(chat(RIVER, parameters={"extra_headers": {"x-a": "b"}}))
    assert request.headers == {"content-type": "application/json", "x-a": "b"}


# Credentials


def key_pair() -> KeyPairAuth:
    return KeyPairAuth(Secret("fake-api-key"), Secret("fake-secret-key"))


def test_the_token_is_obtained_once_and_cached():
    auth, request = key_pair(), codec().build_request(chat(RIVER))
    assert auth.needs_exchange
    flow = auth.flow(request, 1000.0)
    asked = next(flow)
    assert_request(asked, load("wenxin", "00-token"))
    theirs = load("wenxin", "50-classic-token-lmclient")
    assert theirs.request["json"] is None  # LMClient sent no body, qianfan's SDK `{}`: both work
    assert_request(asked, replace(theirs, request={**theirs.request, "json": {}}))
    with pytest.raises(StopIteration) as stop:
        flow.send(load("wenxin", "00-token").json)
    assert stop.value.value.params == {"access_token": "24.fake-access-token"}
    assert "access_token" not in stop.value.value.url
    assert not auth.needs_exchange
    assert signed(request, auth, 1000.0 + 2_500_000).params == {"access_token": "24.fake-access-token"}
    assert next(auth.flow(request, 1000.0 + 2592000 - 80_000)).url.endswith("/oauth/2.0/token")


def test_one_call_renews_while_the_others_go_on_with_the_old_token():
    for auth, reply, name in (
        (key_pair(), {"access_token": "t-000001", "expires_in": 1000}, "access_token"),
        (IamBearerAuth(Secret("fake-iam-ak"), Secret("fake-iam-sk")), {"token": "t-000001"}, "token"),
    ):
        request = codec().build_request(chat(RIVER))
        flow = auth.flow(request, 0.0)
        next(flow)
        with pytest.raises(StopIteration) as stop:
            flow.send(reply)
        before, late = stop.value.value, 0.95 * (1000 if name == "access_token" else 43200)
        renewing = auth.flow(request, late)
        assert next(renewing).url != request.url
        assert signed(request, auth, late + 1) == before
        with pytest.raises(StopIteration) as stop:
            renewing.send({**reply, name: "t-000002"})
        assert stop.value.value != before
        assert signed(request, auth, late + 2) == stop.value.value


def test_a_token_that_another_call_renewed_is_kept():
    auth, request = key_pair(), codec().build_request(chat(RIVER))
    expired = codec().parse_error(200, {}, {"error_code": 111, "error_msg": "Access token expired"})
    iam = IamBearerAuth(Secret("fake-iam-ak"), Secret("fake-iam-sk"))
    for one, error, name in (
        (auth, expired, "access_token"),
        (iam, AuthenticationFailed("expired", code="invalid_iam_token"), "token"),
    ):
        renewed = []
        for token in ("t-000001", "t-000002"):
            flow = one.flow(request, 0.0)
            next(flow)
            with pytest.raises(StopIteration) as stop:
                flow.send({name: token})
            renewed.append(stop.value.value)
            assert one.forget(error, renewed[0])  # the second time the token is a newer one
        assert not one.needs_exchange
        assert signed(request, one, 1.0) == renewed[1]
    assert not iam.forget(AuthenticationFailed("wrong keys"), request)  # the token endpoint refused


def test_an_expired_token_is_forgotten_and_another_error_is_not():
    auth, request = key_pair(), codec().build_request(chat(RIVER))
    expired = codec().parse_error(200, {}, {"error_code": 111, "error_msg": "Access token expired"})
    invalid = codec().parse_error(200, {}, {"error_code": 110, "error_msg": "Access token invalid"})
    busy = codec().parse_error(200, {}, {"error_code": 18, "error_msg": "qps"})
    assert not auth.forget(expired)  # there is none
    # Another call has dropped the token already: a new one helps this call too.
    assert auth.forget(expired, request.with_params(access_token="t-000000"))
    for error in (expired, invalid):
        flow = auth.flow(request, 0.0)
        next(flow)
        with pytest.raises(StopIteration):
            flow.send({"access_token": "t-000001", "expires_in": 100})
        assert not auth.forget(busy)
        assert auth.forget(error)
        assert auth.needs_exchange


@pytest.mark.parametrize("life", ["86400", None, "soon", 0, -5])
def test_a_token_without_expires_in_is_valid_for_a_day(life):
    auth, request = key_pair(), codec().build_request(chat(RIVER))
    flow = auth.flow(request, 0.0)
    next(flow)
    with pytest.raises(StopIteration):
        flow.send({"access_token": "t-000001", "expires_in": life})
    assert signed(request, auth, 77_000.0).params == {"access_token": "t-000001"}
    assert next(auth.flow(request, 78_000.0)).url.endswith("/oauth/2.0/token")


@pytest.mark.parametrize(
    "answer",
    [{"error": "invalid_client", "error_description": "unknown client id"}, {}, None, [], {"access_token": ""}],
)
def test_a_refusal_of_the_token_endpoint_is_an_authentication_failure(answer):
    flow = key_pair().flow(codec().build_request(chat(RIVER)), 0.0)
    next(flow)
    with pytest.raises(AuthenticationFailed):
        flow.send(answer)


def test_a_busy_token_endpoint_is_a_rate_limit():
    flow = key_pair().flow(codec().build_request(chat(RIVER)), 0.0)
    next(flow)
    with pytest.raises(RateLimited):
        flow.send({"error_code": 18, "error_msg": "qps"})


def test_the_iam_signature_is_the_vendors():
    auth = BceSignatureAuth(Secret("fake-iam-ak"), Secret("fake-iam-sk"))
    request = Request(
        method="GET", url="https://iam.bj.baidubce.com/v1/BCE-BEARER/token", params={"expireInSeconds": "43200"}
    )
    ours = signed(request, auth, 1_700_000_000)
    assert ours.headers == {
        "x-bce-date": "2023-11-14T22:13:20Z",
        "authorization": "bce-auth-v1/fake-iam-ak/2023-11-14T22:13:20Z/300/host;x-bce-date/"
        "b96388472c1fe3cbe44fc3ff340dd74bcd46b9b65c2c921e25577fbef5d336e6",
    }


def test_the_bearer_is_obtained_with_a_signed_request_and_cached():
    auth = IamBearerAuth(Secret("fake-iam-ak"), Secret("fake-iam-sk"))
    request = Request(url="https://qianfan.baidubce.com/v2/chat/completions")
    case = load("wenxin", "29-v2-iam-bearer-token")
    flow = auth.flow(request, 1_700_000_000)
    asked = next(flow)
    assert asked.headers["authorization"].startswith("bce-auth-v1/fake-iam-ak/2023-11-14T22:13:20Z/300/")
    # qianfan's SDK sends the body {} with its GET; a GET needs none.
    assert_request(asked, replace(case, request={**case.request, "json": None}))
    assert auth.needs_exchange
    with pytest.raises(StopIteration) as stop:
        flow.send(case.json)
    assert stop.value.value.headers == {"authorization": "Bearer bce-v3/fake-bearer-token"}
    assert signed(request, auth, 1_700_040_000).headers == {"authorization": "Bearer bce-v3/fake-bearer-token"}
    assert not auth.forget(RateLimited("slow"))
    assert auth.forget(AuthenticationFailed("expired", code="invalid_iam_token"))
    assert auth.needs_exchange


def test_a_bearer_is_renewed_before_it_expires():
    auth = IamBearerAuth(Secret("fake-iam-ak"), Secret("fake-iam-sk"))
    request = Request(url="https://qianfan.baidubce.com/v2/chat/completions")
    flow = auth.flow(request, 1_700_000_000)
    next(flow)
    with pytest.raises(StopIteration):
        flow.send({"token": "bce-v3/one", "expireTime": "2023-11-15T10:13:20Z"})
    assert signed(request, auth, 1_700_000_000 + 38_000).headers == {"authorization": "Bearer bce-v3/one"}
    assert next(auth.flow(request, 1_700_000_000 + 39_000)).method == "GET"


def test_a_refusal_of_the_bearer_endpoint_is_an_authentication_failure():
    flow = IamBearerAuth(Secret("fake-iam-ak"), Secret("fake-iam-sk")).flow(Request(url="https://x/y"), 0.0)
    next(flow)
    with pytest.raises(AuthenticationFailed) as caught:
        flow.send({"code": "SignatureDoesNotMatch", "message": "bad signature", "requestId": "r1"})
    assert (caught.value.code, caught.value.request_id) == ("SignatureDoesNotMatch", "r1")
