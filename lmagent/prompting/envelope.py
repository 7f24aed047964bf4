"""Lifts calls out of a value: which keys name the tool, which hold the arguments, which objects only wrap a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

__all__ = [
    "ARGUMENT_KEYS",
    "ENVELOPE_KEYS",
    "NAME_KEYS",
    "Envelope",
    "clean_name",
    "is_placeholder",
    "is_schema",
    "open_envelope",
]

NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action")
ARGUMENT_KEYS = ("arguments", "parameters", "params", "args", "input", "tool_input", "action_input")
_WRAPPERS = ("function", "tool_call", "tool_calls", "function_call", "calls")
_BESIDE = (
    "id",
    "type",
    "call_id",
    "tool_call_id",
    "index",
    "thought",
    "thoughts",
    "reasoning",
    "reason",
    "explanation",
)
ENVELOPE_KEYS = frozenset((*NAME_KEYS, *ARGUMENT_KEYS, *_WRAPPERS, *_BESIDE))
"""Every key that may stand in the object that names a call."""

_PLACEHOLDER = re.compile(r"[<{\[$].*|.*[>}\]]|\.{3}|…|", re.DOTALL)
_MAX_CALLS = 64


@dataclass(slots=True)
class Envelope:
    """One call as an object spelled it; `arguments` is still what stood there (an object, text, null)."""

    name: str
    arguments: Any
    has_arguments: bool
    schema: bool
    """True when the arguments describe parameters instead of giving them."""
    extra: tuple[str, ...]
    """Keys beside those of an envelope."""
    canonical: bool
    """True for `name` and `arguments`, so that no alias was used."""
    strong: bool
    """True when the keys are those of a call beyond doubt: a name and an object of arguments that is no schema."""


def clean_name(name: str) -> str:
    """Return the name without blanks and without the `functions.` of some wire formats."""
    return name.strip().removeprefix("functions.").strip()


def is_placeholder(name: str) -> bool:
    """True for `<function-name>`, `...` and other stand-ins of a template."""
    return _PLACEHOLDER.fullmatch(name.strip()) is not None


def open_envelope(value: Any, depth: int = 4) -> list[Envelope] | None:
    """Return the calls in `value` in order, or None when it is not made of calls."""
    if depth == 0:
        return None
    if isinstance(value, list):
        calls: list[Envelope] = []
        for item in cast("list[Any]", value):
            inner = open_envelope(item, depth - 1)
            if inner is None or len(calls) + len(inner) > _MAX_CALLS:
                return None
            calls.extend(inner)
        return calls
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    for word in _WRAPPERS:
        inside = fields.get(word)
        if isinstance(inside, (dict, list)) and not (word == "function" and _name_of(fields, ("function",))):
            return open_envelope(inside, depth - 1)
    return _single(fields)


def _name_of(fields: Mapping[str, Any], skip: tuple[str, ...] = ()) -> str | None:
    for word in NAME_KEYS:
        if word not in skip and isinstance(fields.get(word), str):
            return cast("str", fields[word])
    return None


def _single(fields: dict[str, Any]) -> list[Envelope] | None:
    name = _name_of(fields)
    if name is None or any(isinstance(fields.get(word), str) and fields[word] != name for word in NAME_KEYS):
        return None  # no name, or two that differ
    holders = [word for word in ARGUMENT_KEYS if word in fields]
    arguments = fields[holders[0]] if holders else None
    if len(holders) > 1 and any(fields[word] != arguments for word in holders):
        return None
    extra = tuple(word for word in fields if word not in ENVELOPE_KEYS)
    if extra and not holders:
        return None
    schema = isinstance(arguments, dict) and is_schema(cast("dict[str, Any]", arguments))
    usual = "name" in fields and holders in (["arguments"], [])
    strong = isinstance(arguments, dict) and not schema and not extra
    return [Envelope(name, arguments, bool(holders), schema, extra, usual, strong)]


def is_schema(arguments: Mapping[str, Any]) -> bool:
    """True for the description of parameters (`type` and `properties`), which is no call."""
    return isinstance(arguments.get("properties"), dict) and arguments.get("type") == "object"
