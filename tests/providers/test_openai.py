"""The Chat Completions codec: recordings of the official SDK, and our values on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.json_text import loads
from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
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
    ContextTooLong,
    MessageError,
    ParameterError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.base import BearerAuth, ChatCall, Features, NamedTool
from lmagent.providers.openai.chat import OPENAI, OpenAICodec
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from tests.loopback import LoopbackServer, answer
from tests.providers.wire import (
    assert_body,
    assert_cuts_do_not_matter,
    assert_headers,
    assert_reply,
    call_of,
    load,
    names,
    read_stream,
    signed,
)

ASK = (UserMessage("hi"),)
ADD = ToolSpec(
    name="add",
    description="Add.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
        "required": ["a"],
    },
)
LEGACY = ("10-legacy-functions", "11-legacy-function-result", "15-stream-legacy-function")


def codec_of(name: str) -> OpenAICodec:
    body = load("openai-chat", name).body
    profile = OPENAI
    if body["messages"][0]["role"] == "developer":
        profile = replace(OPENAI, system_role="developer")
    return OpenAICodec(
        body["model"], profile=profile, legacy_functions=name in LEGACY, stream_usage="stream_options" in body
    )


def body_of(call: ChatCall, codec: OpenAICodec | None = None) -> dict[str, Any]:
    return loads((codec or OpenAICodec("gpt-5.4")).build_request(call).content)


def sent(*messages: Message, codec: OpenAICodec | None = None) -> list[dict[str, Any]]:
    return body_of(ChatCall(messages=messages), codec)["messages"]


@pytest.mark.parametrize("name", names("openai-chat"))
def test_requests_equal_the_sdk(name: str) -> None:
    case = load("openai-chat", name)
    request = codec_of(name).build_request(call_of(case.body))
    assert request.method == "POST"
    assert request.url == "https://api.openai.com" + case.request["path"]
    assert_body(request, case)
    assert_headers(signed(request, BearerAuth(Secret("sk-test-0000"))).headers, case)


@pytest.mark.parametrize("name", names("openai-chat", streams=False, errors=False))
def test_replies_equal_the_sdk(name: str) -> None:
    case = load("openai-chat", name)
    codec = codec_of(name)
    assert codec.parse_error(case.status, case.headers, case.json) is None
    reply = codec.parse_reply(case.json)
    assert_reply(reply, case)
    assert reply.raw is not None
    assert reply.model_id == f"openai/{codec.model}"


@pytest.mark.parametrize("name", names("openai-chat", streams=True))
def test_streams_equal_the_sdk_however_they_are_cut(name: str) -> None:
    case = load("openai-chat", name)
    codec = codec_of(name)
    assert_reply(read_stream(codec, case.content), case)
    assert_cuts_do_not_matter(codec, case.content)


ERRORS = {
    "20-error-400": BadRequest,
    "21-error-401": AuthenticationFailed,
    "22-error-429-rate": RateLimited,
    "23-error-429-quota": QuotaExceeded,
    "24-error-500": ServerFailed,
    "25-error-context": ContextTooLong,
}


@pytest.mark.parametrize("name", names("openai-chat", errors=True))
def test_errors_are_sorted(name: str) -> None:
    case = load("openai-chat", name)
    error = OpenAICodec("gpt-5.4").parse_error(case.status, case.headers, case.json)
    expected = case.expected["error"]
    assert type(error) is ERRORS[name]
    assert (error.status, error.code, error.request_id) == (
        expected["status"],
        expected["code"],
        expected["request_id"],
    )
    assert (error.provider, error.model) == ("openai", "gpt-5.4")
    assert error.retryable is (name in ("22-error-429-rate", "24-error-500"))
    assert error.body["error"]["type"] == expected["type"]
    if expected["param"]:
        assert repr(expected["param"]) in error.message


def test_a_message_is_encoded_once_a_dialect() -> None:
    codec, message = OpenAICodec("gpt-5.4"), UserMessage("hi")
    codec.build_request(ChatCall(messages=(message,)))
    (key,) = message.wire
    message.wire[key] = b'{"role":"user","content":"cached"}'
    assert body_of(ChatCall(messages=(message,)))["messages"] == [{"role": "user", "content": "cached"}]
    other = OpenAICodec("m", profile=replace(OPENAI, text_parts=False))
    assert sent(message, codec=other) == [{"role": "user", "content": "hi"}]
    assert len(message.wire) == 2


def test_a_tool_is_encoded_once() -> None:
    spec = replace(ADD)
    codec = OpenAICodec("gpt-5.4")
    codec.build_request(ChatCall(messages=ASK, tools=(spec,)))
    (key,) = spec.encoded
    spec.encoded[key] = b'"cached"'
    assert body_of(ChatCall(messages=ASK, tools=(spec,)))["tools"] == ["cached"]


def test_a_request_changes_nothing() -> None:
    parameters = {"temperature": 0, "extra_body": {"x": [1]}}
    call = ChatCall(messages=ASK, parameters=parameters, tools=(ADD,))
    first = OpenAICodec("gpt-5.4").build_request(call)
    assert OpenAICodec("gpt-5.4").build_request(call) == first
    assert parameters == {"temperature": 0, "extra_body": {"x": [1]}}


def test_lone_surrogates_never_break_a_request() -> None:
    broken = "a\ud800b"
    call = ToolCall(id="c1", name="add", arguments='{"a": "\ud800"}')
    tool = ToolSpec(name="t", description=broken, parameters={"type": "object", "properties": {"x": {"const": broken}}})
    messages = (
        SystemMessage(broken),
        UserMessage((TextPart(broken),)),
        AssistantMessage(broken, (call,)),
        ToolMessage(broken, "c1"),
    )
    body = body_of(ChatCall(messages=messages, tools=(tool,), parameters={"user": broken, "stop": [broken]}))
    assert body["messages"][0]["content"] == body["user"] == body["stop"][0] == "a\ufffdb"
    assert sent(UserMessage("\ud83d\ude00"))[0]["content"] == "😀"


def test_images_and_files() -> None:
    parts = (
        TextPart("Look."),
        ImagePart(url="https://example.com/a.png", detail="high"),
        ImagePart(data="QUJD", media_type="image/webp"),
        FilePart(file_id="file-1"),
        FilePart(data="QUJD", name="a.pdf"),
    )
    assert sent(UserMessage(parts))[0]["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,QUJD"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
    ]
    with pytest.raises(MessageError, match="a file by URL"):
        sent(UserMessage((FilePart(url="https://example.com/a.pdf"),)))
    blind = OpenAICodec("m", profile=replace(OPENAI, features=Features(images=False), files=False))
    with pytest.raises(MessageError, match="openai cannot express an image"):
        sent(UserMessage((parts[1],)), codec=blind)
    with pytest.raises(MessageError, match="cannot express a file"):
        sent(UserMessage((parts[3],)), codec=blind)


def test_user_names_are_sent_if_the_server_accepts_them() -> None:
    assert sent(UserMessage("hi", name="ann")) == [{"role": "user", "content": "hi", "name": "ann"}]
    nameless = OpenAICodec("m", profile=replace(OPENAI, user_name=False))
    assert sent(UserMessage("hi", name="ann"), codec=nameless) == [{"role": "user", "content": "hi"}]


def test_lists_of_text_are_flattened_where_only_text_is_taken() -> None:
    message = UserMessage((TextPart("a"), TextPart("b")))
    assert sent(message)[0]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert sent(message, codec=OpenAICodec("m", profile=replace(OPENAI, text_parts=False)))[0]["content"] == "a\nb"


def test_system_messages_are_merged_where_one_is_allowed() -> None:
    messages = (SystemMessage("a"), UserMessage("hi"), SystemMessage("b"))
    assert [m["role"] for m in sent(*messages)] == ["system", "user", "system"]
    merging = OpenAICodec("m", profile=replace(OPENAI, merge_system=True))
    assert sent(*messages, codec=merging) == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "hi"},
    ]
    assert sent(SystemMessage("a"), UserMessage("hi"), codec=merging)[0]["content"] == "a"


def test_an_assistant_message_without_text() -> None:
    call = ToolCall(id="c1", name="add", arguments="{}")
    shown = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    message = AssistantMessage("", (call,))
    assert sent(message)[0] == {"role": "assistant", "content": None, "tool_calls": [shown]}
    for policy, expected in (("text", {"content": ""}), ("omit", {})):
        codec = OpenAICodec("m", profile=replace(OPENAI, empty_content=policy))
        assert sent(message, codec=codec)[0] == {"role": "assistant", **expected, "tool_calls": [shown]}
    assert sent(AssistantMessage("")) == [{"role": "assistant", "content": ""}]


def test_a_refusal_is_sent_back() -> None:
    message = AssistantMessage("I can't.", refusal="I can't.")
    assert sent(message) == [{"role": "assistant", "content": None, "refusal": "I can't."}]
    other = OpenAICodec("m", profile=replace(OPENAI, empty_content="text"))
    assert sent(message, codec=other) == [{"role": "assistant", "content": "I can't."}]


def test_broken_arguments_are_sent_back_unless_the_server_validates_them() -> None:
    broken = AssistantMessage("", (ToolCall(id="c1", name="add", arguments='{"a": ', problem="cut"),))
    assert sent(broken)[0]["tool_calls"][0]["function"]["arguments"] == '{"a": '
    strict = OpenAICodec("m", profile=replace(OPENAI, arguments_must_be_json=True))
    assert sent(broken, codec=strict)[0]["tool_calls"][0]["function"]["arguments"] == "{}"
    spaced = AssistantMessage("", (ToolCall(id="c1", name="add", arguments='{ "a":  1}'),))
    assert sent(spaced, codec=strict)[0]["tool_calls"][0]["function"]["arguments"] == '{ "a":  1}'


def test_ids_of_other_providers_are_derived_the_same_for_call_and_result() -> None:
    long = "x" * 60
    messages = (AssistantMessage("", (ToolCall(id=long, name="add"),)), ToolMessage("3", long))
    call, result = sent(*messages)
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) <= 40
    short = OpenAICodec("m", profile=replace(OPENAI, call_ids="alnum9"))
    call, result = sent(*messages, codec=short)
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9
    assert result["tool_call_id"].isalnum()
    own = (AssistantMessage("", (ToolCall(id="D681PevKs", name="add"),)), ToolMessage("3", "D681PevKs"))
    assert sent(*own, codec=short)[1]["tool_call_id"] == "D681PevKs"


def test_histories_out_of_order_are_repaired() -> None:
    calls = (ToolCall(id="c1", name="add"), ToolCall(id="c1", name="say 你好"))
    sent_messages = sent(UserMessage("hi"), AssistantMessage("", calls), ToolMessage("3", "c1"), UserMessage("and?"))
    assert sent_messages[1]["tool_calls"][1] == {
        "id": "c1_2",
        "type": "function",
        "function": {"name": "say___", "arguments": "{}"},
    }
    assert sent_messages[2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c1_2", "content": "No result: this call was not run."},
        {"role": "user", "content": "and?"},
    ]


def test_details_of_other_providers_are_not_sent() -> None:
    message = AssistantMessage("hi", reasoning="hm", details={"anthropic": {"thinking": [1]}})
    assert sent(message) == [{"role": "assistant", "content": "hi"}]


def test_parallel_calls_become_pairs_in_the_legacy_form() -> None:
    calls = (ToolCall(id="c1", name="add", arguments='{"a":1}'), ToolCall(id="c2", name="sub"))
    messages = (AssistantMessage("Both.", calls), ToolMessage("1", "c1"), ToolMessage("2", "c2"))
    assert sent(*messages, codec=OpenAICodec("gpt-4", legacy_functions=True)) == [
        {"role": "assistant", "content": "Both.", "function_call": {"name": "add", "arguments": '{"a":1}'}},
        {"role": "function", "name": "add", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "sub", "arguments": "{}"}},
        {"role": "function", "name": "sub", "content": "2"},
    ]


def test_tool_choice() -> None:
    def chosen(choice: Any, *tools: ToolSpec, legacy: bool = False) -> dict[str, Any]:
        codec = OpenAICodec("m", legacy_functions=legacy)
        body = body_of(ChatCall(messages=ASK, tools=tools, tool_choice=choice), codec)
        return {name: body[name] for name in ("tool_choice", "function_call") if name in body}

    assert chosen("auto", ADD) == {}
    assert chosen("none", ADD) == {"tool_choice": "none"}
    assert chosen("required", ADD) == {"tool_choice": "required"}
    assert chosen(NamedTool("add"), ADD) == {"tool_choice": {"type": "function", "function": {"name": "add"}}}
    assert chosen("none", ADD, legacy=True) == {"function_call": "none"}
    assert chosen(NamedTool("add"), ADD, legacy=True) == {"function_call": {"name": "add"}}
    assert chosen("required", ADD, legacy=True) == {"function_call": {"name": "add"}}
    assert chosen("none") == {}
    with pytest.raises(ParameterError, match="no tool_choice='required'"):
        chosen("required", ADD, replace(ADD, name="sub"), legacy=True)
    with pytest.raises(ParameterError, match="which are"):
        chosen(NamedTool("sub"), ADD)
    with pytest.raises(ParameterError, match="which are"):
        chosen("required")


def test_a_tool_choice_that_the_server_does_not_support_is_refused() -> None:
    only_auto = OpenAICodec("m", profile=replace(OPENAI, features=Features(tool_choice=frozenset({"auto"}))))
    assert "tools" not in body_of(ChatCall(messages=ASK, tools=(ADD,), tool_choice="none"), only_auto)
    with pytest.raises(ParameterError, match="no tool_choice="):
        body_of(ChatCall(messages=ASK, tools=(ADD,), tool_choice="required"), only_auto)
    named = OpenAICodec("m", profile=replace(OPENAI, features=Features(tool_choice=frozenset({"auto", "named"}))))
    body = body_of(ChatCall(messages=ASK, tools=(ADD,), tool_choice="required"), named)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}


def test_strict_tools() -> None:
    function = body_of(ChatCall(messages=ASK, tools=(replace(ADD, strict=True),)))["tools"][0]["function"]
    assert function["strict"] is True
    assert function["parameters"]["required"] == ["a", "b"]
    assert function["parameters"]["additionalProperties"] is False
    assert "strict" not in body_of(ChatCall(messages=ASK, tools=(ADD,)))["tools"][0]["function"]
    free = ToolSpec(name="f", parameters={"type": "object", "properties": {"x": {}}}, strict=True)
    with pytest.raises(ParameterError, match=r"^f: parameter 'x': strict mode cannot describe Any"):
        body_of(ChatCall(messages=ASK, tools=(free,)))
    lax = OpenAICodec("m", profile=replace(OPENAI, strict=False))
    function = body_of(ChatCall(messages=ASK, tools=(replace(ADD, strict=True),)), lax)["tools"][0]["function"]
    assert function == {"name": "add", "description": "Add.", "parameters": ADD.parameters}


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    def asked(strict: bool | None, schema: dict[str, Any] = schema, codec: OpenAICodec | None = None) -> Any:
        wanted = OutputSchema(name="Out", schema=schema, strict=strict)
        return body_of(ChatCall(messages=ASK, output_schema=wanted), codec)["response_format"]

    assert asked(None)["json_schema"]["strict"] is True
    assert asked(None)["json_schema"]["schema"]["additionalProperties"] is False
    assert asked(False) == {"type": "json_schema", "json_schema": {"name": "Out", "schema": schema}}
    free: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert asked(None, free) == {"type": "json_schema", "json_schema": {"name": "Out", "schema": free}}
    with pytest.raises(ParameterError, match="cannot be strict"):
        asked(True, free)
    loose = OpenAICodec("m", profile=replace(OPENAI, features=Features(json_schema="object")))
    assert asked(None, codec=loose) == {"type": "json_object"}
    without = OpenAICodec("m", profile=replace(OPENAI, features=Features(json_schema="none")))
    with pytest.raises(ParameterError, match="no structured output"):
        asked(None, codec=without)


def test_models_of_other_vendors_at_another_address_get_a_conservative_body() -> None:
    history = (*ASK, AssistantMessage("", (ToolCall(id="c1", name="add"),)), ToolMessage("3", "c1"))
    call = ChatCall(messages=history, tools=(replace(ADD, strict=True),), parameters={"max_tokens": 5, "top_k": 3})
    body = body_of(call, OpenAICodec("my-model", base_url="http://localhost:8000/v1"))
    assert (body["max_tokens"], body["top_k"]) == (5, 3)
    assert body["messages"][1]["content"] == ""
    assert "strict" not in body["tools"][0]["function"]
    proxied = OpenAICodec("gpt-5.4", base_url="https://proxy.example/v1")
    body = body_of(ChatCall(messages=history, parameters={"max_tokens": 5}), proxied)
    assert (body["max_completion_tokens"], body["messages"][1]["content"]) == (5, None)
    assert OpenAICodec("my-model").profile is OPENAI
    assert OpenAICodec("gpt-oss-20b", base_url="http://localhost/v1").model_id == "openai/gpt-oss-20b"


def test_features_of_the_legacy_form() -> None:
    features = OpenAICodec("gpt-4", legacy_functions=True).features
    assert not features.parallel_calls
    assert features.tool_choice == {"auto", "none", "named"}


def test_parameters_and_their_refusals() -> None:
    def given(model: str = "gpt-5.4", **parameters: Any) -> dict[str, Any]:
        return body_of(ChatCall(messages=ASK, parameters=parameters), OpenAICodec(model))

    assert given(max_tokens=5)["max_completion_tokens"] == 5
    assert given(temperature=0)["temperature"] == 0
    assert given(temperature=1, reasoning_effort="none")["reasoning_effort"] == "none"
    with pytest.raises(ParameterError, match="no parameter 'top_k'"):
        given(top_k=3)
    assert given(extra_body={"top_k": 3, "model": "other"}) == {
        "model": "other",
        "messages": [{"role": "user", "content": "hi"}],
        "top_k": 3,
    }
    with pytest.raises(ParameterError, match="at most 4 stop sequences"):
        given(stop=list("abcde"))
    with pytest.raises(ParameterError, match="o3-mini does not take temperature"):
        given("o3-mini", temperature=0)
    with pytest.raises(ParameterError, match="while it reasons"):
        given(temperature=1, reasoning_effort="low")
    freed = OpenAICodec("o3-mini", model_rules=())
    assert body_of(ChatCall(messages=ASK, parameters={"temperature": 0}), freed)["temperature"] == 0


def test_extra_body_replaces_whole_members() -> None:
    body = body_of(ChatCall(messages=ASK, tools=(ADD,), parameters={"extra_body": {"tools": [1], "messages": []}}))
    assert body == {"model": "gpt-5.4", "tools": [1], "messages": []}


def test_parallel_tool_calls_needs_tools() -> None:
    call = ChatCall(messages=ASK, parameters={"parallel_tool_calls": False})
    assert "parallel_tool_calls" not in body_of(call)
    assert body_of(replace(call, tools=(ADD,)))["parallel_tool_calls"] is False


def test_usage_in_streams_is_requested() -> None:
    call = ChatCall(messages=ASK, stream=True)
    assert body_of(call)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body_of(call, OpenAICodec("m", stream_usage=False))
    assert "stream_options" not in body_of(replace(call, stream=False))


def test_headers_and_urls() -> None:
    codec = OpenAICodec("m", base_url="http://localhost:8000/v1/", headers={"openai-project": "p"})
    request = codec.build_request(ChatCall(messages=ASK, parameters={"extra_headers": {"x-a": "b"}}))
    assert request.url == "http://localhost:8000/v1/chat/completions"
    assert request.headers["openai-project"] == "p"
    assert request.headers["x-a"] == "b"
    assert "x-a" not in codec.build_request(ChatCall(messages=ASK)).headers
    assert OpenAICodec("m", base_url="http://h/v1/chat/completions").url == "http://h/v1/chat/completions"


def test_the_official_sdk_sends_the_same_body_and_reads_the_same_reply() -> None:
    from openai import OpenAI  # a test extra: heavy, and only this test needs it

    conversation: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief, 你好 \u2028."},
        {"role": "user", "content": [{"type": "text", "text": "2+3 and 4-1?"}], "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_a", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}},
                {"id": "call_b", "type": "function", "function": {"name": "sub", "arguments": '{"a": '}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "5"},
        {"role": "tool", "tool_call_id": "call_b", "content": "error: broken JSON"},
    ]
    options: dict[str, Any] = {
        "max_completion_tokens": 50,
        "temperature": 0.5,
        "stop": ["END"],
        "parallel_tool_calls": True,
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "description": "Add.", "parameters": dict(ADD.parameters)},
            }
        ],
        "stream_options": {"include_usage": True},
        "stream": True,
    }
    case = load("openai-chat", "07-stream-tool-calls")
    with (
        LoopbackServer(answer(case.content, headers={"content-type": "text/event-stream"})) as server,
        OpenAI(api_key="sk-test-0000", base_url=server.url + "/v1", max_retries=0) as client,
    ):
        calls: dict[int, list[str]] = {}
        with client.chat.completions.create(model="gpt-5.4", messages=conversation, **options) as chunks:  # type: ignore[call-overload]
            for chunk in chunks:
                for choice in chunk.choices:
                    for call in choice.delta.tool_calls or ():
                        calls.setdefault(call.index, []).append(call.function.arguments or "")
        (request,) = server.requests
    ours = OpenAICodec("gpt-5.4").build_request(call_of({"messages": conversation, **options}))
    assert loads(ours.content) == request.json
    assert request.path == "/v1/chat/completions"
    reply = read_stream(OpenAICodec("gpt-5.4"), case.content)
    assert [call.arguments for call in reply.tool_calls] == ["".join(pieces) for pieces in calls.values()]
