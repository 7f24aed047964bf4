"""Calls and tools for the wire cases of the international providers with their own dialects.

`wire` loads the cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from lmagent.core.events import Event, TextDelta
from lmagent.core.messages import Message, Reply, ToolCall
from lmagent.providers.base import ChatCall, Request
from lmagent.toolkit.schema import ToolSpec
from tests.providers.wire import load, names, read_pieces

__all__ = [
    "GET_TIME",
    "GET_WEATHER",
    "ORDER_SCHEMA",
    "PNG",
    "ask",
    "body_of",
    "call",
    "calls_of",
    "cuts",
    "load",
    "names",
    "read_pieces",
    "shown_text",
    "spec",
]

GET_WEATHER = ToolSpec(
    name="get_weather",
    description="Get the current weather of a city",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "City name"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Temperature unit"},
        },
        "required": ["city"],
    },
)
GET_TIME = ToolSpec(
    name="get_time",
    description="Get the local time of a time zone",
    parameters={
        "type": "object",
        "properties": {"timezone": {"type": "string", "description": "IANA time zone"}},
        "required": ["timezone"],
    },
)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ORDER_SCHEMA = {
    "$defs": {
        "Item": {
            "properties": {
                "name": {"title": "Name", "type": "string"},
                "qty": {"title": "Qty", "type": "integer"},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Note"},
            },
            "required": ["name", "qty"],
            "title": "Item",
            "type": "object",
        }
    },
    "properties": {
        "kind": {"enum": ["buy", "sell"], "title": "Kind", "type": "string"},
        "items": {"items": {"$ref": "#/$defs/Item"}, "title": "Items", "type": "array"},
    },
    "required": ["kind", "items"],
    "title": "Order",
    "type": "object",
}
"""The pydantic schema that the recordings were made with."""


def body_of(request: Request) -> Any:
    """Return the body of one of our requests."""
    return json.loads(request.content)


def ask(*messages: Message, **parts: Any) -> ChatCall:
    """Return a call."""
    return ChatCall(messages=messages, **parts)


def spec(tool: ToolSpec, **changes: Any) -> ToolSpec:
    """Return a tool with other fields."""
    return ToolSpec(**{"name": tool.name, "description": tool.description, "parameters": tool.parameters, **changes})


def call(id: str, name: str, arguments: str) -> ToolCall:
    """Return a tool call."""
    return ToolCall(id=id, name=name, arguments=arguments)


def cuts(data: bytes) -> list[Sequence[bytes]]:
    """Return the ways to cut a stream: whole, at every position, one byte at a time."""
    return [
        [data],
        *([data[:at], data[at:]] for at in range(1, len(data))),
        [data[at : at + 1] for at in range(len(data))],
    ]


def shown_text(events: Iterable[Event]) -> str:
    """Return the text in these events."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the calls in the form of the recordings."""
    return [{"id": c.id, "name": c.name, "arguments": json.loads(c.arguments)} for c in reply.tool_calls]
