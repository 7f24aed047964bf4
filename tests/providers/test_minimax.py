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
    ContentFiltered,
    InvalidResponse,
    MessageError,
    Overloaded,
    ParameterError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.base import BearerAuth, Codec, NamedTool, Request
from lmagent.providers.minimax import MinimaxCodec, MinimaxProCodec
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from tests.providers import rules_minimax
from tests.providers.histories import HISTORIES
from tests.providers.wire import sent_json, signed
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
    read_pieces,
)

GROUP = "1700000000000000000"
WARM = {"temperature": 0.7, "top_p": 0.8}


def old(**options: Any) -> MinimaxCodec:
    names = {"user_name": "User", "bot_name": "Assistant"}
    return MinimaxCodec("abab5.5-chat", **{"group_id": GROUP, **names, **options})


def pro(**options: Any) -> MinimaxProCodec:
    names = {"user_name": "User", "bot_name": "Assistant"}
    return MinimaxProCodec("abab5.5-chat", **{"group_id": GROUP, **names, **options})


def sent(request: Request) -> Request:
    return signed(request, BearerAuth(Secret("fake-minimax-key")))


def lines(*events: dict[str, Any]) -> list[bytes]:
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events]


# Requests


@pytest.mark.parametrize(
    ("case", "call"),
    [
        ("01-chat-plain", chat(SYSTEM, CHAT, parameters=WARM)),
        ("03-chat-stream", chat(SYSTEM, CHAT, parameters=WARM, stream=True)),
    ],
)
def test_old_requests_are_what_upstream_sends(case, call):
    request = sent(old().build_request(call))
    assert_request(request, load("minimax", case))
    rules_minimax.check(sent_json(request))


def test_the_length_limit_has_the_vendors_parameter_name():
    case = load("minimax", "02-chat-max-tokens-upstream-bug")
    request = sent(old().build_request(chat(SYSTEM, CHAT, parameters={**WARM, "max_tokens": 64})))
    theirs = dict(case.request["json"])
    theirs["tokens_to_generate"] = theirs.pop("max_tokens")
    assert_request(request, replace(case, request={**case.request, "json": theirs}))


@pytest.mark.parametrize(
    ("case", "call"),
    [
        ("10-pro-plain", chat(SYSTEM, CHAT, parameters={**WARM, "max_tokens": 128})),
        ("11-pro-function", chat(SYSTEM, ASK, tools=True)),
        ("12-pro-function-result", chat(SYSTEM, TOLD, tools=True)),
        ("13-pro-stream", chat(SYSTEM, CHAT, stream=True)),
        ("14-pro-stream-function", chat(SYSTEM, ASK, tools=True, stream=True)),
    ],
)
def test_pro_requests_are_what_upstream_sends(case, call):
    request = sent(pro().build_request(call))
    assert_request(request, load("minimax", case))
    rules_minimax.check_pro(sent_json(request))


# Replies


@pytest.mark.parametrize(
    ("codec", "case"),
    [
        (old(), "01-chat-plain"),
        (old(), "02-chat-max-tokens-upstream-bug"),
        (pro(), "10-pro-plain"),
        (pro(), "11-pro-function"),
        (pro(), "12-pro-function-result"),
    ],
)
def test_replies_are_read_as_expected(codec, case):
    recorded = load("minimax", case)
    assert codec.parse_error(200, {}, recorded.json) is None
    reply = codec.parse_reply(recorded.json)
    assert_reply(reply, recorded)
    assert reply.response_id == "02f4e1d9c7"


@pytest.mark.parametrize(
    ("codec", "case"), [(old(), "03-chat-stream"), (pro(), "13-pro-stream"), (pro(), "14-pro-stream-function")]
)
def test_streams_are_read_as_expected_however_they_are_cut(codec, case):
    assert_stream(codec, load("minimax", case))


def test_a_reply_is_sent_back_unchanged():
    reply = pro().parse_reply(load("minimax", "11-pro-function").json)
    result = ToolMessage(TOLD[2].content, reply.tool_calls[0].id)
    request = sent(pro().build_request(chat(SYSTEM, ASK, reply.message, result, tools=True)))
    assert_request(request, load("minimax", "12-pro-function-result"))


def test_the_last_event_adds_only_what_was_not_shown():
    def old_event(delta: str, reply: str = "", **fields: Any) -> dict[str, Any]:
        return {"reply": reply, "choices": [{"delta": delta, "finish_reason": ""}], **fields}

    reply, _ = read_pieces(old(), lines(old_event("The "), old_event("", "The River.", usage={"total_tokens": 3})))
    assert reply.reply == "The River."

    def pro_event(text: str, reply: str = "", **fields: Any) -> dict[str, Any]:
        return {"reply": reply, "choices": [{"messages": [{"sender_type": "BOT", "text": text}]}], **fields}

    reply, _ = read_pieces(pro(), lines(pro_event("The "), pro_event("The River.", usage={"total_tokens": 3})))
    assert reply.reply == "The River."
    reply, _ = read_pieces(pro(), lines(pro_event("The River.", "The River.", usage={"total_tokens": 3})))
    assert reply.reply == "The River."


def test_a_stream_may_end_with_a_finish_reason_alone():
    event = {"reply": "", "choices": [{"delta": "hi", "finish_reason": "length"}]}
    reply, _ = read_pieces(old(), lines(event))
    assert (reply.reply, reply.finish_reason, reply.usage) == ("hi", "length", None)
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(old(), lines({"reply": "", "choices": [{"delta": "hi", "finish_reason": ""}]}))


def test_plugins_work_on_the_server_and_are_never_called():
    plugin = {"sender_type": "FUNCTION", "sender_name": "plugin_web_search", "text": "results"}
    asked = {
        "sender_type": "BOT",
        "sender_name": "Assistant",
        "text": "",
        "function_call": {"name": "plugin_web_search", "arguments": "{}"},
    }
    said = {"sender_type": "BOT", "sender_name": "Assistant", "text": "It rains."}
    answer = {"reply": "It rains.", "choices": [{"finish_reason": "stop", "messages": [asked, plugin, said]}]}
    reply = pro().parse_reply(answer)
    assert (reply.reply, reply.tool_calls, reply.finish_reason) == ("It rains.", (), "stop")
    streamed, _ = read_pieces(
        pro(),
        lines(
            {"reply": "", "choices": [{"messages": [asked]}]},
            {"reply": "", "choices": [{"messages": [plugin]}]},
            {"reply": "", "choices": [{"messages": [{**said, "text": "It "}]}]},
            {**answer, "usage": {"total_tokens": 5}},
        ),
    )
    assert (streamed.reply, streamed.tool_calls) == ("It rains.", ())


def test_sensitive_answers_are_filtered_and_keep_their_text():
    answer = {"reply": "x", "choices": [{"text": "x", "finish_reason": "stop"}], "output_sensitive": True}
    assert (old().parse_reply(answer).reply, old().parse_reply(answer).finish_reason) == ("x", "content_filter")


@pytest.mark.parametrize("arguments", ["", None, " "])
def test_blank_arguments_are_an_empty_object(arguments):
    message = {"sender_type": "BOT", "text": "", "function_call": {"name": "f", "arguments": arguments}}
    assert pro().parse_reply({"choices": [{"messages": [message]}]}).tool_calls[0].arguments == "{}"


@pytest.mark.parametrize("codec", [old(), pro()])
@pytest.mark.parametrize("strange", [{}, [], None, "x", {"choices": None}, {"choices": []}, {"choices": [1]}])
def test_unknown_shapes_are_invalid_responses(codec, strange):
    with pytest.raises(InvalidResponse):
        codec.parse_reply(strange)


# Errors


@pytest.mark.parametrize("case", ["70-error-rate-http200", "71-error-auth-http200"])
@pytest.mark.parametrize("codec", [old(), pro()])
def test_errors_of_the_cases(codec, case):
    recorded = load("minimax", case)
    assert_error(codec.parse_error(recorded.status, {}, recorded.json), recorded)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (1000, ServerFailed, True),
        (1001, RequestTimeout, True),
        (1002, RateLimited, True),
        (1004, AuthenticationFailed, False),
        (1008, QuotaExceeded, False),
        (1013, ServerFailed, True),
        (1024, ServerFailed, True),
        (1026, ContentFiltered, False),
        (1027, ContentFiltered, False),
        (1033, ServerFailed, True),
        (1039, RateLimited, True),
        (1041, RateLimited, True),
        (2013, BadRequest, False),
        (2049, AuthenticationFailed, False),
        (2056, QuotaExceeded, False),
        (9999, InvalidResponse, False),
    ],
)
def test_error_codes_are_sorted(code, kind, retryable):
    answer = {"id": "02x", "choices": None, "base_resp": {"status_code": code, "status_msg": "m"}}
    error = pro().parse_error(200, {}, answer)
    assert type(error) is kind
    assert (error.retryable, error.code, error.message, error.request_id) == (retryable, str(code), "m", "02x")
    assert (error.provider, error.model) == ("minimax_pro", "abab5.5-chat")


def test_errors_without_a_body_are_sorted_by_status():
    assert type(old().parse_error(503, {}, None, "busy")) is Overloaded
    assert type(old().parse_error(401, {}, {})) is AuthenticationFailed
    assert old().parse_error(200, {}, {"base_resp": {"status_code": 0, "status_msg": ""}}) is None


def test_an_error_inside_a_stream_is_raised():
    error = {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "output sensitive"}}
    with pytest.raises(ContentFiltered):
        read_pieces(old(), lines({"reply": "", "choices": [{"delta": "a"}]}, error))


# Histories


@pytest.mark.parametrize("name", HISTORIES)
def test_any_history_can_be_sent(name):
    rules_minimax.check(sent_json(old().build_request(chat(HISTORIES[name]))))
    rules_minimax.check_pro(sent_json(pro().build_request(chat(HISTORIES[name]))))
    rules_minimax.check_pro(sent_json(pro().build_request(chat(HISTORIES[name], tools=True))))


def test_calls_are_text_in_the_old_api():
    assert sent_json(old().build_request(chat(TOLD)))["messages"] == [
        {"sender_type": "USER", "text": "What is the weather in Hangzhou today?"},
        {"sender_type": "BOT", "text": '[I called get_weather with {"city":"Hangzhou","unit":"celsius"}]'},
        {
            "sender_type": "USER",
            "text": '[Result of get_weather: {"city": "Hangzhou", "condition": "light rain", "temperature": 17}]',
        },
    ]


def test_the_prompt_needs_names_and_no_prompt_needs_none():
    assert "role_meta" not in sent_json(old().build_request(chat(RIVER)))
    request = sent_json(
        MinimaxCodec("m", group_id="1").build_request(chat(SystemMessage("a"), SystemMessage("b"), RIVER))
    )
    assert request["prompt"] == "a\n\nb"
    assert request["role_meta"] == {"user_name": "用户", "bot_name": "MM智能助理"}


def test_a_bot_without_a_system_prompt_gets_a_default_text():
    request = sent_json(MinimaxProCodec("m", group_id="1").build_request(chat(RIVER)))
    assert request["reply_constraints"] == {"sender_type": "BOT", "sender_name": "MM智能助理"}
    assert request["bot_setting"][0]["bot_name"] == "MM智能助理"
    assert request["bot_setting"][0]["content"]


def test_the_system_prompt_stays_when_parameters_are_given():
    request = sent_json(pro().build_request(chat(SYSTEM, RIVER, parameters={"temperature": 1})))
    assert request["bot_setting"] == [{"bot_name": "Assistant", "content": SYSTEM.content}]


def test_the_model_continues_its_own_last_message():
    call = chat(UserMessage("a"), AssistantMessage("b"), parameters={"continue_last_message": True})
    request = sent_json(old().build_request(call))
    rules_minimax.check(request)
    assert [message["text"] for message in request["messages"]] == ["a", "b"]


def test_parallel_calls_are_sent_as_consecutive_pairs():
    calls = (ToolCall(id="a", name="f"), ToolCall(id="b", name="g"))
    messages = (UserMessage("q"), AssistantMessage("", calls), ToolMessage("2", "b"), ToolMessage("1", "a"))
    request = sent_json(pro().build_request(chat(messages, tools=True)))
    shown = [(m["sender_type"], m["sender_name"], m["text"]) for m in request["messages"]]
    assert shown == [
        ("USER", "User", "q"),
        ("BOT", "Assistant", ""),
        ("FUNCTION", "f", "1"),
        ("BOT", "Assistant", ""),
        ("FUNCTION", "g", "2"),
    ]


def test_the_sender_name_of_a_result_can_be_chosen():
    request = sent_json(pro(function_sender="bot").build_request(chat(TOLD, tools=True)))
    assert request["messages"][-1]["sender_name"] == "Assistant"
    rules_minimax.check_pro(request)
    again = sent_json(pro().build_request(chat(TOLD, tools=True)))  # the same messages, encoded another way before
    assert again["messages"][-1]["sender_name"] == "get_weather"


@pytest.mark.parametrize("codec", [old(), pro()])
def test_images_are_refused(codec: Codec):
    with pytest.raises(MessageError, match="an image"):
        codec.build_request(chat(UserMessage((ImagePart(url="http://x/y.png"),))))


# Bots, tools, parameters


def test_several_bots():
    bots = [{"bot_name": "Ann", "content": "a cook"}, {"bot_name": "Assistant", "content": "a guide"}]
    request = sent_json(pro().build_request(chat(RIVER, parameters={"bot_setting": bots})))
    rules_minimax.check_pro(request)
    assert (request["bot_setting"], request["reply_constraints"]["sender_name"]) == (bots, "Assistant")
    request = sent_json(pro(bot_name="Bob").build_request(chat(RIVER, parameters={"bot_setting": bots})))
    assert request["reply_constraints"]["sender_name"] == "Ann"
    with pytest.raises(MessageError, match="2 bots in bot_setting"):
        pro().build_request(chat(SYSTEM, RIVER, parameters={"bot_setting": bots}))
    request = sent_json(pro().build_request(chat(SYSTEM, RIVER, parameters={"bot_setting": bots[:1]})))
    assert request["bot_setting"] == [{"bot_name": "Ann", "content": f"a cook\n\n{SYSTEM.content}"}]


def test_each_bot_needs_a_name():
    with pytest.raises(ParameterError, match="bot_name"):
        pro().build_request(chat(RIVER, parameters={"bot_setting": [{"content": "a helper"}]}))


def test_a_glyph_is_refused_with_stream_functions_or_plugins():
    glyph = {"type": "raw", "raw_glyph": "The answer is {{gen 'content'}}"}
    request = sent_json(pro().build_request(chat(RIVER, parameters={"glyph": glyph})))
    assert request["reply_constraints"]["glyph"] == glyph
    rules_minimax.check_pro(request)
    for call in (
        chat(RIVER, parameters={"glyph": glyph}, stream=True),
        chat(RIVER, parameters={"glyph": glyph}, tools=True),
        chat(RIVER, parameters={"glyph": glyph, "plugins": ["plugin_web_search"]}),
    ):
        with pytest.raises(ParameterError, match="glyph"):
            pro().build_request(call)


def test_features_that_the_old_api_lacks_are_refused():
    assert not old().features.tools
    with pytest.raises(MessageError, match="tool_mode"):
        old().build_request(chat(ASK, tools=True))
    for choice in ("required", NamedTool("get_weather")):
        with pytest.raises(ParameterError, match="tool_choice"):
            pro().build_request(chat(ASK, tools=True, tool_choice=choice))
    assert "functions" not in sent_json(pro().build_request(chat(ASK, tools=True, tool_choice="none")))
    with pytest.raises(MessageError, match="plugin_"):
        pro().build_request(chat(ASK, tools=(ToolSpec(name="plugin_x"),)))


def test_the_system_text_describes_an_output_schema():
    call = chat(SYSTEM, RIVER, output_schema=OutputSchema(name="r", schema={"type": "object"}))
    assert '{"type":"object"}' in sent_json(old().build_request(call))["prompt"]
    assert '{"type":"object"}' in sent_json(pro().build_request(call))["bot_setting"][0]["content"]


def test_functions_always_have_a_description_and_properties():
    request = sent_json(pro().build_request(chat(ASK, tools=(ToolSpec(name="add_two"),))))
    rules_minimax.check_pro(request)
    assert request["functions"][0]["description"] == "add two"


def test_an_extra_member_replaces_ours():
    request = pro().build_request(chat(RIVER, parameters={"extra_body": {"messages": [1]}}))
    assert request.content.count(b'"messages"') == 1
    assert sent_json(request)["messages"] == [1]


def test_parameters_are_translated():
    def rendered(codec: Codec, **parameters: Any) -> dict[str, Any]:
        request = sent_json(codec.build_request(chat(RIVER, parameters=parameters)))
        return {name: request[name] for name in request if name not in ("model", "messages", "bot_setting")}

    assert rendered(old(), temperature=0, top_p=0, max_tokens=5) == {
        "temperature": 0.01,
        "top_p": 0.01,
        "tokens_to_generate": 5,
    }
    assert rendered(old(), beam_width=2, skip_info_mask=True) == {"beam_width": 2, "skip_info_mask": True}
    shown = rendered(pro(), temperature=0, mask_sensitive_info=False, plugins=["plugin_web_search"])
    del shown["reply_constraints"]
    assert shown == {"temperature": 0.01, "mask_sensitive_info": False, "plugins": ["plugin_web_search"]}
    assert rendered(old(), extra_body={"x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    "parameters", [{"temperature": 1.1}, {"top_p": 2}, {"stop": ["a"]}, {"seed": 1}, {"presence_penalty": 1.0}]
)
def test_parameters_that_cannot_be_expressed_are_refused(parameters):
    for codec in (old(), pro()):
        with pytest.raises(ParameterError, match=next(iter(parameters))):
            codec.build_request(chat(RIVER, parameters=parameters))
    with pytest.raises(ParameterError, match="beam_width"):
        old().build_request(chat(RIVER, parameters={"beam_width": 5}))


def test_the_group_id_is_a_query_parameter():
    request = old().build_request(chat(RIVER))
    assert request.params == {"GroupId": GROUP}
    assert request.url == "https://api.minimax.chat/v1/text/chatcompletion"
    assert (old().model_id, pro().model_id) == ("minimax/abab5.5-chat", "minimax_pro/abab5.5-chat")
