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
    ToolMessage,
    UserMessage,
)
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
from lmagent.providers.base import NamedTool
from lmagent.providers.gemini import DUMMY_SIGNATURE, GeminiCodec
from lmagent.toolkit.schema import OutputSchema
from tests.providers import rules_gemini
from tests.providers.histories import HISTORIES
from tests.providers.wire_intl import (
    GET_TIME,
    GET_WEATHER,
    ORDER_SCHEMA,
    PNG,
    ask,
    body_of,
    call,
    cuts,
    load,
    names,
    read_pieces,
    shown_text,
    spec,
)

SIGNATURE = "RW5jRGVtb1NpZ25hdHVyZQ=="
SYSTEM = SystemMessage("You are a terse assistant.")
WEATHER = UserMessage("Weather in Paris?")
BOTH = UserMessage("Weather and local time in Paris?")
DOTS = UserMessage("...")
ORDER = OutputSchema(name="Order", schema=ORDER_SCHEMA)
ONE_CALL = AssistantMessage(
    "",
    (call("call_w1", "get_weather", '{"city":"Paris","unit":"celsius"}'),),
    details={
        "gemini": {"parts": [{"functionCall": {"id": "call_w1", "name": "get_weather"}, "thoughtSignature": SIGNATURE}]}
    },
)
TWO_CALLS = AssistantMessage(
    "",
    (*ONE_CALL.tool_calls, call("call_t2", "get_time", '{"timezone":"Europe/Paris"}')),
    details={
        "gemini": {
            "parts": [
                *ONE_CALL.details["gemini"]["parts"],
                {"functionCall": {"id": "call_t2", "name": "get_time"}},
            ]
        }
    },
)
DAYS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "City name"},
        "days": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 7}, {"type": "null"}]},
    },
    "required": ["city"],
}

CALLS = {
    "01-chat": ask(
        SYSTEM,
        UserMessage("Say hello."),
        parameters={"temperature": 0.2, "top_p": 0.9, "max_tokens": 200, "stop": ["END"]},
    ),
    "02-tool-call": ask(SYSTEM, WEATHER, tools=(GET_WEATHER,)),
    "03-tool-result": ask(
        SYSTEM, WEATHER, ONE_CALL, ToolMessage('{"temp_c": 18, "sky": "sunny"}', "call_w1"), tools=(GET_WEATHER,)
    ),
    "04-parallel-calls": ask(BOTH, tools=(GET_WEATHER, GET_TIME)),
    "05-parallel-results": ask(
        BOTH,
        TWO_CALLS,
        ToolMessage("clock offline", "call_t2", "get_time", is_error=True),
        ToolMessage("18 C, sunny", "call_w1", "get_weather"),
        tools=(GET_WEATHER, GET_TIME),
    ),
    "06-stream-text": ask(SYSTEM, UserMessage("Say hello."), stream=True),
    "07-stream-tool-calls": ask(
        BOTH,
        tools=(GET_WEATHER, GET_TIME),
        stream=True,
        parameters={"include_thoughts": True, "reasoning_effort": "low"},
    ),
    "08-image": ask(
        UserMessage(
            (
                TextPart("Describe both images."),
                ImagePart(data=PNG),
                ImagePart(url="https://example.com/cat.jpg"),
            )
        )
    ),
    "09-json-schema": ask(UserMessage("Order three pears."), output_schema=ORDER),
    "10-response-schema-openapi": ask(UserMessage("Order three pears."), output_schema=ORDER),
    "11-tool-any-openapi-schema": ask(
        WEATHER, tools=(spec(GET_WEATHER, parameters=DAYS),), tool_choice=NamedTool("get_weather")
    ),
    "12-blocked-prompt": ask(DOTS),
    "13-malformed-call": ask(DOTS, tools=(GET_WEATHER, GET_TIME)),
    "14-no-id-call": ask(DOTS, tools=(GET_WEATHER, GET_TIME), parameters={"reasoning_effort": "none"}),
    **{name: ask(UserMessage("Hi")) for name in names("gemini", errors=True)},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "08-image": {"any_url": True},
    "10-response-schema-openapi": {"schemas": "openapi"},
    "11-tool-any-openapi-schema": {"schemas": "openapi"},
}


def codec(model: str = "gemini-3.1-pro-preview", **options: Any) -> GeminiCodec:
    return GeminiCodec(model, **options)


def codec_for(name: str) -> GeminiCodec:
    path = load("gemini", name).request["path"]
    return GeminiCodec(path.rpartition("/")[2].partition(":")[0], version="v1", **OPTIONS.get(name, {}))


_CAMEL = {
    "parameters_json_schema": "parametersJsonSchema",
    "mime_type": "mimeType",
    "file_uri": "fileUri",
    "include_thoughts": "includeThoughts",
    "thinking_level": "thinkingLevel",
    "thinking_budget": "thinkingBudget",
    "property_ordering": "propertyOrdering",
}


def normal(value: Any) -> Any:
    """Return a body without changes that the SDK makes: snake case, generated titles, URL-safe base64."""
    if isinstance(value, list):
        return [normal(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        _CAMEL.get(key, key): inner.replace("-", "+").replace("_", "/") if key == "data" else normal(inner)
        for key, inner in value.items()
        if not (key == "title" or (key == "default" and inner is None))
    }


@pytest.mark.parametrize("name", names("gemini"))
def test_requests_equal_the_captured_ones(name: str):
    case = load("gemini", name)
    request = codec_for(name).build_request(CALLS[name])
    expected = normal(case.request["body"])
    expected.get("systemInstruction", {}).pop("role", None)
    if not expected.get("generationConfig"):
        expected.pop("generationConfig", None)
    if expected.get("toolConfig") == {"functionCallingConfig": {"mode": "AUTO"}}:
        del expected["toolConfig"]
    assert normal(body_of(request)) == expected
    assert request.url == "https://generativelanguage.googleapis.com" + case.request["path"]
    assert request.params == case.request["query"]
    rules_gemini.check(body_of(request))


def compare(reply: Any, expected: dict[str, Any]) -> None:
    assert reply.reply == (expected["text"] or "")
    assert reply.message.reasoning == (expected["thoughts"] or "")
    assert reply.raw_finish_reason == expected["finish_reason"]
    calls = [{"name": c.name, "arguments": json.loads(c.arguments)} for c in reply.tool_calls]
    assert calls == [{"name": c["name"], "arguments": c["arguments"]} for c in expected["calls"]]
    for ours, theirs in zip(reply.tool_calls, expected["calls"], strict=True):
        assert ours.id == (theirs["id"] or "call_000000000000000100000000")
    parts = reply.message.details.get("gemini", {}).get("parts", [])
    assert [part["thoughtSignature"] for part in parts if "thoughtSignature" in part] == expected["signatures"]
    usage = expected["usage"]
    assert reply.usage.input_tokens == usage["input"]
    # Ours counts reasoning as output, as everywhere; the wire does not.
    assert reply.usage.output_tokens == (usage["output"] or 0) + (usage["reasoning"] or 0)
    assert reply.usage.reasoning_tokens == (usage["reasoning"] or 0)
    assert reply.usage.total_tokens == usage["total"]
    assert reply.usage.cached_tokens == (usage["cached"] or 0)
    assert reply.response_id == expected["id"]


PLAIN = [name for name in names("gemini", streams=False, errors=False) if name != "12-blocked-prompt"]


@pytest.mark.parametrize("name", PLAIN)
def test_answers_are_read_as_the_sdk_reads_them(name: str):
    case = load("gemini", name)
    assert codec_for(name).parse_error(case.status, case.headers, case.json) is None
    compare(codec_for(name).parse_reply(case.json), case.expected)


def test_a_stream_that_is_one_array_is_read_as_a_reply():
    pieces = [{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in ("hel", "lo")]
    end = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 2, "totalTokenCount": 3}}
    reply = codec().parse_reply([*pieces, end])
    assert (reply.reply, reply.finish_reason, reply.usage.total_tokens) == ("hello", "stop", 3)
    error = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}
    assert isinstance(codec().parse_error(200, {}, [*pieces, error]), Overloaded)


@pytest.mark.parametrize("name", names("gemini", streams=True))
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_streams_are_read_however_they_are_cut(name: str, line_end: bytes):
    case = load("gemini", name)
    one = codec_for(name)
    first = None
    for pieces in cuts(case.content.replace(b"\r\n", b"\n").replace(b"\n", line_end)):
        reply, events = read_pieces(one, pieces)
        first = first or reply
        assert reply.message == first.message
        assert (reply.finish_reason, reply.usage) == (first.finish_reason, first.usage)
        assert shown_text(events) == reply.reply
    assert first is not None
    compare(first, case.expected)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("SOMETHING_NEW", "other"),
        (None, "other"),
    ],
)
def test_finish_reasons(raw: str | None, reason: str):
    body = {"candidates": [{"content": {"parts": [{"text": "so far"}]}, "finishReason": raw}]}
    reply = codec().parse_reply(body)
    assert (reply.finish_reason, reply.raw_finish_reason, reply.reply) == (reason, raw, "so far")


def test_a_call_makes_the_finish_reason():
    assert codec().parse_reply(load("gemini", "02-tool-call").json).finish_reason == "tool_calls"


def test_a_blocked_prompt_is_an_error_with_its_reason():
    body = load("gemini", "12-blocked-prompt").json
    error = codec().parse_error(200, {}, body)
    assert isinstance(error, ContentFiltered)
    assert (error.code, error.retryable, error.status) == ("SAFETY", False, 200)
    with pytest.raises(ContentFiltered):
        codec().parse_reply(body)
    with pytest.raises(ContentFiltered):
        codec().parse_event(codec().new_state(), json.dumps(body).encode())


def test_signatures_stay_on_their_parts_through_a_whole_turn():
    for name in ("04-parallel-calls", "07-stream-tool-calls"):
        case = load("gemini", name)
        one = codec()
        reply = read_pieces(one, [case.content])[0] if "stream" in name else one.parse_reply(case.json)
        results = [ToolMessage("x", c.id, c.name) for c in reply.tool_calls]
        body = body_of(one.build_request(ask(BOTH, reply.message, *results, tools=(GET_WEATHER, GET_TIME))))
        rules_gemini.check(body)
        assert body["contents"][1]["parts"] == [
            {
                "functionCall": {
                    "name": "get_weather",
                    "args": {"city": "Paris", "unit": "celsius"},
                    "id": "call_w1",
                },
                "thoughtSignature": SIGNATURE,
            },
            {"functionCall": {"name": "get_time", "args": {"timezone": "Europe/Paris"}, "id": "call_t2"}},
        ]
        assert [part["functionResponse"]["id"] for part in body["contents"][2]["parts"]] == ["call_w1", "call_t2"]


def test_a_late_signature_on_an_empty_text_is_kept_and_unsigned_text_is_joined():
    chunks = [[{"text": "a"}], [{"text": "b"}], [{"text": "", "thoughtSignature": "c2ln"}], [{"text": "c"}]]
    state = codec().new_state()
    deltas = [
        delta
        for parts in chunks
        for delta in codec().parse_event(
            state, json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).encode()
        )
    ]
    assert "".join(delta.text for delta in deltas) == "abc"  # type: ignore[union-attr]
    (done,) = codec().finish(state)
    parts = [{"text": "ab"}, {"text": "", "thoughtSignature": "c2ln"}, {"text": "c"}]
    assert done.details == {"gemini": {"parts": parts}}  # type: ignore[union-attr]
    message = AssistantMessage("abc", details=done.details)  # type: ignore[union-attr]
    body = body_of(codec().build_request(ask(WEATHER, message, UserMessage("more"))))
    assert body["contents"][1]["parts"] == parts


def test_a_changed_message_is_sent_changed():
    changed = replace(ONE_CALL, content="Never mind.", tool_calls=())
    body = body_of(codec().build_request(ask(WEATHER, changed, UserMessage("why?"))))
    assert body["contents"][1] == {"role": "model", "parts": [{"text": "Never mind."}]}


def test_a_call_of_another_provider_gets_the_dummy_signature_and_no_id():
    foreign = replace(TWO_CALLS, details={})
    history = (BOTH, foreign, ToolMessage("a", "call_w1"), ToolMessage("b", "call_t2"), UserMessage("so?"))
    body = body_of(codec().build_request(ask(*history)))
    rules_gemini.check(body)
    first, second = body["contents"][1]["parts"]
    assert first["thoughtSignature"] == DUMMY_SIGNATURE
    assert "thoughtSignature" not in second
    assert "id" not in first["functionCall"]
    assert body["contents"][2]["parts"][0] == {"functionResponse": {"name": "get_weather", "response": {"output": "a"}}}
    assert body["contents"][2]["parts"][2] == {"text": "so?"}
    old = body_of(codec("gemini-2.5-flash").build_request(ask(*history)))
    assert "thoughtSignature" not in old["contents"][1]["parts"][0]
    assert body_of(codec("gemini-2.5-flash", signatures=True).build_request(ask(*history))) == body


@pytest.mark.parametrize(
    ("content", "is_error", "response"),
    [
        ("sunny", False, {"output": "sunny"}),
        ("007", False, {"output": "007"}),
        ('{"t":1}', False, {"output": {"t": 1}}),
        ("[1,2]", False, {"output": [1, 2]}),
        ("[not json", False, {"output": "[not json"}),
        ('{"t":1}', True, {"error": '{"t":1}'}),
        ("", False, {"output": ""}),
    ],
)
def test_results_are_objects(content: str, is_error: bool, response: Any):
    history = (WEATHER, ONE_CALL, ToolMessage(content, "call_w1", is_error=is_error))
    body = body_of(codec().build_request(ask(*history)))
    assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == response


ERRORS = {
    "20-error-400": (BadRequest, False, "INVALID_ARGUMENT", None),
    "21-error-400-key": (AuthenticationFailed, False, "API_KEY_INVALID", None),
    "22-error-429": (RateLimited, True, "RESOURCE_EXHAUSTED", 27.0),
    "23-error-503": (Overloaded, True, "UNAVAILABLE", None),
}


@pytest.mark.parametrize("name", names("gemini", errors=True))
@pytest.mark.parametrize("wrapped", [False, True])
def test_recorded_errors_are_sorted(name: str, wrapped: bool):
    case = load("gemini", name)
    error = codec().parse_error(case.status, case.headers, [case.json] if wrapped else case.json)
    expected = case.expected["error"]
    assert error is not None
    assert (type(error), error.retryable, error.code, error.retry_after) == ERRORS[name]
    assert error.retryable == expected["retryable_by_sdk_when_enabled"]
    assert (error.status, error.message) == (expected["code"], expected["message"])


def quota(identifier: str, delay: Any = "3.5s") -> dict[str, Any]:
    return {
        "error": {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"violations": [{"quotaId": identifier}]}, {"retryDelay": delay}],
        }
    }


def test_a_daily_quota_is_no_rate_limit():
    error = codec().parse_error(429, {}, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"))
    assert (type(error), error.retryable, error.retry_after) == (QuotaExceeded, False, 3.5)  # type: ignore[union-attr]
    error = codec().parse_error(429, {}, quota("GenerateRequestsPerMinute", {"seconds": 9}))
    assert (type(error), error.retryable, error.retry_after) == (RateLimited, True, 9.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("status", "word", "kind", "retryable"),
    [
        (401, "UNAUTHENTICATED", AuthenticationFailed, False),
        (403, "PERMISSION_DENIED", PermissionDenied, False),
        (404, "NOT_FOUND", NotFound, False),
        (408, None, RequestTimeout, True),
        (499, "CANCELLED", BadRequest, False),
        (500, "INTERNAL", ServerFailed, True),
        (502, None, ServerFailed, True),
        (504, "DEADLINE_EXCEEDED", RequestTimeout, True),
        (429, "SOMETHING_NEW", RateLimited, True),
    ],
)
def test_other_errors_are_sorted(status: int, word: str | None, kind: type, retryable: bool):
    error = codec().parse_error(status, {}, {"error": {"status": word, "message": "no"}})
    assert (type(error), error.retryable) == (kind, retryable)  # type: ignore[union-attr]


def test_too_many_tokens():
    message = "The input token count (9) exceeds the maximum number of tokens allowed (8)."
    error = codec().parse_error(400, {}, {"error": {"status": "INVALID_ARGUMENT", "message": message}})
    assert type(error) is ContextTooLong


@pytest.mark.parametrize(
    "body", [None, [], "text", 7, {}, {"error": None}, {"error": {"details": [1, {"violations": 2}]}}]
)
def test_error_bodies_of_any_shape_do_not_raise(body: Any):
    assert isinstance(codec().parse_error(502, {}, body, "<html>bad gateway</html>"), ServerFailed)
    assert isinstance(codec().parse_error(429, {}, body), RateLimited)


def test_an_error_in_mid_stream_is_raised():
    data = json.dumps(load("gemini", "23-error-503").json).encode()
    with pytest.raises(Overloaded):
        codec().parse_event(codec().new_state(), data)
    with pytest.raises(RateLimited):
        codec().parse_event(codec().new_state(), b'{"error":{"code":429}}')


def test_a_stream_without_a_finish_reason_has_no_done():
    body = load("gemini", "06-stream-text").content
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [body[: body.rindex(b"data:")]])


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"candidates": []},
        {"candidates": [1]},
        {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]},
    ],
)
def test_unknown_shapes_are_invalid_responses(body: Any):
    with pytest.raises(InvalidResponse):
        codec().parse_reply(body)


def test_missing_content_and_args_are_empty():
    assert codec().parse_reply({"candidates": [{"finishReason": "STOP"}]}).reply == ""
    body = {"candidates": [{"content": {"parts": [{"functionCall": {"name": "now"}}]}, "finishReason": "STOP"}]}
    assert codec().parse_reply(body, prefix="7").tool_calls == (call("call_000000000000000700000000", "now", "{}"),)


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("model", ["gemini-3.1-pro-preview", "gemini-2.5-flash"])
def test_any_history_can_be_sent(name: str, model: str):
    body = body_of(codec(model).build_request(ask(*HISTORIES[name], tools=(GET_WEATHER,))))
    rules_gemini.check(body, signatures=model.startswith("gemini-3"))
    assert body_of(codec(model).build_request(ask(*HISTORIES[name], tools=(GET_WEATHER,)))) == body


def test_nothing_to_send_is_an_error():
    with pytest.raises(MessageError, match="no message has any content"):
        codec().build_request(ask(UserMessage(" ")))


def test_messages_and_tools_are_encoded_once(monkeypatch: pytest.MonkeyPatch):
    import lmagent.providers.gemini as module

    first = codec().build_request(CALLS["05-parallel-results"])
    monkeypatch.setattr(module, "dumps", lambda value: pytest.fail(f"encoded again: {value}"))
    assert codec().build_request(CALLS["05-parallel-results"]).content == first.content


NEW, OLD = "gemini-3.1-pro", "gemini-2.5-pro"
SAFETY = [{"category": "c", "threshold": "t"}]
GENERATION: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (NEW, {"top_k": 3, "seed": 7}, {"topK": 3, "seed": 7}),
    (NEW, {"presence_penalty": 1.0, "frequency_penalty": 0.5}, {"presencePenalty": 1.0, "frequencyPenalty": 0.5}),
    (NEW, {"logprobs": True, "top_logprobs": 2}, {"responseLogprobs": True, "logprobs": 2}),
    (NEW, {"reasoning_effort": "max"}, {"thinkingConfig": {"thinkingLevel": "XHIGH"}}),
    (NEW, {"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}),
    (OLD, {"reasoning_effort": "high"}, {"thinkingConfig": {"thinkingBudget": 24576}}),
    (OLD, {"thinking_config": {"thinkingBudget": -1}}, {"thinkingConfig": {"thinkingBudget": -1}}),
]
PARAMETERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *((model, given, {"generationConfig": sent}) for model, given, sent in GENERATION),
    (OLD, {"safety_settings": SAFETY}, {"safetySettings": SAFETY}),
    (OLD, {"cached_content": "cachedContents/x"}, {"cachedContent": "cachedContents/x"}),
    (
        OLD,
        {"seed": 1, "extra_body": {"generationConfig": {"x": 2}, "y": 3}},
        {"generationConfig": {"seed": 1, "x": 2}, "y": 3},
    ),
    (OLD, {"parallel_tool_calls": True}, {}),
]


@pytest.mark.parametrize(("model", "given", "sent"), PARAMETERS)
def test_parameters(model: str, given: dict[str, Any], sent: dict[str, Any]):
    body = body_of(codec(model).build_request(ask(UserMessage("hi"), parameters=given)))
    assert {name: value for name, value in body.items() if name != "contents"} == sent


@pytest.mark.parametrize("given", [{"parallel_tool_calls": False}, {"user": "u"}, {"logit_bias": {"1": 2}}])
def test_messages_that_cannot_be_expressed_raise_an_error(given: dict[str, Any]):
    with pytest.raises(ParameterError):
        codec().build_request(ask(UserMessage("hi"), parameters=given))


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),
        ("required", {"mode": "ANY"}),
        ("none", {"mode": "NONE"}),
        (NamedTool("get_time"), {"mode": "ANY", "allowedFunctionNames": ["get_time"]}),
    ],
)
def test_tool_choice(choice: Any, sent: Any):
    body = body_of(codec().build_request(ask(WEATHER, tools=(GET_TIME,), tool_choice=choice)))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == sent


def test_urls():
    def url(model: str = "gemini-3-flash", **options: Any) -> str:
        return codec(model, **options).build_request(ask(UserMessage("hi"))).url

    assert url() == "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-flash:generateContent"
    assert (
        url("tunedModels/a b", base_url="http://localhost:1/")
        == "http://localhost:1/v1beta/tunedModels/a%20b:generateContent"
    )
    assert url(base_url="http://localhost:1/v1beta").startswith("http://localhost:1/v1beta/models")
    vertex = "https://us-aiplatform.googleapis.com/v1beta1/projects/p/locations/us/publishers/google"
    assert url(base_url=vertex, version="") == f"{vertex}/models/gemini-3-flash:generateContent"


def test_files_and_images():
    parts = (
        ImagePart(url=f"data:image/png;base64,{PNG}"),
        ImagePart(url="gs://bucket/cat.webp"),
        FilePart(data="JVBERg=="),
        FilePart(url="https://www.youtube.com/watch?v=1", media_type="video/mp4"),
        FilePart(file_id="https://generativelanguage.googleapis.com/v1beta/files/x"),
    )
    body = body_of(codec().build_request(ask(UserMessage(parts))))
    assert body["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"mimeType": "image/webp", "fileUri": "gs://bucket/cat.webp"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
        {"fileData": {"mimeType": "video/mp4", "fileUri": "https://www.youtube.com/watch?v=1"}},
        {
            "fileData": {
                "mimeType": "application/pdf",
                "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x",
            }
        },
    ]
    with pytest.raises(MessageError, match="fetches only URLs of Google"):
        codec().build_request(ask(UserMessage((ImagePart(url="https://example.com/cat.jpg"),))))


def test_schemas_keep_what_the_subset_allows():
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "kind": {"const": "a"},
            "n": {"type": "integer", "exclusiveMinimum": 0, "description": "How many"},
            "who": {"$ref": "#/$defs/Who", "description": "Someone"},
            "all": {"allOf": [{"type": "string", "minLength": 2}]},
            "d": {"type": "object", "additionalProperties": {"type": "string", "pattern": "a"}},
        },
        "$defs": {"Who": {"type": "string"}},
    }
    body = body_of(codec().build_request(ask(WEATHER, tools=(spec(GET_WEATHER, parameters=schema),))))
    rules_gemini.check(body)
    assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]["properties"] == {
        "kind": {"enum": ["a"]},
        "n": {"type": "integer", "description": "How many\n\n{exclusiveMinimum: 0}"},
        "who": {"anyOf": [{"$ref": "#/$defs/Who"}], "description": "Someone"},
        "all": {"type": "string", "description": "{minLength: 2}"},
        "d": {"type": "object", "additionalProperties": {"type": "string", "description": "{pattern: a}"}},
    }


def test_a_tool_without_parameters_has_no_schema():
    bare = spec(GET_TIME, parameters={"type": "object", "properties": {}})
    body = body_of(codec().build_request(ask(WEATHER, tools=(bare,))))
    assert body["tools"][0]["functionDeclarations"] == [
        {"name": "get_time", "description": "Get the local time of a time zone"}
    ]


def test_before_gemini_3_the_system_prompt_describes_a_schema_if_there_are_tools():
    call_ = ask(WEATHER, tools=(GET_TIME,), output_schema=ORDER)
    assert "responseJsonSchema" in body_of(codec().build_request(call_))["generationConfig"]
    body = body_of(codec("gemini-2.5-flash").build_request(call_))
    assert "generationConfig" not in body
    assert json.loads(body["systemInstruction"]["parts"][0]["text"].partition("\n")[2]) == ORDER_SCHEMA
    assert "responseJsonSchema" in str(
        body_of(codec("gemini-2.5-flash").build_request(ask(WEATHER, output_schema=ORDER)))
    )
