"""The recipe for tiny models: which tool is chosen, what the model is asked, and what is not believed."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from lmagent import function
from lmagent.core.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.prompting.tiny import TinyPrompted, choose_tool, content_words, ungrounded
from lmagent.providers.base import ChatCall, Codec, NamedTool
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.tools.calculator import calculator


@function
def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the weather of a city.

    Args:
        city: Name of the city.
    """
    return city


@function
def send_message(recipient: str, count: int) -> str:
    """Send a message to someone."""
    return recipient


@function
def query(城市: str) -> str:
    """查询城市天气。"""
    return 城市


SPECS = (get_weather.spec, send_message.spec, calculator.spec)


@pytest.mark.parametrize(
    ("request_text", "name"),
    [
        ("What is the weather in Paris?", "get_weather"),
        ("Weather, please", "get_weather"),
        ("Send Bob a message", "send_message"),
        ("Calculate 17 * 23.", "calculator"),
        ("How much is 3+4?", "calculator"),
        ("Tell me a joke", None),
        ("", None),
        ("the of and", None),
    ],
)
def test_the_tool_is_chosen_by_the_words_it_shares(request_text: str, name: str | None):
    chosen = choose_tool(request_text, SPECS)
    assert (chosen.name if chosen else None) == name


def test_chinese_is_compared_by_pairs_of_characters():
    assert content_words("北京天气") == {"北京", "京天", "天气"}
    assert choose_tool("今天北京天气怎么样？", [query.spec, send_message.spec]) is query.spec


def _codec(**options: Any) -> TinyPrompted:
    return TinyPrompted(OpenAICodec("m", base_url="http://x/v1"), **options)


def _call(*messages: Any, **fields: Any) -> ChatCall:
    return ChatCall(messages=messages, tools=SPECS, **fields)


def test_request_becomes_a_short_prompt_for_the_arguments_of_one_tool():
    rendered = _codec().render(_call(SystemMessage("Long words."), UserMessage("Weather in Paris?")))
    system, question = rendered.messages
    assert system == SystemMessage("You extract function arguments from requests. Copy values from the request.")
    assert "Function: get_weather - Get the weather of a city." in question.text  # type: ignore[union-attr]
    assert "Request: Weather in Paris?" in question.text  # type: ignore[union-attr]
    assert rendered.tools == ()
    assert rendered.output_schema is not None
    assert rendered.output_schema.schema["properties"].keys() == {"city"}
    assert rendered.output_schema.schema["properties"]["city"]["maxLength"] == 80
    assert rendered.parameters["max_tokens"] == 128


def test_an_optional_parameter_is_asked_for_only_when_the_request_names_it():
    rendered = _codec().render(_call(UserMessage("Weather in Paris in fahrenheit?")))
    assert rendered.output_schema is not None
    assert rendered.output_schema.schema["properties"].keys() == {"city", "unit"}


def test_a_result_is_put_into_words():
    call = ToolCall(id="c", name="get_weather", arguments="{}")
    history = (UserMessage("Weather in Paris?"), AssistantMessage(tool_calls=(call,)), ToolMessage("sunny", "c"))
    rendered = _codec().render(_call(*history))
    assert rendered.output_schema is None
    assert "Result of the tool: sunny" in rendered.messages[-1].text  # type: ignore[union-attr]


def test_plain_conversation_has_no_earlier_calls():
    call = ToolCall(id="c", name="get_weather", arguments="{}")
    history = (
        UserMessage("Weather in Paris?"), AssistantMessage(tool_calls=(call,)), ToolMessage("sunny", "c"),
        AssistantMessage("Sunny."), UserMessage("Tell me a joke"),
    )  # fmt: skip
    assert [message.content for message in _codec().render(_call(*history)).messages] == [
        "Weather in Paris?",
        "Sunny.",
        "Tell me a joke",
    ]


def test_choices():
    joke = UserMessage("Tell me a joke")
    assert _codec().render(_call(joke)).output_schema is None
    assert _codec().render(_call(UserMessage("Weather?"), tool_choice="none")).output_schema is None
    assert _codec().render(_call(joke, tool_choice="required")).output_schema is not None
    named = _codec().render(_call(joke, tool_choice=NamedTool("send_message")))
    assert "send_message" in named.messages[-1].text  # type: ignore[union-attr]


def _bound(*messages: Any, grounded: bool = True, **fields: Any) -> Codec:
    return _codec(grounded=grounded).for_call(_call(*messages, **fields))


def _reply(codec: Codec, text: str, reason: str = "stop") -> Any:
    return codec.parse_reply({"choices": [{"message": {"content": text}, "finish_reason": reason}]})


def test_the_arguments_become_a_call():
    reply = _reply(_bound(UserMessage("Weather in Paris?")), '{ "city": "Paris" }')
    [call] = reply.tool_calls
    assert (call.name, json.loads(call.arguments), call.problem) == ("get_weather", {"city": "Paris"}, "")
    assert reply.finish_reason == "tool_calls"
    assert reply.reply == ""


def test_required_argument_without_evidence_is_rejected():
    codec = _bound(UserMessage("Send a message!"))
    reply = _reply(codec, '{"recipient": "Alice", "count": 3}')
    assert reply.tool_calls == ()
    assert reply.reply == "To use send_message I need: recipient, count."
    assert _reply(
        _bound(UserMessage("Send a message!"), grounded=False), '{"recipient": "Alice", "count": 3}'
    ).tool_calls


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ("send Bob 3 messages", []),
        ("send bob three messages", []),
        ("send 3 messages", ["recipient"]),
        ("send Bob messages", ["count"]),
        ("", ["recipient", "count"]),
    ],
)
def test_ungrounded_finds_values_that_are_not_in_the_conversation(said: str, missing: list[str]):
    assert ungrounded({"recipient": "Bob", "count": 3}, send_message.spec, said) == missing


def test_truncated_arguments_are_reported():
    [call] = _reply(_bound(UserMessage("Weather in Paris?")), '{"city": "Pa', "length").tool_calls
    assert call.problem == "The arguments were cut (length)."


def test_text_where_no_tool_fits_is_text():
    reply = _reply(_bound(UserMessage("Tell me a joke")), '{"city": "Paris"}')
    assert reply.tool_calls == ()
    assert reply.reply == '{"city": "Paris"}'


def test_a_stream_gives_the_same_however_it_is_cut():
    text = '{ "city": "Paris" }'
    for cut in range(len(text)):
        codec = _bound(UserMessage("Weather in Paris?"))
        state = codec.new_state()
        deltas: list[Any] = []
        for piece in (text[:cut], text[cut:]):
            chunk = {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            deltas.extend(codec.parse_event(state, json.dumps(chunk).encode()))
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        deltas.extend(codec.parse_event(state, json.dumps(end).encode()))
        deltas.extend(codec.parse_event(state, b"[DONE]"))
        deltas.extend(codec.finish(state))
        whole = [delta.whole for delta in deltas if getattr(delta, "whole", None)]
        assert [(call.name, call.arguments) for call in whole] == [("get_weather", text)]
