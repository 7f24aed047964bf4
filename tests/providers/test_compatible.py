"""The table of OpenAI-shaped vendors: the rules of each dialect, and recordings where there are some."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lmagent.core.events import TextDelta
from lmagent.core.json_text import loads
from lmagent.core.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    MessageError,
    NotFound,
    Overloaded,
    ParameterError,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.base import ChatCall, NamedTool
from lmagent.providers.openai import vendor_profiles as compatible
from lmagent.providers.openai.chat import AZURE, OPENAI, OpenAICodec, Profile
from lmagent.providers.openai.vendor_profiles import (
    BAICHUAN,
    BAILIAN,
    DEEPSEEK,
    GENERIC,
    GROQ,
    HUNYUAN,
    LLAMA_CPP,
    LM_STUDIO,
    MINIMAX,
    MINIMAX_V2,
    MISTRAL,
    MOONSHOT,
    OLLAMA,
    OPENROUTER,
    PROFILES,
    QWEN,
    VLLM,
    WENXIN,
    XAI,
    ZHIPU,
    profile_of,
)
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from tests.providers import rules_openai, wire, wire_cn
from tests.providers.histories import HISTORIES
from tests.providers.wire_cn import ASK as WEATHER_ASKED
from tests.providers.wire_cn import CHAT, GET_WEATHER, RIVER, SYSTEM, TOLD, chat

ALL = [*PROFILES.values(), BAILIAN, BAICHUAN, HUNYUAN, MINIMAX, MINIMAX_V2, WENXIN, ZHIPU]
ASK = (UserMessage("hi"),)
ADD = ToolSpec(name="add", description="Add.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
CALL = ToolCall(id="call_1_0", name="add", arguments='{"a":1}')
TURN: tuple[Message, ...] = (*ASK, AssistantMessage("", (CALL,)), ToolMessage("2", "call_1_0", "add"))


def codec(profile: Profile, model: str = "m", **options: Any) -> OpenAICodec:
    return OpenAICodec(model, profile=profile, **options)


def body_of(
    profile: Profile, *messages: Message, model: str = "m", tools: tuple[ToolSpec, ...] = (), **fields: Any
) -> dict[str, Any]:
    call = ChatCall(messages=messages or ASK, tools=tools, **fields)
    return loads(codec(profile, model).build_request(call).content)


def given(profile: Profile, model: str = "m", **parameters: Any) -> dict[str, Any]:
    body = body_of(profile, model=model, parameters=parameters)
    return {name: value for name, value in body.items() if name not in ("model", "messages")}


# The table


def test_every_profile_is_sound() -> None:
    for profile in ALL:
        assert profile.provider.replace("-", "").isalnum(), profile
        assert profile.base_url.startswith("http") or profile is GENERIC
        assert not profile.base_url.endswith("/")
        assert profile.key_env
        assert profile.needs_key is not profile.base_url.startswith("http://localhost") or profile is GENERIC
        assert body_of(profile) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        assert given(profile, max_tokens=5)["max_tokens"] == 5


def test_every_profile_takes_a_turn_with_a_tool() -> None:
    for profile in ALL:
        body = body_of(profile, *TURN, tools=(ADD,))
        assistant, result = body["messages"][1:]
        assert assistant["tool_calls"][0]["id"] == result["tool_call_id"]
        assert assistant["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
        assert body["tools"][0]["function"]["name"] == "add"
        assert "tool_choice" not in body


VENDORS = (
    "compatible deepseek groq llamacpp lmstudio mistral moonshot ollama openrouter qwen siliconflow stepfun together "
    "vllm volcengine xai yi"
)


def test_the_names_of_the_table() -> None:
    assert " ".join(sorted(PROFILES)) == VENDORS
    assert profile_of("qwen") is QWEN
    with pytest.raises(ConfigurationError, match="known are compatible, deepseek"):
        profile_of("acme")
    assert all(hasattr(compatible, name) for name in compatible.__all__)
    assert compatible.__all__ == sorted(compatible.__all__)


def test_the_profile_sets_the_provider_name() -> None:
    assert codec(QWEN, "qwen-plus").model_id == "qwen/qwen-plus"
    error = codec(XAI).parse_error(429, {}, None)
    assert (type(error), error.provider) == (RateLimited, "xai")
    assert OpenAICodec("m").provider == "openai"


def test_a_custom_profile() -> None:
    acme = replace(GENERIC, provider="acme", base_url="https://api.acme.example/v1", max_stop=1)
    assert codec(acme).url == "https://api.acme.example/v1/chat/completions"
    with pytest.raises(ParameterError, match="acme takes at most 1 stop"):
        given(acme, stop=["a", "b"])


HISTORY_PROFILES = {f"{profile.provider}{profile.path}": profile for profile in (OPENAI, AZURE, *ALL)}


@pytest.mark.parametrize("profile", HISTORY_PROFILES.values(), ids=HISTORY_PROFILES)
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_any_history_can_be_sent_to_any_server(history: tuple[Message, ...], profile: Profile) -> None:
    rules_openai.check(body_of(profile, *history, tools=(ADD,)), profile)
    legacy = codec(profile, legacy_functions=True).build_request(ChatCall(messages=history, tools=(ADD,)))
    rules_openai.check(loads(legacy.content), profile)


def test_a_history_in_order_is_sent_unchanged() -> None:
    messages = [body_of(OPENAI, *history)["messages"] for history in HISTORIES.values()]
    assert [len(sent) - len(history) for sent, history in zip(messages, HISTORIES.values(), strict=True)] == [
        {"unanswered call": 1, "call at the end": 1}.get(name, 0) for name in HISTORIES
    ]


# Request side, rules 16 to 20


def test_the_generic_body_has_only_the_given_parameters() -> None:
    assert body_of(GENERIC, stream=True) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
    assert given(GENERIC, max_tokens=3, temperature=0) == {"max_tokens": 3, "temperature": 0}


def test_null_is_never_sent_to_servers_that_refuse_it() -> None:
    for profile in ALL:
        if profile is MINIMAX_V2:
            continue
        assert b"null" not in codec(profile).build_request(ChatCall(messages=TURN, tools=(ADD,))).content
        assert body_of(profile, *TURN)["messages"][1]["content"] == ""


def test_names_of_users_and_tools() -> None:
    messages = (UserMessage("hi", name="ann"), *TURN[1:])
    for profile in (XAI, MISTRAL):
        assert "name" not in body_of(profile, *messages)["messages"][0]
    assert body_of(DEEPSEEK, *messages)["messages"][0]["name"] == "ann"
    assert body_of(MISTRAL, *messages)["messages"][2]["name"] == "add"
    assert "name" not in body_of(DEEPSEEK, *messages)["messages"][2]


def test_images_are_refused_where_there_are_none() -> None:
    image = UserMessage((ImagePart(url="https://example.com/a.png"),))
    for profile in (DEEPSEEK, BAICHUAN):
        with pytest.raises(MessageError, match=f"{profile.provider} cannot express an image"):
            body_of(profile, image)


def test_strict_is_dropped() -> None:
    tool = replace(ADD, strict=True)
    for profile in (XAI, MISTRAL, OLLAMA, MOONSHOT, DEEPSEEK):
        assert "strict" not in json.dumps(body_of(profile, tools=(tool,)))
    assert body_of(OPENROUTER, tools=(tool,))["tools"][0]["function"]["strict"] is True


# Parameters


def test_ranges_and_nearest_values() -> None:
    assert given(MINIMAX, temperature=0, top_p=0) == {"temperature": 0.01, "top_p": 0.01}
    assert given(QWEN, temperature=2) == {"temperature": 1.99}
    assert given(ZHIPU, temperature=0) == {"temperature": 0.01, "do_sample": False}
    assert given(ZHIPU, temperature=1, top_p=1) == {"temperature": 0.99, "top_p": 0.99}
    assert given(ZHIPU, user="u-123456") == {"user_id": "u-123456"}
    for profile in (MOONSHOT, MINIMAX, ZHIPU, BAICHUAN):
        with pytest.raises(ParameterError, match=rf"{profile.provider}: temperature must be from 0 to 1, got 1\.5"):
            given(profile, temperature=1.5)


def test_parameters_of_a_vendor() -> None:
    assert given(MISTRAL, seed=7, safe_prompt=True) == {"random_seed": 7, "safe_prompt": True}
    assert given(QWEN, enable_thinking=False) == {"enable_thinking": False}
    with pytest.raises(ParameterError, match="mistral has no parameter 'user'"):
        given(MISTRAL, user="u")
    with pytest.raises(ParameterError, match="extra_body"):
        given(BAICHUAN, seed=1)
    assert given(BAICHUAN, extra_body={"seed": 1}) == {"seed": 1}


def test_model_rules_are_data() -> None:
    with pytest.raises(ParameterError, match="xai/grok-4 does not take stop"):
        given(XAI, "grok-4", stop=["a"])
    assert given(XAI, "grok-3", stop=["a"]) == {"stop": ["a"]}
    with pytest.raises(ParameterError, match="temperature can only be 1"):
        given(MOONSHOT, "kimi-k2.6", temperature=0.5)
    call = ChatCall(messages=ASK, parameters={"temperature": 0.6})
    freed = codec(MOONSHOT, "kimi-k2.6", model_rules=())
    assert loads(freed.build_request(call).content)["temperature"] == 0.6


# Tool choice


def test_forced_choices() -> None:
    two = (ADD, replace(ADD, name="sub"))
    assert body_of(MISTRAL, tools=two, tool_choice="required")["tool_choice"] == "any"
    named = {"type": "function", "function": {"name": "add"}}
    assert body_of(QWEN, tools=(ADD,), tool_choice="required")["tool_choice"] == named
    for profile, choice in (
        (QWEN, "required"),
        (MOONSHOT, "required"),
        (MOONSHOT, NamedTool("add")),
        (ZHIPU, "required"),
    ):
        with pytest.raises(ParameterError, match=f"{profile.provider} has no tool_choice="):
            body_of(profile, tools=two, tool_choice=choice)
    for profile in (ZHIPU, OLLAMA, BAICHUAN):
        assert "tools" not in body_of(profile, tools=two, tool_choice="none")
    assert body_of(MOONSHOT, tools=two, tool_choice="none")["tool_choice"] == "none"


def test_deepseek_stops_thinking_for_a_forced_choice() -> None:
    body = body_of(DEEPSEEK, tools=(ADD,), tool_choice="required")
    assert (body["tool_choice"], body["thinking"]) == ("required", {"type": "disabled"})
    assert "thinking" not in body_of(DEEPSEEK, tools=(ADD,))
    assert "thinking" not in body_of(DEEPSEEK, tools=(ADD,), tool_choice="none")
    with pytest.raises(ParameterError, match="only with thinking="):
        body_of(DEEPSEEK, tools=(ADD,), tool_choice=NamedTool("add"), parameters={"thinking": {"type": "enabled"}})


def test_structured_output_by_level() -> None:
    wanted = OutputSchema(
        name="Out", schema={"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    )
    assert body_of(DEEPSEEK, output_schema=wanted)["response_format"] == {"type": "json_object"}
    body = body_of(MISTRAL, output_schema=wanted)["response_format"]["json_schema"]
    assert body == {"name": "Out", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    assert body_of(OLLAMA, output_schema=wanted)["response_format"]["json_schema"]["schema"] == wanted.schema
    with pytest.raises(ParameterError, match="hunyuan has no structured output"):
        body_of(HUNYUAN, output_schema=wanted)


def test_system_text_describes_the_schema_with_tools_if_a_schema_would_forbid_calls() -> None:
    wanted = OutputSchema(name="Out", schema={"type": "object", "properties": {"a": {"type": "string"}}})
    messages = (SystemMessage("be brief"), *ASK)
    for profile in (OLLAMA, VLLM, LLAMA_CPP, LM_STUDIO):
        body = body_of(profile, *messages, output_schema=wanted, tools=(ADD,))
        assert "response_format" not in body
        said = "\n".join(item["content"] for item in body["messages"] if item["role"] == "system")
        assert '"properties":{"a":{"type":"string"}}' in said
        assert "be brief" in said
        assert "response_format" in body_of(profile, *messages, output_schema=wanted)
    assert "response_format" in body_of(MISTRAL, *messages, output_schema=wanted, tools=(ADD,))


# Reasoning that travels back


def thinking(profile: Profile, message: dict[str, Any]) -> AssistantMessage:
    return codec(profile).parse_reply({"choices": [{"message": message, "finish_reason": "stop"}]}).message


WIRE_CALL = {"id": "call_1_0", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def test_deepseek_gets_its_reasoning_back_once_tools_are_about() -> None:
    said = thinking(DEEPSEEK, {"content": "hello", "reasoning_content": "hm"})
    foreign = AssistantMessage("hey", reasoning="theirs", details={"anthropic": {}})
    plain = AssistantMessage("ho")
    history = (*ASK, said, *ASK, foreign, *ASK, plain, *ASK)

    def reasons(*messages: Message, **fields: Any) -> list[Any]:
        found = body_of(DEEPSEEK, *messages, **fields)["messages"]
        return [item.get("reasoning_content") for item in found if item["role"] == "assistant"]

    assert reasons(*history) == [None, None, None]
    assert reasons(*history, tools=(ADD,)) == ["hm", " ", " "]
    assert reasons(*TURN) == [" "]
    assert reasons(*history, tools=(ADD,), parameters={"thinking": {"type": "disabled"}}) == [None, None, None]


def test_reasoning_of_a_stored_history_is_sent_back() -> None:
    message = AssistantMessage("", (CALL,), reasoning="stored")
    assert body_of(DEEPSEEK, *ASK, message, TURN[2])["messages"][1]["reasoning_content"] == "stored"


def test_moonshot_and_zhipu_get_it_with_calls() -> None:
    for profile, lost in ((MOONSHOT, " "), (ZHIPU, None)):
        said = thinking(profile, {"content": "", "reasoning_content": "hm", "tool_calls": [WIRE_CALL]})
        answer = thinking(profile, {"content": "hello", "reasoning_content": "hm"})
        sent = body_of(profile, *ASK, said, TURN[2], answer, *ASK, *TURN[1:])["messages"]
        assert [m.get("reasoning_content") for m in sent if m["role"] == "assistant"] == ["hm", None, lost]


def test_openrouter_gets_its_details_back_unchanged() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x", "index": 0}]
    said = thinking(OPENROUTER, {"content": "", "reasoning_details": details, "tool_calls": [WIRE_CALL]})
    sent = body_of(OPENROUTER, *ASK, said, TURN[2])["messages"][1]
    assert sent["reasoning_details"] == details
    assert "reasoning_details" not in body_of(DEEPSEEK, *ASK, said, TURN[2])["messages"][1]


def test_minimax_gets_its_thinking_back_in_place() -> None:
    content = "<think>\nI need the tool.\n</think>\n\nLet me see."
    said = thinking(MINIMAX, {"content": content, "tool_calls": [WIRE_CALL]})
    assert (said.content, said.reasoning) == ("Let me see.", "I need the tool.")
    assert body_of(MINIMAX, *ASK, said, TURN[2])["messages"][1]["content"] == content
    assert body_of(QWEN, *ASK, said, TURN[2])["messages"][1]["content"] == "Let me see."


def test_other_servers_do_not_get_reasoning_back() -> None:
    for profile in (QWEN, XAI, VLLM, OLLAMA, GENERIC):
        said = thinking(profile, {"content": "", "reasoning_content": "hm", "tool_calls": [WIRE_CALL]})
        assert said.reasoning == "hm"
        assert said.details == {}
        assert "reasoning_content" not in body_of(profile, *ASK, said, TURN[2])["messages"][1]


# Mistral's order and ids, merging


def test_mistral_never_sees_a_user_right_after_a_tool() -> None:
    sent = body_of(MISTRAL, *TURN, *ASK)["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert [m["role"] for m in body_of(MISTRAL, *TURN)["messages"]] == ["user", "assistant", "tool"]
    assert len(sent[2]["tool_call_id"]) == 9


def test_servers_whose_templates_know_one_system_message() -> None:
    messages = (SystemMessage("a"), *ASK, SystemMessage("b"))
    assert [m["content"] for m in body_of(VLLM, *messages)["messages"]] == ["a\n\nb", "hi"]


def test_minimax_checks_arguments() -> None:
    broken = AssistantMessage("", (replace(CALL, arguments='{"a":'),))
    sent = body_of(MINIMAX, *ASK, broken, TURN[2])["messages"][1]
    assert sent["tool_calls"][0]["function"]["arguments"] == "{}"


# Errors by code


@pytest.mark.parametrize(
    ("profile", "status", "content", "kind", "code"),
    [
        (DEEPSEEK, 402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, QuotaExceeded, None),
        (
            GROQ,
            400,
            {"error": {"message": "x", "code": "tool_use_failed", "failed_generation": "<function=add"}},
            ServerFailed,
            "tool_use_failed",
        ),
        (QWEN, 429, {"error": {"code": "insufficient_quota", "message": "TPM"}}, RateLimited, "insufficient_quota"),
        (
            QWEN,
            429,
            {"error": {"code": "insufficient_quota", "message": "free quota used"}},
            QuotaExceeded,
            "insufficient_quota",
        ),
        (QWEN, 400, {"code": "Arrearage", "message": "x", "request_id": "q"}, QuotaExceeded, "Arrearage"),
        (QWEN, 400, {"code": "DataInspectionFailed", "message": "x"}, ContentFiltered, "DataInspectionFailed"),
        (
            QWEN,
            400,
            {"error": {"code": "invalid_parameter_error", "message": "Range of input length should be [1, 30720]"}},
            ContextTooLong,
            "invalid_parameter_error",
        ),
        (ZHIPU, 429, {"error": {"code": "1113", "message": "x"}}, QuotaExceeded, "1113"),
        (ZHIPU, 429, {"error": {"code": 1305, "message": "x"}}, Overloaded, "1305"),
        (ZHIPU, 400, {"error": {"code": "1301", "message": "x"}}, ContentFiltered, "1301"),
        (ZHIPU, 200, {"error": {"code": "1302", "message": "x"}}, RateLimited, "1302"),
        (MINIMAX, 200, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "x"}}, QuotaExceeded, "1008"),
        (MINIMAX, 200, {"base_resp": {"status_code": 1027, "status_msg": "x"}}, ContentFiltered, "1027"),
        (MINIMAX, 200, {"base_resp": {"status_code": 1013, "status_msg": "x"}}, ServerFailed, "1013"),
        (OPENROUTER, 200, {"error": {"code": 402, "message": "credits"}}, QuotaExceeded, "402"),
        (OPENROUTER, 200, {"error": {"code": 503, "message": "x", "metadata": {"raw": "y"}}}, Overloaded, "503"),
        (MOONSHOT, 429, {"error": {"type": "exceeded_current_quota_error", "message": "x"}}, QuotaExceeded, None),
        (MOONSHOT, 429, {"error": {"type": "engine_overloaded_error", "message": "x"}}, Overloaded, None),
        (
            WENXIN,
            400,
            {"error": {"code": "tokens_too_long", "message": "x", "type": "invalid_request_error"}},
            ContextTooLong,
            "tokens_too_long",
        ),
        (
            WENXIN,
            400,
            {"error": {"code": "image_url_unsafe", "message": "x", "type": "unsafe_request"}},
            ContentFiltered,
            "image_url_unsafe",
        ),
        (BAICHUAN, 429, {"error": {"message": "Insufficient account balance"}}, QuotaExceeded, None),
        (MISTRAL, 422, {"detail": [{"loc": ["body", "x"], "msg": "Extra inputs are not permitted"}]}, BadRequest, None),
        (MISTRAL, 401, {"object": "error", "message": "Unauthorized", "code": "1300"}, AuthenticationFailed, "1300"),
        (VLLM, 400, {"object": "error", "message": "context length is 5", "code": 400}, ContextTooLong, "400"),
        (VLLM, 404, {"error": {"message": "x", "type": "NotFoundError", "code": 404}}, NotFound, "404"),
        (XAI, 403, {"code": "permission-denied", "error": "No credits"}, PermissionDenied, "permission-denied"),
    ],
)
def test_error_codes(profile: Profile, status: int, content: Any, kind: type[ProviderError], code: str | None) -> None:
    error = codec(profile).parse_error(status, {}, content)
    assert type(error) is kind
    assert error.code == code
    assert error.provider == profile.provider


# Recordings: Mistral


@pytest.mark.parametrize("name", wire.names("mistral"))
def test_mistral_requests_equal_the_sdk(name: str) -> None:
    case = deepcopy(wire.load("mistral", name))
    for message in case.request["body"]["messages"]:  # the SDK echoes defaults and indexes of its own
        message.pop("prefix", None)
        for call in message.get("tool_calls") or ():
            call.pop("index", None)
    call = wire.call_of(case.body)
    request = codec(MISTRAL, case.body["model"]).build_request(call)
    assert request.url == case.base + case.request["path"]
    wire.assert_body(request, case)


@pytest.mark.parametrize("name", wire.names("mistral", streams=False))
def test_mistral_replies_equal_the_sdk(name: str) -> None:
    case = wire.load("mistral", name)
    reply = codec(MISTRAL).parse_reply(case.json)
    wire.assert_reply(reply, case)
    if name == "10-thinking-chunks":
        assert reply.message.reasoning == "think"


@pytest.mark.parametrize("name", wire.names("mistral", streams=True))
def test_mistral_streams_equal_the_sdk(name: str) -> None:
    case = wire.load("mistral", name)
    wire.assert_reply(wire.read_stream(codec(MISTRAL), case.content), case)
    wire.assert_cuts_do_not_matter(codec(MISTRAL), case.content)


# Recordings: the compatible endpoints of Chinese providers


@dataclass(frozen=True)
class Recorded:
    """Cases of one provider: their profile, and the members that the SDK adds."""

    profile: Profile
    platform: str
    numbers: tuple[str, ...]
    noise: tuple[str, ...] = ()


RECORDED = [
    Recorded(BAICHUAN, "baichuan", ("20", "21", "22", "23", "24")),
    Recorded(
        ZHIPU, "zhipu", ("30", "31", "32", "33", "34", "35", "36", "40", "41", "42"), ("response_format", "thinking")
    ),
    Recorded(HUNYUAN, "hunyuan", ("40", "41", "42", "43", "44")),
    Recorded(MINIMAX, "minimax", ("50", "51", "52", "53", "54")),
    Recorded(MINIMAX_V2, "minimax", ("30", "31", "32", "33", "34")),
    Recorded(WENXIN, "wenxin", ("30", "31", "32", "33", "34", "35"), ("extra_parameters",)),
    Recorded(BAILIAN, "bailian", ("20", "21", "22", "23", "24")),
]
CASES = [(item, name) for item in RECORDED for name in item.numbers]
IDS = [f"{item.platform}-{name}" for item, name in CASES]
ERRORS = [
    (BAICHUAN, "baichuan", "71"),
    (ZHIPU, "zhipu", "70"),
    (ZHIPU, "zhipu", "71"),
    (HUNYUAN, "hunyuan", "73"),
    (MINIMAX, "minimax", "70"),
    (MINIMAX, "minimax", "71"),
    (MINIMAX, "minimax", "72"),
    (WENXIN, "wenxin", "74"),
    (BAILIAN, "bailian", "72"),
]


def recorded(platform: str, number: str) -> wire_cn.Case:
    (name,) = [name for name in wire_cn.names(platform) if name.startswith(f"{number}-")]
    return wire_cn.load(platform, name)


def conversation(case: wire_cn.Case) -> ChatCall:
    """Return our call for the recorded conversation."""
    body = case.request["json"]
    kept = {"temperature", "top_p", "max_tokens", "do_sample", "meta", "enable_enhancement"}
    parameters = {name: value for name, value in body.items() if name in kept}
    stream = bool(body.get("stream"))
    fields: dict[str, Any] = {"stream": stream, "tools": (bool(body.get("tools")) and (GET_WEATHER,)) or ()}
    if "temperature-zero" in case.name:
        parameters = {"temperature": 0, "top_p": 1}
    messages: list[Message | tuple[Message, ...]] = [SYSTEM] if body["messages"][0]["role"] == "system" else []
    roles = [message["role"] for message in body["messages"]]
    if "tool" in roles:
        turn = TOLD
        content = body["messages"][roles.index("assistant")]["content"]
        if content:  # MiniMax's thought, as it was recorded
            thought = AssistantMessage("", TOLD[1].tool_calls, details={"minimax": {"think": content}})
            turn = (TOLD[0], thought, TOLD[2])
        messages.append(turn)
    elif body.get("tools"):
        messages.append(WEATHER_ASKED)
    elif "assistant" in roles:
        messages.append(CHAT)
    else:
        messages.append(RIVER)
    return chat(*messages, parameters=parameters, **fields)


@pytest.mark.parametrize(("item", "number"), CASES, ids=IDS)
def test_chinese_requests_equal_the_recordings(item: Recorded, number: str) -> None:
    case = recorded(item.platform, number)
    body = deepcopy(case.request["json"])
    ours = codec(item.profile, body["model"], stream_usage="stream_options" in body)
    request = ours.build_request(conversation(case))
    assert request.url == case.request["url"]
    expected = {name: value for name, value in body.items() if name not in item.noise}
    if expected.get("tool_choice") == "auto":
        del expected["tool_choice"]  # the default wherever there are tools
    if expected.get("stream") is False:
        del expected["stream"]
    sent = loads(request.content)
    for tools in (sent.get("tools", ()), expected.get("tools", ())):
        for tool in tools:
            schema = tool["function"]["parameters"]
            assert isinstance(schema, str) is item.profile.parameters_as_text
            tool["function"]["parameters"] = json.loads(schema) if isinstance(schema, str) else schema
    assert sent == expected


@pytest.mark.parametrize(("item", "number"), CASES, ids=IDS)
def test_chinese_replies_equal_the_recordings(item: Recorded, number: str) -> None:
    case = recorded(item.platform, number)
    ours = codec(item.profile, case.request["json"]["model"])
    if case.request["json"].get("stream"):
        reply, events = wire_cn.read_pieces(ours, [case.body])
        wire_cn.assert_reply(reply, case)
        if "deltas" in case.expect:
            assert [event.text for event in events if isinstance(event, TextDelta)] == case.expect["deltas"]
        wire.assert_cuts_do_not_matter(ours, case.body)
    else:
        assert ours.parse_error(case.status, {}, case.json) is None
        wire_cn.assert_reply(ours.parse_reply(case.json), case)


@pytest.mark.parametrize(("profile", "platform", "number"), ERRORS, ids=[f"{p}-{n}" for _, p, n in ERRORS])
def test_chinese_errors_equal_the_recordings(profile: Profile, platform: str, number: str) -> None:
    case = recorded(platform, number)
    wire_cn.assert_error(codec(profile).parse_error(case.status, {}, case.json), case)


def test_deltas_of_minimax_come_without_the_thought() -> None:
    case = recorded("minimax", "54")
    reply, _ = wire_cn.read_pieces(codec(MINIMAX), [case.body])
    assert "<think>" not in reply.reply
