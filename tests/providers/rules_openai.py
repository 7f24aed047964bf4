"""The rules of Chat Completions for a request body, from OpenAI's pages and the notes on its vendors."""

from __future__ import annotations

import json
import re
from typing import Any

from lmagent.providers.openai.profile import Profile

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEYS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "function_call"},
    "tool": {"role", "content", "tool_call_id"},
    "function": {"role", "content", "name"},
}


def check(body: dict[str, Any], profile: Profile) -> None:
    """Assert that a server of this profile would accept the body."""
    assert body["model"]
    assert body["messages"]
    assert not ("tools" in body and "functions" in body)
    assert "tool_choice" not in body or "tools" in body
    assert "parallel_tool_calls" not in body or "tools" in body
    open_ids: list[str] = []
    open_function = None
    for index, message in enumerate(body["messages"]):
        role = message["role"]
        extra = {"reasoning_content", "reasoning_details"} if role == "assistant" else set()
        extra |= {"name"} if role == "tool" and profile.tool_name else set()
        assert message.keys() <= _KEYS[role] | extra, message
        if role == "tool":
            assert message["tool_call_id"] in open_ids, "each result has its call right before"
            open_ids.remove(message["tool_call_id"])
            assert isinstance(message["content"], str)
            continue
        if role == "function":
            assert message["name"] == open_function
            open_function = None
            continue
        assert not open_ids, "each call has its result right behind"
        assert open_function is None
        if role == "user":
            assert profile.user_name or "name" not in message
            _check_content(message["content"], profile)
            if profile.after_tool:
                assert index == 0 or body["messages"][index - 1]["role"] != "tool"
        if role == "assistant":
            content = message.get("content")
            assert content is None or isinstance(content, str)
            assert (
                content is not None or message.get("tool_calls") or message.get("function_call") or "refusal" in message
            )
            if profile.empty_content != "null":
                assert None not in message.values()
            for call in message.get("tool_calls") or ():
                assert call.keys() == {"id", "type", "function"}
                open_ids.append(_checked_id(call["id"], profile))
                _check_function(call["function"], profile)
            assert len(set(open_ids)) == len(open_ids)
            if message.get("function_call"):
                _check_function(message["function_call"], profile)
                open_function = message["function_call"]["name"]
    assert not open_ids
    assert open_function is None
    if profile.merge_system:
        roles = [message["role"] for message in body["messages"]]
        assert "system" not in roles[1:]


def _check_content(content: Any, profile: Profile) -> None:
    if isinstance(content, str):
        return
    assert isinstance(content, list)
    assert profile.text_parts or any(part["type"] != "text" for part in content)
    for part in content:
        assert part["type"] in ("text", "image_url", "file")


def _checked_id(call_id: str, profile: Profile) -> str:
    assert isinstance(call_id, str)
    assert call_id
    if profile.call_ids == "alnum9":
        assert re.fullmatch(r"[a-zA-Z0-9]{9}", call_id)
    if profile.call_ids == "max40":
        assert len(call_id) <= 40
    return call_id


def _check_function(function: dict[str, Any], profile: Profile) -> None:
    assert function.keys() == {"name", "arguments"}
    assert _NAME.fullmatch(function["name"])
    assert isinstance(function["arguments"], str)
    if profile.arguments_must_be_json:
        assert isinstance(json.loads(function["arguments"]), dict)
