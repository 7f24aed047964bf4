"""The rules of OpenAI's Responses API for a request body (docs/providers/openai.md)."""

from __future__ import annotations

import re
from typing import Any

_KEYS = {
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "max_output_tokens",
    "max_tool_calls", "temperature", "top_p", "top_logprobs", "reasoning", "text", "include", "store",
    "previous_response_id", "stream", "truncation", "metadata", "service_tier", "prompt_cache_key", "user",
    "prompt_cache_retention", "safety_identifier",
}  # fmt: skip
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PARTS = {"input_text", "input_image", "input_file"}


def check(body: Any) -> None:
    """Raise `AssertionError` if the server would refuse the body."""
    assert set(body) <= _KEYS, set(body) - _KEYS
    assert body["input"], "the input is empty"
    open_calls: dict[str, None] = {}
    seen: set[str] = set()
    items = body["input"]
    for index, item in enumerate(items):
        kind = item.get("type", "message")
        assert kind in ("message", "function_call", "function_call_output", "reasoning"), kind
        if kind == "message":
            _check_message(item)
        elif kind == "function_call":
            assert 0 < len(item["call_id"]) <= 64
            assert item["call_id"] not in seen, "an id twice"
            seen.add(item["call_id"])
            assert _NAME.fullmatch(item["name"]), item["name"]
            assert isinstance(item["arguments"], str)
            open_calls[item["call_id"]] = None
        elif kind == "function_call_output":
            assert set(item) <= {"type", "call_id", "output"}
            assert isinstance(item["output"], str)
            if "previous_response_id" not in body:
                assert item["call_id"] in open_calls, "a result without its call"
            open_calls.pop(item["call_id"], None)
        else:
            following = items[index + 1] if index + 1 < len(items) else {}
            assert following.get("type") in ("message", "function_call", "reasoning"), "reasoning stands alone"
    assert not open_calls, "calls without a result"
    for tool in body.get("tools", ()):
        assert set(tool) <= {"type", "name", "description", "parameters", "strict"}
        assert {"type", "name", "parameters", "strict"} <= set(tool), "a tool says its parameters and its strictness"
        assert _NAME.fullmatch(tool["name"])
        if tool["strict"]:
            assert tool["parameters"]["additionalProperties"] is False
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        assert choice["name"] in [tool["name"] for tool in body["tools"]]
    else:
        assert choice in (None, "none", "required", "auto")
    if "parallel_tool_calls" in body:
        assert body.get("tools")


def _check_message(item: Any) -> None:
    assert item["role"] in ("user", "assistant", "system", "developer")
    if isinstance(item["content"], str):
        return
    assert item["content"], "empty content"
    kinds = {part["type"] for part in item["content"]}
    assert kinds <= ({"output_text", "refusal"} if item["role"] == "assistant" else _PARTS), kinds
