"""Answers of Anthropic, Gemini and the Responses API with each member missing or of the wrong type: they may raise only
`ProviderError`, and a reply that was read can be sent back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lmagent.core.events import ReplyBuilder
from lmagent.core.messages import Reply, ToolMessage, UserMessage
from lmagent.errors import ProviderError
from lmagent.providers.anthropic import AnthropicCodec
from lmagent.providers.base import Codec
from lmagent.providers.gemini import GeminiCodec
from lmagent.providers.openai.responses import ResponsesCodec
from tests.providers.wire_intl import ask, load, names

CODECS: dict[str, Codec] = {
    "anthropic": AnthropicCodec("claude-sonnet-4-6"),
    "gemini": GeminiCodec("gemini-3.1-pro"),
    "openai-responses": ResponsesCodec("gpt-5.4"),
}
ODD: tuple[Any, ...] = (None, True, -1, "x", "", [], {}, [None], {"x": None}, [[]], 1e300)
MISSING = object()


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*above, key))


def changed(text: str, path: tuple[Any, ...], odd: Any) -> Any:
    """Return the JSON with one member replaced or removed."""
    value = json.loads(text)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if odd is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = odd
    return value


def send_back(codec: Codec, reply: Reply) -> None:
    results = [ToolMessage("r", call.id, call.name) for call in reply.tool_calls]
    history = (UserMessage("hi"), reply.message, *results, UserMessage("go on"))
    assert all(isinstance(call.arguments, str) and call.arguments for call in reply.tool_calls)
    assert json.loads(codec.build_request(ask(*history)).content)


@pytest.mark.parametrize(("platform", "name"), [(p, n) for p in CODECS for n in names(p, streams=False)])
def test_whole_answers(platform: str, name: str):
    codec = CODECS[platform]
    case = load(platform, name)
    for path in paths(case.json):
        for odd in (*ODD, MISSING):
            body = changed(case.content.decode(), path, odd)
            if case.status >= 400:
                assert isinstance(codec.parse_error(case.status, {}, body), ProviderError)
                continue
            try:
                reply = codec.parse_reply(body)
            except ProviderError:
                continue
            send_back(codec, reply)


@pytest.mark.parametrize(("platform", "name"), [(p, n) for p in CODECS for n in names(p, streams=True)])
def test_streams(platform: str, name: str):
    codec = CODECS[platform]
    frames = [frame.data.decode() for frame in codec.framing().feed(load(platform, name).content)]
    for at, data in enumerate(frames):
        for path in paths(json.loads(data)):
            if platform == "openai-responses" and len(path) > 4:
                continue  # `response` is the same as in whole answers
            for odd in (*ODD[:7], MISSING):
                stream(codec, [*frames[:at], json.dumps(changed(data, path, odd)), *frames[at + 1 :]])


def stream(codec: Codec, frames: list[str]) -> None:
    state, builder = codec.new_state(), ReplyBuilder("1")
    try:
        for data in frames:
            for delta in codec.parse_event(state, data.encode()):
                builder.add(delta)
        for delta in codec.finish(state):
            builder.add(delta)
    except ProviderError:
        return
    if builder.done is not None:
        builder.reply("x")
