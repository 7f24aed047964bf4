"""Loads the wire cases of the international platforms (`tests/wire/<platform>/NN-case.json`) and reads their answers.

The form of a case: `request` (what the SDK sent), `response` (status, headers, file), `expected` (what the SDK read).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmagent.events import Event, ReplyBuilder, TextDelta
from lmagent.jsontext import loads
from lmagent.messages import Message, Reply, ToolCall
from lmagent.providers.base import ChatCall, Codec, Request
from lmagent.schema import ToolSpec

WIRE = Path(__file__).parent.parent / "wire"

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


@dataclass(frozen=True)
class Case:
    """One recorded exchange."""

    name: str
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: bytes
    """The answer as the server would send it."""
    expected: dict[str, Any]

    @property
    def json(self) -> Any:
        """The answer decoded; for those that are one JSON value."""
        return loads(self.body)


@cache
def load(platform: str, name: str) -> Case:
    """Return a case by its file name without `.json`."""
    folder = WIRE / platform
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    response = case["response"]
    body = (folder / response["file"]).read_bytes()
    return Case(name, case["request"], response["status"], response["headers"], body, case["expected"])


def names(platform: str, *, streams: bool | None = None, errors: bool | None = None) -> list[str]:
    """Return the names of a platform's cases, those that stream or fail or those that do not."""
    found = sorted(
        path.name.removesuffix(".json")
        for path in (WIRE / platform).glob("*.json")
        if not path.name.endswith(".response.json")
    )
    assert found
    answer: list[str] = []
    for name in found:
        case = load(platform, name)
        is_stream = case.headers["content-type"].startswith("text/event-stream")
        if streams in (None, is_stream) and errors in (None, "error" in case.expected and case.status >= 400):
            answer.append(name)
    return answer


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


def read_stream(codec: Codec, pieces: Iterable[bytes]) -> tuple[Reply, list[Event]]:
    """Return the reply and the events of a stream that came in these pieces."""
    framing = codec.framing()
    state = codec.new_state()
    builder = ReplyBuilder("1")
    events: list[Event] = []
    for piece in pieces:
        for frame in framing.feed(piece):
            for delta in codec.parse_event(state, frame.data, frame.event):
                events.extend(builder.add(delta))
    for frame in framing.close():
        for delta in codec.parse_event(state, frame.data, frame.event):
            events.extend(builder.add(delta))
    for delta in codec.finish(state):
        events.extend(builder.add(delta))
    assert builder.done is not None, "the stream has no end"
    return builder.reply(codec.model_id), events


def cuts(data: bytes) -> list[Sequence[bytes]]:
    """Return the ways to cut a stream: whole, at every position, one byte at a time."""
    return [
        [data],
        *([data[:at], data[at:]] for at in range(1, len(data))),
        [data[at : at + 1] for at in range(len(data))],
    ]


def shown_text(events: Iterable[Event]) -> str:
    """Return the text a reader of these events sees."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the calls as the recordings write them."""
    return [{"id": c.id, "name": c.name, "arguments": json.loads(c.arguments)} for c in reply.tool_calls]
