"""The rules of Hunyuan's own dialects for a request body, from its own pages: cloud API and API of 2023."""

from __future__ import annotations

import json
from typing import Any

ROLES = {"system", "user", "assistant", "tool"}
KEYS = {
    "Model",
    "Messages",
    "Stream",
    "StreamModeration",
    "TopP",
    "Temperature",
    "EnableEnhancement",
    "Tools",
    "ToolChoice",
    "CustomTool",
    "Stop",
    "Seed",
    "SearchInfo",
    "Citation",
    "EnableThinking",
}


def check(body: dict[str, Any]) -> None:
    """Assert that a body of any of the dialects would be accepted."""
    if "Messages" in body:
        check_tc3(body)
    elif "model" in body:
        check_compatible(body)
    else:
        check_hyllm(body)


def check_tc3(body: dict[str, Any]) -> None:
    assert body.keys() <= KEYS, body.keys() - KEYS
    assert isinstance(body["Model"], str)
    assert body["Model"]
    messages = body["Messages"]
    assert 1 <= len(messages) <= 40
    if messages[0]["Role"] == "system":
        messages = messages[1:]
    check_turns(messages)
    for tool in body.get("Tools", ()):
        check_tool(tool)
    choice = body.get("ToolChoice", "auto")
    assert choice in ("none", "auto", "custom")
    assert ("CustomTool" in body) == (choice == "custom")
    if choice == "custom":
        assert body["CustomTool"] in body["Tools"]
    assert 0 <= body.get("Temperature", 1) <= 2
    assert 0 <= body.get("TopP", 1) <= 1
    assert 1 <= body.get("Seed", 1) <= 10000


def check_turns(messages: list[dict[str, Any]]) -> None:
    assert messages, "a system message alone is no conversation"
    assert messages[0]["Role"] == "user"
    assert messages[-1]["Role"] in ("user", "tool")
    open_calls: list[str] = []
    before = ""
    for message in messages:
        role = message["Role"]
        assert role in ROLES - {"system"}, "system only stands first"
        assert "ReasoningContent" not in message
        calls = message.get("ToolCalls", [])
        assert calls or message.get("Content", "").strip() or message.get("Contents"), "Content is not empty"
        if role == "tool":
            assert before in ("assistant", "tool")
            assert message["ToolCallId"] in open_calls
            open_calls.remove(message["ToolCallId"])
        else:
            assert not open_calls, "each call has a result before the next turn"
            allowed = {"user": ("", "assistant"), "assistant": ("user", "tool")}[role]
            assert before in allowed, f"{role} behind {before}"
        for call in calls:
            assert role == "assistant"
            assert call["Type"] == "function"
            assert call["Id"]
            assert isinstance(call["Function"]["Arguments"], str)
            open_calls.append(call["Id"])
        before = role
    assert not open_calls


def check_tool(tool: dict[str, Any]) -> None:
    assert tool.keys() == {"Type", "Function"}
    assert tool["Type"] == "function"
    assert tool["Function"].keys() <= {"Name", "Description", "Parameters"}
    assert tool["Function"]["Name"]
    assert isinstance(tool["Function"]["Parameters"], str), "a schema travels as text"
    assert json.loads(tool["Function"]["Parameters"])["type"] == "object"


def check_compatible(body: dict[str, Any]) -> None:
    """Assert the same rules of order for OpenAI's dialect."""
    messages = [
        {
            "Role": message["role"],
            "Content": message["content"] if isinstance(message["content"], str) else "parts",
            "ToolCallId": message.get("tool_call_id"),
            "ToolCalls": [
                {"Id": call["id"], "Type": call["type"], "Function": {"Arguments": call["function"]["arguments"]}}
                for call in message.get("tool_calls") or ()
            ],
        }
        for message in body["messages"]
    ]
    check_turns(messages[1:] if messages[0]["Role"] == "system" else messages)
    for tool in body.get("tools", ()):
        assert isinstance(tool["function"]["parameters"], dict)
    assert "reasoning_content" not in str(body["messages"])


def check_hyllm(body: dict[str, Any]) -> None:
    """The body before or after signing."""
    unsigned = {"messages", "stream", "temperature", "top_p"}
    signed = {"app_id", "secret_id", "query_id", "timestamp", "expired"}
    assert body.keys() <= unsigned | signed
    messages = body["messages"]
    assert 1 <= len(messages) <= 40
    assert len(messages) % 2 == 1
    for index, message in enumerate(messages):
        assert message.keys() == {"role", "content"}
        assert message["role"] == ("assistant" if index % 2 else "user")
        assert isinstance(message["content"], str)
        assert message["content"].strip()
    assert body["stream"] in (0, 1)
    assert not isinstance(body["stream"], bool)
    assert 0 <= body.get("temperature", 1) <= 2
    assert 0 <= body.get("top_p", 1) <= 1
    if "app_id" in body:
        assert body["timestamp"] < body["expired"] <= body["timestamp"] + 90 * 86400
