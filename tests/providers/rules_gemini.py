"""The rules of Gemini's `generateContent` for a request body (docs/providers/gemini.md)."""

from __future__ import annotations

import re
from typing import Any

_KEYS = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent"}
_PART = {"text", "inlineData", "fileData", "functionCall", "functionResponse", "thought", "thoughtSignature"}
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_SCHEMA = {
    "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems",
    "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required",
    "propertyOrdering",
}  # fmt: skip


def check(body: Any, *, signatures: bool = True) -> None:
    """Raise `AssertionError` if the server would refuse the body.

    Args:
        body: The decoded body.
        signatures: Whether the model insists on thought signatures (Gemini 3 does).
    """
    assert set(body) <= _KEYS, set(body) - _KEYS
    contents = body["contents"]
    assert contents, "the list is empty"
    roles = [content["role"] for content in contents]
    assert roles == ["user", "model"] * (len(roles) // 2) + ["user"] * (len(roles) % 2), roles
    assert roles[-1] == "user"
    for index, content in enumerate(contents):
        parts = content["parts"]
        assert parts, "no parts"
        for part in parts:
            _check_part(part, content["role"])
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        results = [part["functionResponse"] for part in parts if "functionResponse" in part]
        before = contents[index - 1]["parts"] if index else []
        asked = [part["functionCall"] for part in before if "functionCall" in part]
        assert [result["name"] for result in results] == [call["name"] for call in asked], "results and calls differ"
        assert [result.get("id") for result in results] == [call.get("id") for call in asked], "ids differ"
        if calls and signatures:
            first = next(part for part in parts if "functionCall" in part)
            assert first.get("thoughtSignature"), "the first call has no signature"
    if "systemInstruction" in body:
        assert body["systemInstruction"]["parts"]
        assert all(part["text"].strip() for part in body["systemInstruction"]["parts"])
    for tool in body.get("tools", ()):
        for declared in tool["functionDeclarations"]:
            assert _NAME.fullmatch(declared["name"])
            assert not {"parameters", "parametersJsonSchema"} <= set(declared)
            if "parametersJsonSchema" in declared:
                assert declared["parametersJsonSchema"].get("properties") or declared["parametersJsonSchema"].get(
                    "additionalProperties"
                )
                _check_schema(declared["parametersJsonSchema"])
    if "responseJsonSchema" in body.get("generationConfig", {}):
        _check_schema(body["generationConfig"]["responseJsonSchema"])


def _check_part(part: Any, role: str) -> None:
    assert set(part) <= _PART, set(part) - _PART
    if "text" in part:
        assert part["text"] or "thoughtSignature" in part, "an empty text"
    if "functionCall" in part:
        assert role == "model"
        assert isinstance(part["functionCall"]["args"], dict), "args is no object"
        assert part["functionCall"]["name"]
    if "functionResponse" in part:
        assert role == "user"
        assert isinstance(part["functionResponse"]["response"], dict), "response is no object"


def _check_schema(node: Any) -> None:
    assert set(node) <= _SCHEMA, set(node) - _SCHEMA
    if "$ref" in node:
        assert all(key.startswith("$") for key in node), "company beside $ref"
    for inner in (*node.get("properties", {}).values(), *node.get("$defs", {}).values(), *node.get("anyOf", ())):
        _check_schema(inner)
    if isinstance(node.get("items"), dict):
        _check_schema(node["items"])
