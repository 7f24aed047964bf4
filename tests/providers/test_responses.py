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
    ParameterError,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.base import NamedTool
from lmagent.providers.openai.responses import ResponsesCodec
from lmagent.toolkit.schema import OutputSchema
from tests.providers import rules_responses
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

PLATFORM = "openai-responses"
SYSTEM = SystemMessage("You are a terse assistant.")
WEATHER = UserMessage("What is the weather in Paris?")
BOTH = UserMessage("Weather and local time in Paris?")
HI = UserMessage("Hi")
ORDER = OutputSchema(name="Order", schema=ORDER_SCHEMA)


def codec(model: str = "gpt-5.4", **options: Any) -> ResponsesCodec:
    return ResponsesCodec(model, **options)


def reply(name: str) -> AssistantMessage:
    """Return the message of a recorded answer."""
    return codec().parse_reply(load(PLATFORM, name).json).message


CALLS = {
    "01-chat": ask(SYSTEM, UserMessage("Say hello."), parameters={"max_tokens": 200}),
    "02-tool-call": ask(
        SYSTEM,
        WEATHER,
        tools=(GET_WEATHER,),
        parameters={"store": False, "reasoning_effort": "low", "reasoning": {"summary": "auto"}},
    ),
    "03-tool-result": ask(
        SYSTEM,
        WEATHER,
        reply("02-tool-call"),
        ToolMessage('{"temp_c": 18, "sky": "sunny"}', "call_Wthr0001", "get_weather"),
        tools=(GET_WEATHER,),
        parameters={"store": False},
    ),
    "04-parallel-calls": ask(BOTH, tools=(GET_WEATHER, GET_TIME), parameters={"parallel_tool_calls": True}),
    "05-parallel-results": ask(
        BOTH,
        reply("04-parallel-calls"),
        ToolMessage("14:05", "call_Time0002"),
        ToolMessage("18 C, sunny", "call_Wthr0001"),
        tools=(GET_WEATHER, GET_TIME),
        parameters={"previous_response_id": "resp_Demo0001"},
    ),
    "06-stream-text": ask(UserMessage("Say hello."), stream=True),
    "07-stream-tool-calls": ask(WEATHER, tools=(GET_WEATHER, GET_TIME), stream=True, parameters={"store": False}),
    "08-image": ask(
        UserMessage(
            (
                TextPart("Describe both images."),
                ImagePart(data=PNG, detail="low"),
                ImagePart(url="https://example.com/cat.jpg"),
            )
        )
    ),
    "09-json-schema": ask(UserMessage("Order three pears."), output_schema=ORDER),
    "10-incomplete": ask(UserMessage("Tell a story."), parameters={"max_tokens": 16}),
    "11-failed": ask(HI),
    "12-refusal": ask(HI, tool_choice="none"),
    "13-tool-choice-named": ask(
        WEATHER,
        tools=(GET_WEATHER,),
        tool_choice=NamedTool("get_weather"),
        parameters={"parallel_tool_calls": False},
    ),
}


def untitled(value: Any) -> Any:
    """Return a schema without the titles that pydantic generates."""
    if isinstance(value, list):
        return [untitled(item) for item in value]
    return {k: untitled(v) for k, v in value.items() if k != "title"} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", names(PLATFORM))
def test_requests_equal_the_captured_ones(name: str):
    case = load(PLATFORM, name)
    request = codec(store=None).build_request(CALLS[name])
    expected = untitled(case.request["body"])
    if isinstance(expected["input"], str):
        expected["input"] = [{"role": "user", "content": expected["input"]}]
    if expected.get("tool_choice") == "auto":
        del expected["tool_choice"]
    assert body_of(request) == expected
    assert request.url == "https://api.openai.com" + case.request["path"]
    rules_responses.check(body_of(request))


def compare(answer: Any, expected: dict[str, Any]) -> None:
    assert answer.reply == (expected["text"] or expected["refusal"] or "")
    assert answer.message.refusal == (expected["refusal"] or "")
    assert answer.raw_finish_reason == (expected["incomplete_reason"] or expected["status"])
    calls = [{"id": c.id, "name": c.name, "raw_arguments": c.arguments} for c in answer.tool_calls]
    assert calls == [{key: item[key] for key in ("id", "name", "raw_arguments")} for item in expected["calls"]]
    items = answer.message.details[PLATFORM].get("output", [])
    reasoning = [
        {"id": i["id"], "summary": "".join(part["text"] for part in i["summary"]), "encrypted": i["encrypted_content"]}
        for i in items
        if i["type"] == "reasoning"
    ]
    assert reasoning == expected["reasoning_items"]
    assert answer.message.reasoning == "\n\n".join(item["summary"] for item in reasoning)
    usage = expected["usage"]
    found = (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens)
    assert found == (usage["input"], usage["output"], usage["total"])
    assert (answer.usage.cached_tokens, answer.usage.reasoning_tokens) == (usage["cached"], usage["reasoning"])
    assert answer.response_id == expected["id"]


@pytest.mark.parametrize("name", [n for n in names(PLATFORM, streams=False) if n != "11-failed"])
def test_answers_are_read_as_the_sdk_reads_them(name: str):
    case = load(PLATFORM, name)
    assert codec().parse_error(case.status, case.headers, case.json) is None
    compare(codec().parse_reply(case.json), case.expected)


@pytest.mark.parametrize("name", names(PLATFORM, streams=True))
def test_streams_are_read_however_they_are_cut(name: str):
    case = load(PLATFORM, name)
    one = codec()
    first = None
    for pieces in cuts(case.content):
        answer, events = read_pieces(one, pieces)
        first = first or answer
        assert answer.message == first.message
        assert (answer.finish_reason, answer.usage) == (first.finish_reason, first.usage)
        assert shown_text(events) == answer.reply
    assert first is not None
    compare(first, case.expected)


def test_streams_are_read_one_byte_at_a_time():
    for name in names(PLATFORM, streams=True):
        case = load(PLATFORM, name)
        compare(read_pieces(codec(), [bytes([byte]) for byte in case.content])[0], case.expected)


FINISH = {
    "01-chat": "stop",
    "02-tool-call": "tool_calls",
    "10-incomplete": "length",
    "12-refusal": "refusal",
    "13-tool-choice-named": "tool_calls",
}


@pytest.mark.parametrize("name", FINISH)
def test_finish_reasons(name: str):
    assert codec().parse_reply(load(PLATFORM, name).json).finish_reason == FINISH[name]


def test_a_content_filter_keeps_the_text():
    body = {**load(PLATFORM, "10-incomplete").json, "incomplete_details": {"reason": "content_filter"}}
    answer = codec().parse_reply(body)
    assert (answer.finish_reason, answer.reply) == ("content_filter", "Once upon")


def test_a_failed_status_in_a_200_body_is_an_error():
    body = load(PLATFORM, "11-failed").json
    error = codec().parse_error(200, {}, body)
    assert isinstance(error, ServerFailed)
    assert (error.code, error.retryable, error.provider) == ("server_error", True, PLATFORM)
    assert error.message == "The model failed to generate a response."
    with pytest.raises(ServerFailed):
        codec().parse_reply(body)
    for kind in ("response.failed", "error"):
        event = {"type": kind, "response": body, "code": "server_error", "message": "no", "param": None}
        with pytest.raises(ServerFailed):
            codec().parse_event(codec().new_state(), json.dumps(event).encode(), kind)
    with pytest.raises(ServerFailed, match="without an explanation"):
        codec().parse_reply({"status": "cancelled", "output": [], "error": None})
    with pytest.raises(ServerFailed, match="without an explanation"):
        codec().parse_event(codec().new_state(), b'{"type":"response.failed","response":{}}')


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (200, "rate_limit_exceeded", RateLimited, True),
        (200, "invalid_prompt", ContentFiltered, False),
        (200, "bio_policy", ContentFiltered, False),
        (200, "image_too_large", BadRequest, False),
        (200, "vector_store_timeout", ServerFailed, True),
        (200, "something_new", InvalidResponse, False),
        (400, "context_length_exceeded", ContextTooLong, False),
        (401, "invalid_api_key", AuthenticationFailed, False),
        (404, "model_not_found", NotFound, False),
        (429, "rate_limit_exceeded", RateLimited, True),
        (429, "insufficient_quota", QuotaExceeded, False),
        (500, None, ServerFailed, True),
    ],
)
def test_errors_are_sorted(status: int, code: str | None, kind: type[ProviderError], retryable: bool):
    headers = {"x-request-id": "req_1", "retry-after": "3"}
    error = codec().parse_error(status, headers, {"error": {"code": code, "message": "no"}})
    assert (type(error), error.retryable) == (kind, retryable)  # type: ignore[union-attr]
    assert (error.request_id, error.retry_after) == ("req_1", 3.0)  # type: ignore[union-attr]


def test_a_conflict_is_retryable():
    assert codec().parse_error(409, {}, {"error": {"message": "no"}}).retryable  # type: ignore[union-attr]


def test_output_items_are_sent_back_in_order():
    for name in ("04-parallel-calls", "07-stream-tool-calls"):
        case = load(PLATFORM, name)
        answer = read_pieces(codec(), [case.content])[0] if "stream" in name else codec().parse_reply(case.json)
        results = [ToolMessage("x", c.id, c.name) for c in answer.tool_calls]
        body = body_of(codec().build_request(ask(BOTH, answer.message, *results, tools=(GET_WEATHER, GET_TIME))))
        rules_responses.check(body)
        output = answer.raw["output"]
        assert body["input"][1 : 1 + len(output)] == output
        assert [item["type"] for item in body["input"][-2:]] == ["function_call_output"] * 2


def test_plain_answers_keep_only_their_id():
    for name in ("01-chat", "13-tool-choice-named"):
        assert reply(name).details == {PLATFORM: {"id": "resp_Demo0001"}}


def test_phases_are_sent_back():
    body = load(PLATFORM, "01-chat").json
    body["output"][0]["phase"] = "final_answer"
    message = codec().parse_reply(body).message
    assert body_of(codec().build_request(ask(HI, message, HI)))["input"][1] == body["output"][0]


def test_a_changed_message_is_sent_changed():
    changed = replace(reply("04-parallel-calls"), content="Never mind.", tool_calls=())
    body = body_of(codec().build_request(ask(BOTH, changed, HI)))
    assert body["input"][1] == {"role": "assistant", "content": "Never mind."}


def test_repaired_arguments_are_sent_with_the_reasoning():
    message = reply("02-tool-call")
    mended = replace(message, tool_calls=(replace(message.tool_calls[0], arguments="{}"),))
    body = body_of(codec().build_request(ask(WEATHER, mended, ToolMessage("x", "call_Wthr0001"))))
    assert body["input"][1]["type"] == "reasoning"
    assert body["input"][2]["arguments"] == "{}"


def test_streams_with_missing_fields():
    """Items without deltas, or an end event without output, give the same reply."""
    full = load(PLATFORM, "07-stream-tool-calls")
    events = [json.loads(line[6:]) for line in full.content.decode().splitlines() if line.startswith("data: ")]
    expected, _ = read_pieces(codec(), [full.content])

    def answer(kept: list[dict[str, Any]]) -> Any:
        return read_pieces(codec(), [f"data: {json.dumps(event)}\n\n".encode() for event in kept])[0]

    assert answer([event for event in events if not event["type"].endswith(".delta")]).message == expected.message
    assert answer(events[-1:]).message == expected.message
    last = {**events[-1], "response": {**events[-1]["response"], "output": []}}
    assert answer([*events[:-1], last]).message == expected.message


def test_a_stream_without_its_end_has_no_done():
    body = load(PLATFORM, "06-stream-text").content
    with pytest.raises(AssertionError, match="no end"):
        read_pieces(codec(), [body[: body.index(b"event: response.completed")]])


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"output": 1}, {"output": [], "status": "in_progress"}, {"output": [{"type": "function_call"}]}],
)
def test_unknown_shapes_are_invalid_responses(body: Any):
    with pytest.raises(InvalidResponse):
        codec().parse_reply(body)


@pytest.mark.parametrize(
    "data", [b"no json", b"[]", b'{"type":"response.completed"}', b'{"type":"response.output_text.delta","delta":"x"}']
)
def test_unreadable_events_are_invalid_responses(data: bytes):
    with pytest.raises(InvalidResponse):
        list(codec().parse_event(codec().new_state(), data))


def test_unknown_events_and_items_are_ignored():
    state = codec().new_state()
    assert list(codec().parse_event(state, b'{"type":"response.new.delta","delta":"x","output_index":0}')) == []
    assert list(codec().parse_event(state, b"[DONE]")) == []
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    text = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    answer = codec().parse_reply({"output": [item, text], "status": "completed"})
    assert answer.reply == "x"
    assert answer.message.details == {PLATFORM: {"output": [item, text]}}


def test_empty_arguments_are_an_empty_object():
    item = {"type": "function_call", "call_id": "c", "name": "now", "arguments": " "}
    assert codec().parse_reply({"output": [item]}).tool_calls == (call("c", "now", "{}"),)


@pytest.mark.parametrize("name", HISTORIES)
def test_any_history_can_be_sent(name: str):
    body = body_of(codec().build_request(ask(*HISTORIES[name], tools=(GET_WEATHER,))))
    rules_responses.check(body)
    assert body_of(codec().build_request(ask(*HISTORIES[name], tools=(GET_WEATHER,)))) == body


def test_system_messages_in_front_are_instructions_and_later_ones_stay_where_they_are():
    body = body_of(codec().build_request(ask(SystemMessage("a"), SystemMessage("b"), HI, SystemMessage("c"))))
    assert body["instructions"] == "a\n\nb"
    assert body["input"] == [{"role": "user", "content": "Hi"}, {"role": "system", "content": "c"}]
    assert body_of(codec().build_request(ask(SYSTEM)))["input"] == [{"role": "system", "content": SYSTEM.content}]


def test_nothing_to_send_is_an_error():
    with pytest.raises(MessageError, match="no message has any content"):
        codec().build_request(ask(AssistantMessage("")))


def test_long_and_repeated_ids_are_made_to_fit():
    long = "x" * 80
    history = [m for _ in range(2) for m in (AssistantMessage("", (call(long, "f", "{"),)), ToolMessage("r", long))]
    body = body_of(codec().build_request(ask(HI, *history)))
    rules_responses.check(body)
    assert [item["call_id"] for item in body["input"][1::2]] == ["x" * 64, "x" * 62 + "_2"]
    assert body["input"][1]["arguments"] == "{"


def test_previous_responses():
    def sent(*messages: Any, **parameters: Any) -> Any:
        return body_of(codec().build_request(ask(*messages, parameters=parameters)))

    assert sent(HI, previous_response_id="resp_9")["input"] == [{"role": "user", "content": "Hi"}]
    body = sent(ToolMessage("r", "call_1"), HI, previous_response_id="resp_9")
    assert body["input"][0] == {"type": "function_call_output", "call_id": "call_1", "output": "r"}
    assert "store" not in body
    assert sent(SYSTEM, HI, reply("01-chat"), WEATHER, previous_response_id="resp_Demo0001")["input"] == [
        {"role": "user", "content": WEATHER.content}
    ]


def test_nothing_is_stored_by_default_and_encrypted_reasoning_is_requested():
    def sent(model: str, **options: Any) -> Any:
        body = body_of(codec(model, **options).build_request(ask(HI)))
        return body.get("store"), body.get("include")

    encrypted = ["reasoning.encrypted_content"]
    assert sent("gpt-5.4") == (False, encrypted)
    assert sent("gpt-4o") == (False, None)
    assert sent("gpt-5-chat-latest") == (False, None)
    assert sent("my-deployment", encrypted_reasoning=True) == (False, encrypted)
    assert sent("gpt-5.4", store=True) == (True, None)
    assert sent("gpt-5.4", store=None) == (None, None)


def test_messages_and_tools_are_encoded_once(monkeypatch: pytest.MonkeyPatch):
    import lmagent.providers.openai.responses as module

    first = codec().build_request(CALLS["03-tool-result"])
    monkeypatch.setattr(module, "dumps", lambda value: pytest.fail(f"encoded again: {value}"))
    assert codec().build_request(CALLS["03-tool-result"]).content == first.content


PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0, "top_p": 0.5, "user": "u"}, {"temperature": 0, "top_p": 0.5, "user": "u"}),
    ({"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}),
    ({"verbosity": "low", "text": {"x": 1}}, {"text": {"x": 1, "verbosity": "low"}}),
    (
        {"logprobs": True, "top_logprobs": 2, "include": ["a"]},
        {"include": ["a", "message.output_text.logprobs"], "top_logprobs": 2},
    ),
    ({"store": True, "metadata": {"a": "b"}}, {"store": True, "metadata": {"a": "b"}}),
    ({"extra_body": {"background": True, "input": "raw"}}, {"background": True, "input": "raw"}),
    ({"parallel_tool_calls": False}, {}),
]


@pytest.mark.parametrize(("given", "sent"), PARAMETERS)
def test_parameters(given: dict[str, Any], sent: dict[str, Any]):
    body = body_of(codec("gpt-4.1", store=None).build_request(ask(HI, parameters=given)))
    assert {"input": [{"role": "user", "content": "Hi"}], "model": "gpt-4.1", **sent} == body


@pytest.mark.parametrize(
    "given", [{"stop": ["x"]}, {"seed": 1}, {"presence_penalty": 1.0}, {"frequency_penalty": 1.0}, {"top_k": 3}]
)
def test_messages_that_cannot_be_expressed_raise_an_error(given: dict[str, Any]):
    with pytest.raises(ParameterError):
        codec().build_request(ask(HI, parameters=given))


def test_parameters_that_reasoning_models_refuse_raise_an_error_that_can_be_overridden():
    call_ = ask(HI, parameters={"temperature": 0.5})
    with pytest.raises(ParameterError, match="does not take temperature"):
        codec("o3").build_request(call_)
    assert body_of(codec("o3", model_rules=()).build_request(call_))["temperature"] == 0.5


def test_strict_tools_and_schemas():
    strict = spec(GET_WEATHER, strict=True)
    tool = body_of(codec().build_request(ask(WEATHER, tools=(strict,))))["tools"][0]
    assert tool["strict"] is True
    assert tool["parameters"]["required"] == ["city", "unit"]
    free = {"type": "object", "additionalProperties": {"type": "integer"}}
    with pytest.raises(ParameterError, match=r"get_weather: .*strict mode cannot describe"):
        codec().build_request(ask(WEATHER, tools=(spec(GET_WEATHER, strict=True, parameters=free),)))
    schema = OutputSchema(name="x", schema=free, description="d")
    format_ = body_of(codec().build_request(ask(HI, output_schema=schema)))["text"]["format"]
    assert format_ == {"type": "json_schema", "name": "x", "description": "d", "schema": free, "strict": False}
    with pytest.raises(ParameterError, match="cannot be strict"):
        codec().build_request(ask(HI, output_schema=replace(schema, strict=True)))


def test_files():
    parts = (FilePart(data="JVBERg=="), FilePart(file_id="file_1"), FilePart(url="https://example.com/a.pdf"))
    body = body_of(codec().build_request(ask(UserMessage(parts))))
    assert body["input"][0]["content"] == [
        {"type": "input_file", "filename": "file.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
    ]


@pytest.mark.parametrize("name", ["12-v1-responses", "13-responses-dated"])
def test_azure_uses_the_same_dialect(name: str):
    case = load("azure", name)
    one = codec(
        case.request["body"]["model"],
        base_url="https://RESOURCE.openai.azure.com" + case.request["path"],
        provider="azure",
        store=None,
        params=case.request["query"],
    )
    request = one.build_request(ask(HI))
    assert body_of(request) == {**case.request["body"], "input": [{"role": "user", "content": "Hi"}]}
    assert request.url == "https://RESOURCE.openai.azure.com" + case.request["path"]
    assert request.params == case.request["query"]
    assert one.parse_reply(case.json).reply == case.expected["text"]


def test_places():
    one = codec(
        base_url="https://r.openai.azure.com/openai/responses",
        provider="azure",
        params={"api-version": "2026-01-01"},
        headers={"x-a": "1"},
    )
    request = one.build_request(ask(HI, parameters={"extra_headers": {"x-b": "2"}}))
    assert request.url == "https://r.openai.azure.com/openai/responses"
    assert request.params == {"api-version": "2026-01-01"}
    assert (request.headers["x-a"], request.headers["x-b"]) == ("1", "2")
    assert one.model_id == "azure/gpt-5.4"
