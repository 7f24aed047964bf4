"""For codec tests: load and compare the wire cases of the international providers, sign requests, read streams.

A case (`tests/wire/<provider>/NN-case.json`) has `request` {method, path, query, headers, body}, `real_base`,
`response` {status, headers, file} and `expected`, the values that the official SDK read. `call_of` turns an
OpenAI-shaped body into our `ChatCall`; tests of other dialects build their calls by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmagent.core.events import Event, ReplyBuilder
from lmagent.core.json_text import Frame, loads
from lmagent.core.messages import Reply, Usage, as_messages
from lmagent.providers.base import Auth, ChatCall, Codec, NamedTool, Request, ToolChoice
from lmagent.toolkit.schema import OutputSchema, ToolSpec

WIRE = Path(__file__).parent.parent / "wire"


@dataclass(frozen=True)
class Case:
    """One recorded exchange."""

    name: str
    base: str
    """Host of the recorded path."""
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    """Of the response."""
    content: bytes
    """The bytes of the response."""
    expected: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """The recorded request body (a copy)."""
        return json.loads(json.dumps(self.request["body"]))

    @property
    def json(self) -> Any:
        """The decoded response, if it is one JSON value."""
        return loads(self.content)


@cache
def load(platform: str, name: str) -> Case:
    """Return a case by its file name without `.json`."""
    folder = WIRE / platform
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return Case(
        name=name,
        base=case["real_base"],
        request=case["request"],
        status=case["response"]["status"],
        headers=case["response"]["headers"],
        content=(folder / case["response"]["file"]).read_bytes(),
        expected=case["expected"],
    )


def names(platform: str, *, streams: bool | None = None, errors: bool | None = None) -> list[str]:
    """Return the names of a provider's cases; `streams` and `errors` (by status) select those that do or do not."""
    found: list[str] = []
    for path in sorted((WIRE / platform).glob("*.json")):
        if path.name.endswith(".response.json"):
            continue
        case = load(platform, path.stem)
        is_stream = b"data:" in case.content[:300]
        if streams in (None, is_stream) and errors in (None, case.status >= 400):
            found.append(path.stem)
    assert found, platform
    return found


_CHOICES = {"any": "required"}
_NOT_PARAMETERS = frozenset(
    {"model", "messages", "stream", "stream_options", "tools", "functions", "tool_choice", "function_call"}
)
_NEUTRAL = {"max_completion_tokens": "max_tokens", "random_seed": "seed"}


def call_of(body: Mapping[str, Any]) -> ChatCall:
    """Return the neutral call that an OpenAI-shaped request body expresses."""
    parameters = {_NEUTRAL.get(k, k): v for k, v in body.items() if k not in _NOT_PARAMETERS and v is not None}
    wanted = parameters.get("response_format") or {}
    schema = None
    if wanted.get("type") == "json_schema":
        inner = parameters.pop("response_format")["json_schema"]
        schema = OutputSchema(
            name=inner["name"],
            schema=inner["schema"],
            description=inner.get("description", ""),
            strict=inner.get("strict"),
        )
    return ChatCall(
        messages=as_messages(body["messages"]),
        tools=tuple(_tool_of(tool) for tool in body.get("tools") or body.get("functions") or ()),
        parameters=parameters,
        tool_choice=_choice_of(body.get("tool_choice", body.get("function_call", "auto"))),
        output_schema=schema,
        stream=bool(body.get("stream")),
    )


def _tool_of(tool: Mapping[str, Any]) -> ToolSpec:
    function = tool.get("function", tool)
    parameters = function.get("parameters") or {}
    return ToolSpec(
        name=function["name"],
        description=function.get("description", ""),
        parameters=json.loads(parameters) if isinstance(parameters, str) else parameters,
        strict=function.get("strict"),
    )


def _choice_of(choice: Any) -> ToolChoice:
    if isinstance(choice, str):
        return _CHOICES.get(choice, choice)  # type: ignore[return-value]
    return NamedTool((choice.get("function") or choice)["name"])


def assert_body(request: Request, case: Case, *, without: Iterable[str] = ()) -> None:
    """Assert that we send the body that the SDK sent, except equivalents: `auto`, a false `stream`, nulls, and titles
    of schemas (which pydantic generates; we leave them out).

    Args:
        request: Ours.
        case: The case.
        without: Members of the recording that are documented SDK noise; ours must lack them.
    """
    body = {name: value for name, value in case.body.items() if name not in set(without) and value is not None}
    if body.get("stream") is False:
        del body["stream"]
    for name in ("tool_choice", "function_call"):
        if body.get(name) == "auto":
            del body[name]
    if "response_format" in body:
        body["response_format"] = _untitled(body["response_format"])
    assert loads(request.content) == body


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untitled(v) for k, v in value.items() if k != "title" or not isinstance(v, str)}
    return [_untitled(item) for item in value] if isinstance(value, list) else value


def assert_headers(headers: Mapping[str, str], case: Case) -> None:
    """Assert that the request has every recorded header except `accept`."""
    ours = {name.lower(): value for name, value in headers.items()}
    recorded = {name: value for name, value in case.request["headers"].items() if name != "accept"}
    assert {name: ours.get(name) for name in recorded} == recorded


def assert_reply(reply: Reply, case: Case) -> None:
    """Assert that a reply has the values that the SDK read."""
    expected = case.expected
    text = expected["text"]
    if isinstance(text, list):
        text = "".join(part["text"] for part in text if part["type"] == "text")
    assert reply.reply == (text or expected.get("refusal") or "")
    assert reply.message.refusal == (expected.get("refusal") or "")
    assert reply.raw_finish_reason == expected["finish_reason"]
    assert reply.finish_reason == _finish_reason(expected)
    assert reply.response_id == expected.get("id", reply.response_id)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        (call["name"], call["raw_arguments"]) for call in expected["calls"]
    ]
    for ours, theirs in zip(reply.tool_calls, expected["calls"], strict=True):
        assert ours.id
        assert ours.id == (theirs["id"] or ours.id)
    assert reply.usage == _usage(expected["usage"])


def _finish_reason(expected: Mapping[str, Any]) -> str:
    if expected.get("calls"):
        return "tool_calls"
    return "refusal" if expected.get("refusal") else expected["finish_reason"]


def _usage(expected: Mapping[str, int] | None) -> Usage | None:
    if expected is None:
        return None
    return Usage(
        input_tokens=expected["input"],
        output_tokens=expected["output"],
        total_tokens=expected["total"],
        cached_tokens=expected.get("cached", 0),
        reasoning_tokens=expected.get("reasoning", 0),
    )


def signed(request: Request, auth: Auth, now: float = 0.0) -> Request:
    """Return `request` with the credentials of `auth`; fails if `auth` requests a token first."""
    try:
        next(auth.flow(request, now))
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the flow requests a token")


def sent_json(request: Request) -> dict[str, Any]:
    """Return the decoded body of a request."""
    return json.loads(request.content)


def frames_of(codec: Codec, chunks: Iterable[bytes]) -> list[Frame]:
    """Return the frames of a streamed body that arrives in these chunks."""
    framing = codec.framing()
    frames = [frame for chunk in chunks for frame in framing.feed(chunk)]
    return frames + framing.close()


def read_frames(codec: Codec, frames: Iterable[Frame], prefix: str = "1") -> tuple[ReplyBuilder, list[Event]]:
    """Feed frames through codec and builder. `builder.done` is None if the stream did not end."""
    state, builder = codec.new_state(), ReplyBuilder(prefix)
    events: list[Event] = []
    for frame in frames:
        for delta in codec.parse_event(state, frame.data, frame.event):
            events.extend(builder.add(delta))
    for delta in codec.finish(state):
        events.extend(builder.add(delta))
    return builder, events


def read_pieces(codec: Codec, pieces: Iterable[bytes], prefix: str = "1") -> tuple[Reply, list[Event]]:
    """Return reply and events of a streamed body that arrives in these pieces; fails if the stream did not end."""
    builder, events = read_frames(codec, frames_of(codec, pieces), prefix)
    assert builder.done is not None, "the stream has no end"
    return builder.reply(codec.model_id), events


def read_stream(codec: Codec, content: bytes, prefix: str = "1") -> Reply:
    """Return the reply of a whole streamed body; fails if the stream did not end."""
    return read_pieces(codec, [content], prefix)[0]


def assert_cuts_do_not_matter(codec: Codec, content: bytes) -> None:
    """Assert that frames and reply are the same wherever the bytes are cut.

    A codec sees only frames, so equal frames at every cut give equal replies; the reply is built for a few cuts.
    """
    frames = frames_of(codec, [content])
    reply = read_stream(codec, content)
    for cut in range(len(content) + 1):
        assert frames_of(codec, [content[:cut], content[cut:]]) == frames, cut
    for size in (1, 2, 3, 7, 64):
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        builder, _ = read_frames(codec, frames_of(codec, pieces))
        assert builder.reply(codec.model_id) == reply, size
