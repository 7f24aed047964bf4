"""The rules of Alibaba's DashScope for a request body, from its own pages: native API and old app completions."""

from __future__ import annotations

import json
from typing import Any

PARAMETERS = {
    "result_format",
    "incremental_output",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "seed",
    "stop",
    "repetition_penalty",
    "presence_penalty",
    "enable_search",
    "search_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "enable_thinking",
    "thinking_budget",
    "n",
    "response_format",
    "logprobs",
    "top_logprobs",
}


def check(body: dict[str, Any]) -> None:
    """Assert that a body of either dialect would be accepted."""
    if "AppId" in body:
        check_app(body)
    else:
        check_native(body)


def check_native(body: dict[str, Any]) -> None:
    assert body.keys() == {"model", "input", "parameters"}, "messages at the top level are a 400, and no stream key"
    assert body["model"]
    assert body["input"].keys() == {"messages"}
    parameters = body["parameters"]
    assert parameters.keys() <= PARAMETERS, parameters.keys() - PARAMETERS
    check_messages(body["input"]["messages"])
    assert 0 <= parameters.get("temperature", 1) < 2
    assert 0 < parameters.get("top_p", 1) <= 1
    assert parameters.get("repetition_penalty", 1) > 0
    assert -2 <= parameters.get("presence_penalty", 0) <= 2
    assert 1 <= parameters.get("n", 1) <= 4
    choice = parameters.get("tool_choice", "auto")
    names = [tool["function"]["name"] for tool in parameters.get("tools", ())]
    if isinstance(choice, dict):
        assert choice["function"]["name"] in names
    else:
        assert choice in ("auto", "none")
    for tool in parameters.get("tools", ()):
        assert tool["type"] == "function"
        assert tool["function"]["parameters"]["type"] == "object"
    if parameters.get("response_format") == {"type": "json_object"}:
        assert "json" in str(body["input"]["messages"]).lower(), "JSON mode needs the word in a message"


def check_messages(messages: list[dict[str, Any]]) -> None:
    assert any(message["role"] == "user" for message in messages)
    assert messages[-1]["role"] in ("user", "tool")
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert message["role"] != "system" or index == 0, "the system message stands first"
        assert isinstance(message["content"], str | list)
        assert "reasoning_content" not in message
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls
            open_calls.remove(message["tool_call_id"])
        else:
            assert not open_calls, "each call has a result before the next turn"
        if message["role"] == "user":
            assert message["content"]
        for call in message.get("tool_calls", ()):
            assert message["role"] == "assistant"
            assert call["type"] == "function"
            assert call["id"]
            assert isinstance(json.loads(call["function"]["arguments"]), dict), "arguments that are no JSON are a 400"
            assert call["function"]["name"]
            open_calls.append(call["id"])
    assert not open_calls
    kinds = {type(message["content"]) for message in messages}
    assert len(kinds) == 1, "all texts (text generation) or all lists (multimodal)"


def check_app(body: dict[str, Any]) -> None:
    assert len(body["RequestId"]) == 32
    assert body["AppId"]
    assert body["Prompt"].strip()
    assert isinstance(body["Stream"], bool)
    for pair in body.get("History", ()):
        assert pair.keys() == {"User", "Bot"}
        assert all(isinstance(value, str) and value.strip() for value in pair.values())
    inner = {"TopK", "Seed", "UseRawPrompt", "Temperature", "MaxTokens", "ResultFormat", "Stop", "IncrementalOutput"}
    assert body["Parameters"].keys() <= inner
