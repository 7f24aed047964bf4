"""The rules for a request body (docs/providers/wenxin.md): `check` for Wenxin's classic API, `check_v2` for
Qianfan v2."""

from __future__ import annotations

import json
from typing import Any

from lmagent.providers.openai.vendor_profiles import WENXIN
from tests.providers import rules_openai

_KEYS = {
    "messages",
    "functions",
    "temperature",
    "top_p",
    "penalty_score",
    "system",
    "stop",
    "stream",
    "user_id",
    "disable_search",
    "enable_citation",
    "max_output_tokens",
    "response_format",
    "tool_choice",
}


def check(body: Any) -> None:
    """Raise `AssertionError` if the server would refuse the body."""
    assert set(body) <= _KEYS, set(body) - _KEYS
    messages = body["messages"]
    assert messages, "the list is empty"
    assert len(messages) % 2 == 1, "the length is even"
    for index, message in enumerate(messages):
        roles = ("assistant",) if index % 2 else ("user", "function")
        assert message["role"] in roles, f"message {index} is {message['role']!r}"
    assert messages[0]["role"] == "user"
    called = None
    for message in messages:
        if message["role"] == "function":
            assert set(message) == {"role", "name", "content"}
            assert message["name"] == called, "a result does not name the call before it"
            assert isinstance(json.loads(message["content"]), dict), "a result is no JSON object"
        elif message["role"] == "assistant" and "function_call" in message:
            call = message["function_call"]
            assert {"name", "arguments"} <= set(call) <= {"name", "arguments", "thoughts"}
            assert all(isinstance(value, str) for value in call.values())
            assert message["content"] is None or isinstance(message["content"], str)
            assert call["name"]
        else:
            assert set(message) == {"role", "content"}
            assert message["content"].strip(), "the content is blank"
        called = message.get("function_call", {}).get("name")
    assert "system" not in body or body["system"].strip()
    assert not ("system" in body and "functions" in body), "system and functions exclude each other"
    for function in body.get("functions", []):
        assert function["name"]
        assert function["description"].strip()
        parameters = function["parameters"]
        assert parameters["type"] == "object"
        assert isinstance(parameters["properties"], dict)
    assert body.get("functions") != []
    assert 0 < body.get("temperature", 1) <= 1
    assert 0 <= body.get("top_p", 1) <= 1
    assert 1 <= body.get("penalty_score", 1) <= 2
    assert len(body.get("stop", [])) <= 4
    assert all(len(text) <= 20 for text in body.get("stop", []))
    assert body.get("max_output_tokens", 2) >= 2
    assert isinstance(body.get("response_format", ""), str)


def check_v2(body: Any) -> None:
    """Raise `AssertionError` if Qianfan v2 would refuse the body."""
    rules_openai.check(body, WENXIN)
    last = body["messages"][-1]
    assert last.get("tool_calls") or isinstance(last["content"], list) or last["content"].strip(), (
        "the last message is blank"
    )
    assert any(message["role"] != "system" for message in body["messages"]), "system text alone"
    assert 1 <= body.get("penalty_score", 1) <= 2
