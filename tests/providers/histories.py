"""Neutral histories that every dialect must be able to send: of users, other providers and cancelled runs."""

from __future__ import annotations

from lmagent.core.messages import AssistantMessage, Message, SystemMessage, TextPart, ToolCall, ToolMessage, UserMessage

_ONE = ToolCall(id="call_1_0", name="get_weather", arguments='{"city":"上海"}')
_TWO = ToolCall(id="toolu_01A", name="add", arguments='{"x":1,"y":2}')
_BROKEN = ToolCall(id="call_9", name="add", arguments='{"x": 1, ')
_Q = UserMessage("今天天气怎么样？")

HISTORIES: dict[str, tuple[Message, ...]] = {
    "text": (UserMessage("hi"),),
    "system": (SystemMessage("be brief"), UserMessage("hi")),
    "system alone": (SystemMessage("be brief"),),
    "several systems": (SystemMessage("a"), UserMessage("hi"), SystemMessage("b"), AssistantMessage("yo"), _Q),
    "system last": (UserMessage("hi"), AssistantMessage("hello"), SystemMessage("now answer in French")),
    "users in a row": (UserMessage("a"), UserMessage("b"), UserMessage("c", name="Ann")),
    "assistants in a row": (UserMessage("a"), AssistantMessage("b"), AssistantMessage("c"), UserMessage("d")),
    "assistant first": (AssistantMessage("welcome"), UserMessage("hi")),
    "dangling answer": (UserMessage("hi"), AssistantMessage("hello")),
    "empty answer": (UserMessage("hi"), AssistantMessage(""), UserMessage("there?")),
    "blank user": (UserMessage("hi"), AssistantMessage("hello"), UserMessage("  ")),
    "text parts": (UserMessage((TextPart("a"), TextPart("b"))),),
    "one call": (_Q, AssistantMessage("", (_ONE,)), ToolMessage("晴", _ONE.id, "get_weather")),
    "call with text": (_Q, AssistantMessage("let me see", (_ONE,)), ToolMessage('{"t":20}', _ONE.id, "get_weather")),
    "two calls": (
        SystemMessage("be brief"),
        _Q,
        AssistantMessage("", (_ONE, _TWO)),
        ToolMessage("3", _TWO.id, "add"),
        ToolMessage("晴", _ONE.id, "get_weather"),
    ),
    "calls in sequence": (
        _Q,
        AssistantMessage("", (_ONE,)),
        ToolMessage("晴", _ONE.id),
        AssistantMessage("", (_TWO,)),
        ToolMessage("", _TWO.id),
        AssistantMessage("晴, 3"),
        UserMessage("thanks"),
    ),
    "failed result": (_Q, AssistantMessage("", (_ONE,)), ToolMessage("boom", _ONE.id, "get_weather", is_error=True)),
    "broken arguments": (_Q, AssistantMessage("", (_BROKEN,)), ToolMessage("not JSON", _BROKEN.id, is_error=True)),
    "strange name": (_Q, AssistantMessage("", (ToolCall(id="s", name="functions.get 天气"),)), ToolMessage("no", "s")),
    "no name": (_Q, AssistantMessage("", (ToolCall(id="n", name=""),)), ToolMessage("no", "n", is_error=True)),
    "empty arguments": (_Q, AssistantMessage("", (ToolCall(id="e", name="now"),)), ToolMessage("noon", "e")),
    "unanswered call": (_Q, AssistantMessage("", (_ONE, _TWO)), ToolMessage("晴", _ONE.id), UserMessage("and?")),
    "call at the end": (_Q, AssistantMessage("wait", (_ONE,))),
    "user after result": (_Q, AssistantMessage("", (_ONE,)), ToolMessage("晴", _ONE.id), UserMessage("and?")),
    "orphan result": (ToolMessage("1", "gone", "add"), UserMessage("hi")),
    "foreign details": (
        _Q,
        AssistantMessage(
            "",
            (_ONE,),
            reasoning="hm",
            details={"anthropic": {"thinking": [{"signature": "x"}]}, "wenxin": {"thoughts": "need the weather"}},
        ),
        ToolMessage("晴", _ONE.id, "get_weather"),
    ),
    "reasoning only": (UserMessage("hi"), AssistantMessage("", reasoning="hm"), UserMessage("well?")),
    "prompt mode": (
        SystemMessage("Tools: ..."),
        _Q,
        AssistantMessage('<tool_call>{"name": "add"}</tool_call>', (_TWO,), details={"prompted": {"format": "hermes"}}),
        ToolMessage("3", _TWO.id, "add"),
    ),
}
