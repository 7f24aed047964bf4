from __future__ import annotations

import json
from typing import Any

import pytest

from lmagent.core.events import TextDelta
from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
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
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.anthropic import AnthropicCodec
from lmagent.providers.base import NamedTool
from lmagent.toolkit.schema import OutputSchema
from tests.providers import rules_anthropic
from tests.providers.histories import HISTORIES
from tests.providers.wire_intl import (
    GET_TIME,
    GET_WEATHER,
    ORDER_SCHEMA,
    PNG,
    ask,
    body_of,
    call,
    calls_of,
    cuts,
    load,
    names,
    read_pieces,
    shown_text,
    spec,
)

SYSTEM = SystemMessage("You are a terse assistant.")
WEATHER = UserMessage("What is the weather in Paris?")
BOTH = UserMessage("Weather and local time in Paris?")
WEATHER_CALL = call("toolu_Wthr0001", "get_weather", '{"city":"Paris","unit":"celsius"}')
TIME_CALL = call("toolu_Time0002", "get_time", '{"timezone":"Europe/Paris"}')
THINKING = {
    "type": "thinking",
    "thinking": "The user wants the weather; call the tool.",
    "signature": "EqQBdemoSIG==",
}
ENABLED = {"type": "enabled", "budget_tokens": 2048}
ORDER = OutputSchema(name="Order", schema=ORDER_SCHEMA)
M = {"max_tokens": 1024}

CALLS = {
    "01-chat": ask(SYSTEM, UserMessage("Say hello."), parameters={**M, "stop": ["END"]}),
    "02-tool-call": ask(SYSTEM, WEATHER, tools=(GET_WEATHER,), parameters=M),
    "03-tool-result": ask(
        SYSTEM,
        WEATHER,
        AssistantMessage("I'll check.", (WEATHER_CALL,)),
        ToolMessage('{"temp_c": 18, "sky": "sunny"}', WEATHER_CALL.id),
        tools=(GET_WEATHER,),
        parameters=M,
    ),
    "04-parallel-calls": ask(
        SYSTEM, BOTH, tools=(GET_WEATHER, GET_TIME), parameters={**M, "parallel_tool_calls": True}
    ),
    "05-parallel-results": ask(
        SYSTEM,
        BOTH,
        AssistantMessage("", (WEATHER_CALL, TIME_CALL)),
        ToolMessage("18 C, sunny", WEATHER_CALL.id, "get_weather"),
        ToolMessage("Error: clock offline", TIME_CALL.id, "get_time", is_error=True),
        tools=(GET_WEATHER, GET_TIME),
        parameters=M,
    ),
    "06-stream-text": ask(SYSTEM, UserMessage("Say hello."), stream=True, parameters=M),
    "07-stream-tool-calls": ask(SYSTEM, BOTH, tools=(GET_WEATHER, GET_TIME), stream=True, parameters=M),
    "08-image": ask(
        UserMessage(
            (
                ImagePart(data=PNG),
                ImagePart(url="https://example.com/cat.jpg"),
                TextPart("Describe both images."),
            )
        ),
        parameters=M,
    ),
    "09-json-schema": ask(UserMessage("Order three pears."), output_schema=ORDER, parameters=M),
    "10-thinking-tool-call": ask(WEATHER, tools=(GET_WEATHER,), parameters={"max_tokens": 4096, "thinking": ENABLED}),
    "11-thinking-tool-result": ask(
        WEATHER,
        AssistantMessage(
            "",
            (WEATHER_CALL,),
            details={
                "anthropic": {
                    "content": [
                        THINKING,
                        {"type": "redacted_thinking", "data": "EmwKdemoREDACTED=="},
                        {"type": "tool_use", "id": "toolu_Wthr0001", "name": "get_weather"},
                    ]
                }
            },
        ),
        ToolMessage("18 C, sunny", WEATHER_CALL.id, "get_weather"),
        tools=(GET_WEATHER,),
        parameters={"max_tokens": 4096, "thinking": ENABLED},
    ),
    "12-stream-thinking": ask(
        WEATHER,
        tools=(GET_WEATHER,),
        stream=True,
        parameters={"max_tokens": 4096, "thinking": {"type": "adaptive"}},
    ),
    "13-cache-control": ask(
        SystemMessage("Long instructions ..."),
        UserMessage("Hi"),
        tools=(GET_WEATHER,),
        parameters={**M, "prompt_cache": {"tools": "1h", "system": "5m", "messages": "5m"}},
    ),
    "14-forced-tool-strict": ask(
        WEATHER,
        tools=(spec(GET_WEATHER, strict=True),),
        tool_choice=NamedTool("get_weather"),
        parameters={**M, "parallel_tool_calls": False},
    ),
    "15-refusal": ask(WEATHER, parameters=M),
    "16-max-tokens": ask(WEATHER, tools=(GET_WEATHER,), tool_choice="none", parameters=M),
    "26-stream-error-event": ask(WEATHER, stream=True, parameters=M),
    "30-old-version-sampling": ask(
        SYSTEM, UserMessage("Say hello."), parameters={"max_tokens": 64, "temperature": 0.2, "top_p": 0.9}
    ),
    **{name: ask(WEATHER, parameters=M) for name in names("anthropic", errors=True)},
}


def codec(**options: Any) -> AnthropicCodec:
    return AnthropicCodec("claude-sonnet-4-6", **options)


def codec_for(case: Any) -> AnthropicCodec:
    return AnthropicCodec(case.request["body"]["model"], version=case.request["headers"]["anthropic-version"])


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without meaningless differences: explicit defaults, texts as lists of one block."""
    body = json.loads(json.dumps(body))
    if body.get("tool_choice") in ({"type": "auto"}, {"type": "auto", "disable_parallel_tool_use": False}):
        del body["tool_choice"]
    for message in body["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        for block in message["content"]:
            if block["type"] == "tool_result" and isinstance(block["content"], str):
                block["content"] = [{"type": "text", "text": block["content"]}]
    schema = body.get("output_config", {}).get("format", {}).get("schema")
    if schema:  # the SDK writes `{default: None}` into a description and takes the type from an enum
        schema["$defs"]["Item"]["properties"]["note"].pop("description", None)
        schema["properties"]["kind"].pop("type", None)
    return body


@pytest.mark.parametrize("name", names("anthropic"))
def test_requests_equal_the_captured_ones(name: str):
    case = load("anthropic", name)
    request = codec_for(case).build_request(CALLS[name])
    assert normal(body_of(request)) == normal(case.request["body"])
    assert request.url == "https://api.anthropic.com" + case.request["path"]
    assert request.headers["anthropic-version"] == case.request["headers"]["anthropic-version"]
    rules_anthropic.check(body_of(request))


@pytest.mark.parametrize("name", names("anthropic", streams=False, errors=False))
def test_answers_are_read_as_the_sdk_reads_them(name: str):
    case = load("anthropic", name)
    one = codec_for(case)
    assert one.parse_error(case.status, case.headers, case.json) is None
    compare(one.parse_reply(case.json), case.expected)


@pytest.mark.parametrize("name", [n for n in names("anthropic", streams=True) if not n.startswith("26")])
def test_streams_are_read_however_they_are_cut(name: str):
    case = load("anthropic", name)
    one = codec_for(case)
    first = None
    for pieces in cuts(case.content):
        reply, events = read_pieces(one, pieces)
        first = first or reply
        assert reply.message == first.message
        assert (reply.finish_reason, reply.usage) == (first.finish_reason, first.usage)
        assert shown_text(events) == reply.reply
    assert first is not None
    compare(first, case.expected)


def compare(reply: Any, expected: dict[str, Any]) -> None:
    assert reply.reply == (expected["text"] or "")
    assert reply.raw_finish_reason == expected["finish_reason"]
    if "usage" not in expected:
        return
    assert calls_of(reply) == expected["calls"]
    usage = expected["usage"]
    assert reply.usage.input_tokens == usage["total_input"]
    assert reply.usage.output_tokens == usage["output"]
    assert reply.usage.cached_tokens == usage["cache_read"]
    assert reply.usage.reasoning_tokens == (usage["thinking"] or 0)
    assert reply.response_id == expected["id"]
    blocks = reply.message.details.get("anthropic", {}).get("content", [])
    thinking = [
        {"redacted": block["data"]}
        if block["type"] == "redacted_thinking"
        else {"thinking": block["thinking"], "signature": block["signature"]}
        for block in blocks
        if "thinking" in block["type"]
    ]
    assert thinking == expected["thinking"]
    assert reply.message.reasoning == "".join(item.get("thinking", "") for item in thinking)


FINISH = {
    "01-chat": "stop",
    "02-tool-call": "tool_calls",
    "15-refusal": "refusal",
    "16-max-tokens": "length",
}


@pytest.mark.parametrize("name", FINISH)
def test_finish_reasons(name: str):
    assert codec().parse_reply(load("anthropic", name).json).finish_reason == FINISH[name]


def test_unknown_stop_reasons_do_not_crash():
    body = {"content": [{"type": "text", "text": "so far"}], "stop_reason": "pause_turn"}
    reply = codec().parse_reply(body)
    assert (reply.finish_reason, reply.raw_finish_reason, reply.usage) == ("other", "pause_turn", None)


def test_a_refusal_keeps_its_explanation():
    body = {
        "content": [],
        "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": "x", "explanation": "I will not."},
    }
    reply = codec().parse_reply(body)
    assert (reply.finish_reason, reply.message.refusal, reply.reply) == ("refusal", "I will not.", "I will not.")


def test_thinking_of_a_stream_is_sent_back_byte_for_byte():
    case = load("anthropic", "12-stream-thinking")
    reply, _ = read_pieces(codec(), [case.content])
    history = (WEATHER, reply.message, ToolMessage("18 C", "toolu_Wthr0001"))
    body = body_of(codec().build_request(ask(*history, tools=(GET_WEATHER,))))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "The user wants the weather.", "signature": "EqQBdemoSIG=="},
        {"type": "redacted_thinking", "data": "EmwKdemoREDACTED=="},
        {"type": "tool_use", "id": "toolu_Wthr0001", "name": "get_weather", "input": {"city": "Paris"}},
    ]


def test_a_changed_message_is_sent_changed():
    from dataclasses import replace

    reply, _ = read_pieces(codec(), [load("anthropic", "12-stream-thinking").content])
    changed = replace(reply.message, content="Never mind.", tool_calls=())
    body = body_of(codec().build_request(ask(WEATHER, changed, UserMessage("why?"))))
    assert body["messages"][1] == {"role": "assistant", "content": "Never mind."}


def test_blocks_that_text_and_calls_cannot_restore_are_kept():
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    text = {"type": "text", "text": "Found.", "citations": [{"type": "web", "url": "https://a.example"}]}
    reply = codec().parse_reply({"content": [search, found, text], "stop_reason": "end_turn"})
    body = body_of(codec().build_request(ask(WEATHER, reply.message, UserMessage("more"))))
    assert body["messages"][1]["content"] == [search, found, text]


def test_plain_answers_need_no_details():
    for name in ("01-chat", "02-tool-call", "04-parallel-calls"):
        assert codec().parse_reply(load("anthropic", name).json).message.details == {}


ERRORS = {
    "20-error-400": (BadRequest, False),
    "21-error-401": (AuthenticationFailed, False),
    "22-error-429": (RateLimited, True),
    "23-error-500": (ServerFailed, True),
    "24-error-529": (Overloaded, True),
    "25-error-413": (ContextTooLong, False),
}


@pytest.mark.parametrize("name", names("anthropic", errors=True))
def test_recorded_errors_are_sorted(name: str):
    case = load("anthropic", name)
    error = codec().parse_error(case.status, case.headers, case.json)
    expected = case.expected["error"]
    assert error is not None
    assert (type(error), error.retryable) == ERRORS[name]
    assert error.retryable == expected["retryable_by_sdk"]
    assert (error.status, error.code, error.request_id) == (
        expected["status"],
        expected["type"],
        expected["request_id"],
    )
    assert error.retry_after == expected["retry_after"]
    assert error.message == expected["message"]
    assert (error.provider, error.model) == ("anthropic", "claude-sonnet-4-6")


@pytest.mark.parametrize(
    ("status", "error", "kind", "retryable"),
    [
        (402, {"type": "billing_error", "message": "no money"}, QuotaExceeded, False),
        (403, {"type": "permission_error"}, PermissionDenied, False),
        (404, {"type": "not_found_error"}, NotFound, False),
        (408, None, RequestTimeout, True),
        (409, {"type": "conflict_error"}, BadRequest, True),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}, ContextTooLong, False),
        (504, {"type": "timeout_error"}, RequestTimeout, True),
        (503, "busy", Overloaded, True),
        (418, {"type": "new_error"}, BadRequest, False),
        (500, [], ServerFailed, True),
    ],
)
def test_other_errors_are_sorted(status: int, error: Any, kind: type, retryable: bool):
    found = codec().parse_error(status, {}, {"type": "error", "error": error})
    assert (type(found), found.retryable) == (kind, retryable)  # type: ignore[union-attr]


@pytest.mark.parametrize("body", [None, [], "text", 7, {}, {"error": None}])
def test_error_bodies_of_any_shape_do_not_raise(body: Any):
    error = codec().parse_error(502, {}, body, "<html>bad gateway</html>")
    assert isinstance(error, ServerFailed)
    assert error.message == "an HTML or XML page, not an answer of the API"


def test_headers_of_an_error():
    headers = {"retry-after-ms": "1500", "request-id": "req_1"}
    error = codec().parse_error(529, headers, {"error": {"type": "overloaded_error"}})
    assert (error.retry_after, error.request_id) == (1.5, "req_1")  # type: ignore[union-attr]


def test_an_error_hidden_in_a_200_body_is_found():
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert isinstance(codec().parse_error(200, {}, body), Overloaded)


def test_an_error_event_in_mid_stream_is_raised():
    case = load("anthropic", "26-stream-error-event")
    state = codec().new_state()
    *frames, last = codec().framing().feed(case.content)
    deltas = [delta for frame in frames for delta in codec().parse_event(state, frame.data, frame.event)]
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    with pytest.raises(Overloaded, match="Overloaded") as caught:
        codec().parse_event(state, last.data, last.event)
    assert text == case.expected["text_before_error"]
    assert caught.value.request_id == "req_demo0001"


def test_a_stream_without_its_end_has_no_done():
    body = load("anthropic", "06-stream-text").content
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [body[: body.index(b"event: message_stop")]])


@pytest.mark.parametrize(
    "body", [None, [], {}, {"content": None, "x": 1}, {"content": [1]}, {"content": [{"type": "tool_use"}]}]
)
def test_unknown_shapes_are_invalid_responses(body: Any):
    if body == {"content": None, "x": 1}:
        assert codec().parse_reply(body).reply == ""
        return
    with pytest.raises(InvalidResponse):
        codec().parse_reply(body)


@pytest.mark.parametrize(
    "data", [b"no json", b"[]", b'{"type":"content_block_delta"}', b'{"type":"message_start","message":1}']
)
def test_unreadable_events_are_invalid_responses(data: bytes):
    with pytest.raises(InvalidResponse):
        list(codec().parse_event(codec().new_state(), data))


def test_unknown_events_deltas_and_blocks_are_ignored():
    state = codec().new_state()
    for data in (
        b'{"type":"ping"}',
        b'{"type":"new_event"}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"new_block"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"new_delta"}}',
        b'{"type":"content_block_stop","index":0}',
    ):
        assert list(codec().parse_event(state, data)) == []


def test_a_call_without_input_has_an_empty_object():
    for block in (
        {"type": "tool_use", "id": "a", "name": "now"},
        {"type": "tool_use", "id": "a", "name": "now", "input": {}},
    ):
        reply = codec().parse_reply({"content": [block], "stop_reason": "tool_use"})
        assert reply.tool_calls == (call("a", "now", "{}"),)


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("tools", [(), (GET_WEATHER, GET_TIME)])
def test_any_history_can_be_sent(name: str, tools: Any):
    body = body_of(codec().build_request(ask(*HISTORIES[name], tools=tools)))
    rules_anthropic.check(body)
    assert body_of(codec().build_request(ask(*HISTORIES[name], tools=tools))) == body


def test_nothing_to_send_is_an_error():
    with pytest.raises(MessageError, match="no message has any content"):
        codec().build_request(ask(UserMessage(" ")))


def test_ids_and_names_of_other_providers_are_made_valid():
    history: list[Message] = [WEATHER]
    for _ in range(2):  # the same id in two rounds
        history += [
            AssistantMessage("", (call("functions.get weather:0", "get weather", "[1]"),)),
            ToolMessage("sunny", "functions.get weather:0"),
        ]
    body = body_of(codec().build_request(ask(*history)))
    rules_anthropic.check(body)
    uses = [block for message in body["messages"] for block in message["content"] if message["role"] == "assistant"]
    assert [use["id"] for use in uses] == ["functions_get_weather_0", "functions_get_weather_0_2"]
    assert uses[0]["name"] == "get_weather"
    assert uses[0]["input"] == {"_raw": "[1]"}


def test_messages_and_tools_are_encoded_once(monkeypatch: pytest.MonkeyPatch):
    import lmagent.providers.anthropic as module

    call_ = CALLS["05-parallel-results"]
    first = codec().build_request(call_)
    monkeypatch.setattr(module, "dumps", lambda value: pytest.fail(f"encoded again: {value}"))
    assert codec().build_request(call_).content == first.content


PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_tokens": 4096}),
    ({"thinking": ENABLED}, {"max_tokens": 6144}),
    ({"user": "u1", "metadata": {"x": "y"}}, {"metadata": {"x": "y", "user_id": "u1"}}),
    ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
    ({"reasoning_effort": "max"}, {"output_config": {"effort": "max"}}),
    ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ({"temperature": 0, "top_k": 5}, {"temperature": 0, "top_k": 5}),
    ({"extra_body": {"container": "c", "max_tokens": 7}}, {"container": "c", "max_tokens": 7}),
]


@pytest.mark.parametrize(("given", "sent"), PARAMETERS)
def test_parameters(given: dict[str, Any], sent: dict[str, Any]):
    body = body_of(codec().build_request(ask(UserMessage("hi"), parameters=given)))
    assert {name: body[name] for name in sent} == sent


@pytest.mark.parametrize(
    "given",
    [{"temperature": 1.5}, {"seed": 1}, {"presence_penalty": 1.0}, {"frequency_penalty": 1.0}, {"logit_bias": {}}],
)
def test_messages_that_cannot_be_expressed_raise_an_error(given: dict[str, Any]):
    with pytest.raises(ParameterError):
        codec().build_request(ask(UserMessage("hi"), parameters=given))


def test_sampling_is_left_out_where_it_is_refused():
    given = {"temperature": 0.5, "top_p": 0.9, "top_k": 3}

    def sent(model: str = "claude-sonnet-4-6", **options: Any) -> bool:
        body = body_of(AnthropicCodec(model, **options).build_request(ask(UserMessage("hi"), parameters=given)))
        return "temperature" in body

    assert sent()
    assert not sent(version="2026-10-21")
    assert sent(version="2026-10-21", sampling=True)
    assert not sent("claude-opus-5-1")
    assert sent("claude-opus-5-1", sampling=True)
    assert not sent(sampling=False)


def test_headers():
    one = codec(betas=["a"], base_url="http://localhost:1/v1/")
    request = one.build_request(ask(UserMessage("hi"), parameters={"betas": ["b", "a"], "extra_headers": {"x-a": "1"}}))
    assert request.url == "http://localhost:1/v1/messages"
    assert request.headers["anthropic-beta"] == "a,b"
    assert request.headers["x-a"] == "1"
    assert request.headers["anthropic-version"] == "2023-06-01"


def test_a_forced_call_with_a_thinking_budget_is_refused():
    with pytest.raises(ParameterError, match="cannot force"):
        codec().build_request(
            ask(WEATHER, tools=(GET_WEATHER,), tool_choice="required", parameters={"thinking": ENABLED})
        )


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        (NamedTool("get_time"), {"type": "tool", "name": "get_time"}),
    ],
)
def test_tool_choice(choice: Any, sent: Any):
    body = body_of(codec().build_request(ask(WEATHER, tools=(GET_WEATHER, GET_TIME), tool_choice=choice)))
    assert body.get("tool_choice") == sent


def test_files_and_images():
    parts = (
        ImagePart(url=f"data:image/png;base64,{PNG}"),
        FilePart(data="JVBERg==", name="a.pdf"),
        FilePart(data="aGVsbG8=", media_type="text/plain"),
        FilePart(url="https://example.com/a.pdf"),
        FilePart(file_id="file_1"),
    )
    body = body_of(codec().build_request(ask(UserMessage(parts))))
    assert [block["source"] for block in body["messages"][0]["content"]] == [
        {"type": "base64", "media_type": "image/png", "data": PNG},
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
        {"type": "text", "media_type": "text/plain", "data": "hello"},
        {"type": "url", "url": "https://example.com/a.pdf"},
        {"type": "file", "file_id": "file_1"},
    ]


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(data="Qk0=", media_type="image/bmp"),
        ImagePart(url="file:///etc/passwd"),
        FilePart(data="", media_type="audio/wav"),
    ],
)
def test_parts_it_does_not_take_are_refused(part: Any):
    with pytest.raises(MessageError, match="anthropic cannot express"):
        codec().build_request(ask(UserMessage((part,))))


def test_keywords_strict_mode_refuses_move_into_the_description():
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "How many"},
            "s": {"type": "string", "pattern": "a+", "format": "date"},
            "t": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "u": {"oneOf": [{"type": "string"}, {"type": "null"}], "default": "x"},
        },
    }
    body = body_of(codec().build_request(ask(WEATHER, output_schema=OutputSchema(name="x", schema=schema))))
    assert body["output_config"]["format"]["schema"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "n": {"type": "integer", "description": "How many\n\n{minimum: 1}"},
            "s": {"type": "string", "format": "date", "description": "{pattern: a+}"},
            "t": {"type": "array", "items": {"type": "string"}, "description": "{minItems: 2}"},
            "u": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "{default: x}"},
        },
    }


FREE = {"type": "object", "additionalProperties": {"type": "integer"}}
RECURSIVE = {
    "type": "object",
    "properties": {"top": {"$ref": "#/$defs/Node"}},
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
}


@pytest.mark.parametrize("schema", [FREE, RECURSIVE, {"type": "object", "properties": {"x": {}}}])
def test_the_system_prompt_describes_a_schema_that_strict_mode_cannot_express(schema: dict[str, Any]):
    body = body_of(codec().build_request(ask(SYSTEM, WEATHER, output_schema=OutputSchema(name="x", schema=schema))))
    assert "output_config" not in body
    assert body["system"][0]["text"] == SYSTEM.content
    assert json.loads(body["system"][1]["text"].partition("\n")[2]) == schema
    with pytest.raises(ParameterError, match="strict mode cannot describe"):
        codec().build_request(ask(WEATHER, output_schema=OutputSchema(name="x", schema=schema, strict=True)))
    with pytest.raises(ParameterError, match="get_weather: strict mode cannot describe"):
        codec().build_request(ask(WEATHER, tools=(spec(GET_WEATHER, parameters=schema, strict=True),)))


def test_prefill_must_be_enabled():
    history = (WEATHER, AssistantMessage("It is"))
    assert body_of(codec().build_request(ask(*history)))["messages"][-1]["role"] == "user"
    assert body_of(codec(prefill=True).build_request(ask(*history)))["messages"][-1] == {
        "role": "assistant",
        "content": "It is",
    }
