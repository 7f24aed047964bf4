"""Any history is made valid for strict dialects, and their rules accept the bodies."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmagent.core.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.errors import MessageError
from lmagent.providers.anthropic import AnthropicCodec
from lmagent.providers.conversation import answered, arguments_object, called_names, fitting_ids, kept_items, settled
from lmagent.providers.fields import quoted, retry_after, seconds
from lmagent.providers.gemini import GeminiCodec
from lmagent.providers.openai.responses import ResponsesCodec
from tests.providers import rules_anthropic, rules_gemini, rules_responses
from tests.providers.histories import HISTORIES
from tests.providers.wire_intl import GET_TIME, GET_WEATHER, ask, call

PLAIN = re.compile(r"[a-z0-9_]+")

TEXTS = st.sampled_from(["", " ", "hi", "晴\n", "{", '{"a": 1}', "[1]", "\ud800"])
IDS = st.sampled_from(["", "a", "b", "functions.x:0", "工具", "y" * 90])
CALLS = st.builds(
    ToolCall, id=IDS, name=st.sampled_from(["get_weather", "get time", "", "n" * 80, "查"]), arguments=TEXTS
)
MESSAGES = st.one_of(
    st.builds(SystemMessage, TEXTS),
    st.builds(UserMessage, TEXTS),
    st.builds(AssistantMessage, TEXTS, st.lists(CALLS, max_size=3).map(tuple)),
    st.builds(ToolMessage, TEXTS, IDS, st.sampled_from(["", "get_weather"]), st.booleans()),
)
PLATFORMS: dict[str, tuple[Any, Any]] = {
    "anthropic": (AnthropicCodec("claude-sonnet-4-6"), rules_anthropic.check),
    "gemini": (GeminiCodec("gemini-3.1-pro"), rules_gemini.check),
    "openai-responses": (ResponsesCodec("gpt-5.4"), rules_responses.check),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(history=st.lists(MESSAGES, min_size=1, max_size=8), with_tools=st.booleans())
def test_every_history_gives_a_body_the_rules_accept(platform: str, history: list[Message], with_tools: bool):
    codec, check = PLATFORMS[platform]
    question = ask(*history, tools=(GET_WEATHER, GET_TIME) if with_tools else ())
    try:
        first = codec.build_request(question).content
    except MessageError:
        assert not any(m.content.strip() or getattr(m, "tool_calls", ()) for m in history)  # type: ignore[union-attr]
        return
    check(json.loads(first))
    assert codec.build_request(question).content == first, "bytes that were kept say something else"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(MESSAGES, max_size=8))
def test_the_check_for_a_valid_history_changes_nothing(history: list[Message]):
    quick = list(settled(history, PLAIN))
    assert quick == fitting_ids(answered(history), PLAIN)
    assert list(settled(quick, PLAIN)) == quick


def test_a_history_in_order_is_returned_unchanged():
    history = HISTORIES["one call"]
    assert settled(history, re.compile(r"\w+")) is history


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        (" \n", {}),
        ('{"a": [1]}', {"a": [1]}),
        ('{"a": ', {"_raw": '{"a": '}),
        ("[1]", {"_raw": "[1]"}),
        ("null", {"_raw": "null"}),
    ],
)
def test_arguments_become_an_object(text: str, value: Any):
    assert arguments_object(text) == value


def test_names_and_details():
    message = AssistantMessage(
        "",
        (call("1", "b", "{}"), call("2", "a", "{}"), call("3", "b", "{}")),
        details={"x": {"good": [{"a": 1}], "bad": [1], "odd": "text"}, "y": None},
    )
    assert called_names([UserMessage("hi"), message]) == ["b", "a"]
    assert kept_items(message, "x", "good") == [{"a": 1}]
    for provider, name in (("x", "bad"), ("x", "odd"), ("x", "none"), ("y", "good"), ("z", "good")):
        assert kept_items(message, provider, name) == []


WAITS = [("27s", 27.0), ("3.5s", 3.5), (" 2 ", 2.0), (0, 0.0)]
NO_WAITS = ["soon", None, True, "nan", -1, "1e999", {}]


@pytest.mark.parametrize(("value", "found"), [*WAITS, *((value, None) for value in NO_WAITS)])
def test_waits(value: Any, found: float | None):
    assert seconds(value) == found


def test_headers():
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after-ms": "x", "retry-after": "9"}) == 9.0
    assert retry_after({"retry-after": "Sun, 22 Nov 2026 12:00:00 GMT"}) is None


def test_quotes():
    assert quoted("a\x1b[31mb\n") == "a\\x1b[31mb"
    assert quoted("x" * 300) == "x" * 200 + "…"
    assert quoted("<!doctype html><p>key=sk-1") == "an HTML or XML page, not an answer of the API"
    assert quoted(None, "nothing") == quoted(" ", "nothing") == "nothing"
