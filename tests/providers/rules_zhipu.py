"""The rules of Zhipu for a request body, from its own pages: v3 `invoke`, CharacterGLM, and v4."""

from __future__ import annotations

import json
from typing import Any

V3_KEYS = {"prompt", "temperature", "top_p", "request_id", "incremental", "return_type", "ref", "meta"}
CARD = {"user_info", "bot_info", "bot_name", "user_name"}
V4_KEYS = {
    "model",
    "messages",
    "tools",
    "tool_choice",
    "stream",
    "tool_stream",
    "do_sample",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "response_format",
    "thinking",
    "request_id",
    "user_id",
    "meta",
    "sensitive_word_check",
}


def check(body: dict[str, Any]) -> None:
    """Assert that a body of any of the dialects would be accepted."""
    if "prompt" in body:
        check_v3(body)
    else:
        check_v4(body)


def check_v3(body: dict[str, Any]) -> None:
    assert body.keys() <= V3_KEYS, body.keys() - V3_KEYS
    prompt = body["prompt"]
    assert len(prompt) % 2 == 1
    for index, message in enumerate(prompt):
        assert message.keys() == {"role", "content"}
        assert message["role"] == ("assistant" if index % 2 else "user")
        assert isinstance(message["content"], str)
        assert message["content"].strip()
    for name in ("temperature", "top_p"):
        assert 0 < body.get(name, 0.5) < 1, f"{name} is an open interval"
    if "meta" in body:
        assert body["meta"].keys() == CARD
        assert all(isinstance(value, str) for value in body["meta"].values())


def check_v4(body: dict[str, Any], *, open_interval: bool = True) -> None:
    """Assert the rules of v4; the models of 2024 take the open interval of temperature and top_p only."""
    assert body.keys() <= V4_KEYS, body.keys() - V4_KEYS
    assert body["model"]
    messages = body["messages"]
    assert any(message["role"] != "system" for message in messages), "not only system"
    open_calls: list[str] = []
    for message in messages:
        assert message["role"] in ("system", "user", "assistant", "tool")
        if message["role"] == "tool":
            assert message.keys() == {"role", "tool_call_id", "content"}
            assert message["tool_call_id"] in open_calls
            open_calls.remove(message["tool_call_id"])
        else:
            assert not open_calls, "each call has a result before the next turn"
        if message["role"] in ("system", "user"):
            assert message["content"]
        for call in message.get("tool_calls") or ():
            assert message["role"] == "assistant"
            assert call["type"] == "function"
            assert call["id"]
            assert isinstance(call["function"]["arguments"], str)
            json.loads(call["function"]["arguments"])
            open_calls.append(call["id"])
    assert not open_calls
    assert body.get("tool_choice", "auto") == "auto", "v4 knows no other choice"
    for name in ("temperature", "top_p"):
        value = body.get(name, 0.5)
        assert 0 < value < 1 if open_interval else 0 <= value <= 1
    if "stop" in body:
        assert isinstance(body["stop"], list)
        assert len(body["stop"]) <= 1
    if "request_id" in body:
        assert len(body["request_id"]) >= 6
    if "meta" in body:
        assert body["meta"].keys() == CARD
