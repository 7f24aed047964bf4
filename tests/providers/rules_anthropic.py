"""The rules of Anthropic's Messages API for a request body (docs/providers/anthropic.md)."""

from __future__ import annotations

import re
from typing import Any

_KEYS = {
    "model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
    "stop_sequences", "stream", "metadata", "service_tier", "cache_control", "temperature", "top_p", "top_k",
}  # fmt: skip
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_USER = {"text", "image", "document", "tool_result"}
_ASSISTANT = {"text", "thinking", "redacted_thinking", "tool_use"}


def check(body: Any) -> None:
    """Raise `AssertionError` if the server would refuse the body."""
    assert set(body) <= _KEYS, set(body) - _KEYS
    assert {"model", "max_tokens", "messages"} <= set(body)
    assert isinstance(body["max_tokens"], int)
    assert body["max_tokens"] > 0
    if "system" in body:
        _check_system(body["system"])
    turns = _turns(body["messages"])
    assert turns, "the list is empty"
    assert turns[0][0] == "user", "the first message is not the user's"
    assert turns[-1][0] == "user", "an answer at the end is prefill, which newer models refuse"
    seen: set[str] = set()
    uses_tools = False
    for index, (role, blocks) in enumerate(turns):
        for block in blocks:
            assert block["type"] in (_USER if role == "user" else _ASSISTANT), f"{block['type']} of {role}"
            if block["type"] == "text":
                assert block["text"].strip(), "a blank text block"
        uses = [block for block in blocks if block["type"] == "tool_use"]
        for use in uses:
            uses_tools = True
            assert _ID.fullmatch(use["id"]), use["id"]
            assert _NAME.fullmatch(use["name"]), use["name"]
            assert isinstance(use["input"], dict), "input is no object"
            assert use["id"] not in seen, "an id twice"
            seen.add(use["id"])
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        before = turns[index - 1][1] if index else []
        expected = [block["id"] for block in before if block["type"] == "tool_use"]
        if role == "user":
            assert sorted(results) == sorted(expected), "results and calls differ"
            assert kinds[: len(results)] == ["tool_result"] * len(results), "results come first"
        if uses and "thinking" in kinds:
            assert kinds.index("thinking") < kinds.index("tool_use")
    if uses_tools:
        assert body.get("tools"), "tool blocks without tools"
    for tool in body.get("tools", ()):
        assert _NAME.fullmatch(tool["name"])
        assert tool["input_schema"]["type"] == "object"
    if "tool_choice" in body:
        assert body.get("tools")
        choice = body["tool_choice"]
        assert choice["type"] in ("auto", "any", "tool", "none")
        assert choice["type"] != "none" or "disable_parallel_tool_use" not in choice
        if choice["type"] == "tool":
            assert choice["name"] in [tool["name"] for tool in body["tools"]]


def _check_system(system: Any) -> None:
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    assert blocks
    assert all(block["type"] == "text" and block["text"].strip() for block in blocks)


def _turns(messages: Any) -> list[tuple[str, list[Any]]]:
    """Return the messages as the service reads them: consecutive messages of one role are merged."""
    turns: list[tuple[str, list[Any]]] = []
    for message in messages:
        assert set(message) == {"role", "content"}
        assert message["role"] in ("user", "assistant")
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert blocks, "empty content"
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(blocks)
        else:
            turns.append((message["role"], list(blocks)))
    return turns
