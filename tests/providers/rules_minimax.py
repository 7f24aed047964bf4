"""The rules of MiniMax's old APIs for a request body (docs/providers/minimax.md): `check` for
`chatcompletion`, `check_pro` for `chatcompletion_pro`."""

from __future__ import annotations

import re
from typing import Any

_SHARED = {"model", "messages", "temperature", "top_p", "tokens_to_generate", "stream"}
_CHAT = _SHARED | {"prompt", "role_meta", "use_standard_sse", "beam_width", "skip_info_mask", "continue_last_message"}
_PRO = _SHARED | {
    "bot_setting",
    "reply_constraints",
    "functions",
    "sample_messages",
    "plugins",
    "mask_sensitive_info",
}
_NAME = re.compile(r"(?!plugin_)[a-zA-Z0-9_-]{1,64}")


def check(body: Any) -> None:
    """Raise `AssertionError` if `chatcompletion` would refuse the body."""
    assert set(body) <= _CHAT, set(body) - _CHAT
    _check_shared(body)
    for message in body["messages"]:
        assert set(message) == {"sender_type", "text"}
        assert message["sender_type"] in ("USER", "BOT")
        assert message["text"].strip()
    if not body.get("continue_last_message"):
        assert body["messages"][-1]["sender_type"] == "USER"
    if "prompt" in body:
        assert body["prompt"].strip()
        assert set(body["role_meta"]) == {"user_name", "bot_name"}
    if body.get("stream"):
        assert body["use_standard_sse"] is True
    assert 1 <= body.get("beam_width", 1) <= 4


def check_pro(body: Any) -> None:
    """Raise `AssertionError` if `chatcompletion_pro` would refuse the body."""
    assert set(body) <= _PRO, set(body) - _PRO
    _check_shared(body)
    assert body["bot_setting"]
    bots = [bot["bot_name"] for bot in body["bot_setting"]]
    assert all(bot["content"].strip() for bot in body["bot_setting"])
    constraints = body["reply_constraints"]
    assert constraints["sender_type"] == "BOT"
    assert constraints["sender_name"] in bots
    last = None
    for message in body["messages"]:
        assert message["sender_name"].strip()
        match message["sender_type"]:
            case "USER":
                assert set(message) == {"sender_type", "sender_name", "text"}
                assert message["text"].strip()
            case "BOT":
                assert message["sender_name"] in bots
                call = message.get("function_call")
                if call is None:
                    assert message["text"].strip()
                else:
                    assert set(call) == {"name", "arguments"}
                    assert _NAME.fullmatch(call["name"])
                    assert isinstance(call["arguments"], str)
            case "FUNCTION":
                assert last is not None
                assert "function_call" in last, "a result without a call"
                assert message["sender_name"] in (last["function_call"]["name"], *bots)
            case other:
                raise AssertionError(other)
        if last is not None and "function_call" in last:
            assert message["sender_type"] == "FUNCTION", "a call without a result"
        last = message
    assert body["messages"][-1]["sender_type"] in ("USER", "FUNCTION")
    for function in body.get("functions", []):
        assert _NAME.fullmatch(function["name"])
        assert function["description"].strip()
        assert function["parameters"]["type"] == "object"
        assert isinstance(function["parameters"]["properties"], dict)
    assert body.get("functions") != []
    if "glyph" in constraints:
        assert not body.get("stream")
        assert not body.get("plugins")
        assert "functions" not in body


def _check_shared(body: Any) -> None:
    assert body["model"]
    assert body["messages"]
    assert 0 < body.get("temperature", 1) <= 1
    assert 0 < body.get("top_p", 1) <= 1
    assert body.get("tokens_to_generate", 1) >= 1
