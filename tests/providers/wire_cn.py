"""Load and compare the wire cases of Chinese providers (`tests/wire/<provider>/NN-case.json`).

A case has `request` (as an SDK sent it), `volatile` (paths that are not compared), `response` (status, file) and
`expect` (the values that a client should read). Most cases are one of four conversations, defined here as messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lmagent.core.events import TextDelta
from lmagent.core.json_text import loads
from lmagent.core.messages import (
    AssistantMessage,
    Message,
    Reply,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.base import ChatCall, Codec, Request
from lmagent.toolkit.schema import ToolSpec
from tests.providers.wire import WIRE, read_pieces

GET_WEATHER = ToolSpec(
    name="get_weather",
    description="Look up the current weather of a city.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "City name, for example Hangzhou"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Temperature unit"},
        },
        "required": ["city"],
    },
)
SYSTEM = SystemMessage("You are a concise travel assistant.")
RIVER = UserMessage("Name one river in Zhejiang.")
CHAT: tuple[Message, ...] = (UserMessage("Hello"), AssistantMessage("Hello! How can I help?"), RIVER)
ASK: tuple[Message, ...] = (UserMessage("What is the weather in Hangzhou today?"),)
WEATHER_CALL = ToolCall(id="call_7f3a91c2_0", name="get_weather", arguments='{"city":"Hangzhou","unit":"celsius"}')
WEATHER = '{"city": "Hangzhou", "condition": "light rain", "temperature": 17}'
TOLD: tuple[Message, ...] = (
    *ASK,
    AssistantMessage("", (WEATHER_CALL,)),
    ToolMessage(WEATHER, WEATHER_CALL.id, "get_weather"),
)

ERRORS: dict[str, type[ProviderError]] = {
    "auth": AuthenticationFailed,
    "token_expired": AuthenticationFailed,
    "permission": PermissionDenied,
    "rate_limit": RateLimited,
    "quota": QuotaExceeded,
    "overloaded": Overloaded,
    "server": ServerFailed,
    "timeout": RequestTimeout,
    "invalid_request": BadRequest,
    "context_length": ContextTooLong,
    "content_filter": ContentFiltered,
    "not_found": NotFound,
}


@dataclass(frozen=True)
class Case:
    """One recorded exchange."""

    name: str
    request: dict[str, Any]
    status: int
    body: bytes
    """The bytes of the reply."""
    expect: dict[str, Any]
    volatile: tuple[str, ...]

    @property
    def json(self) -> Any:
        """The decoded reply, if it is one JSON value."""
        return loads(self.body)


@cache
def load(platform: str, name: str) -> Case:
    """Return a case by its file name without `.json`."""
    folder = WIRE / platform
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return Case(
        name=name,
        request=case.get("request") or {},
        status=case["response"]["status"],
        body=(folder / case["response"]["file"]).read_bytes(),
        expect=case.get("expect") or {},
        volatile=tuple(case.get("volatile") or ()),
    )


def names(platform: str) -> list[str]:
    """Return the names of all cases of a provider, so that a test can check that it covers them all."""
    return sorted(path.stem for path in (WIRE / platform).glob("*.json") if not path.name.endswith(".response.json"))


def chat(*messages: Message | tuple[Message, ...], **fields: Any) -> ChatCall:
    """Return a call of these messages; tuples of messages are unpacked. `tools=True` means `get_weather`."""
    flat: list[Message] = []
    for item in messages:
        flat.extend(item) if isinstance(item, tuple) else flat.append(item)
    if fields.get("tools") is True:
        fields["tools"] = (GET_WEATHER,)
    return ChatCall(messages=tuple(flat), **fields)


def assert_request(
    request: Request, case: Case, *, without: Iterable[str] = (), added: Iterable[str] = (), headers: bool = True
) -> None:
    """Assert that `request` equals the recorded one.

    Args:
        request: Ours, after the auth flow.
        case: The case.
        without: Dotted paths of body members of the recording that are documented SDK noise; ours must lack them.
        added: Dotted paths of members that we send and the recording lacks; ours must have them.
        headers: Whether to compare the recorded headers, except volatile ones and `accept` and `cache-control`, which
            servers ignore.
    """
    recorded = case.request
    assert request.method == recorded["method"]
    assert "?" not in request.url, "secrets travel in params, never in the url"
    assert request.url == recorded["url"]
    assert dict(request.params) == recorded.get("query", {})
    if headers:
        ours = {name.lower(): value for name, value in request.headers.items()}
        for name, value in recorded["headers"].items():
            if name in ("accept", "cache-control") or f"request.headers.{name}" in case.volatile:
                continue
            assert ours.get(name) == value, name
    body = json.loads(json.dumps(recorded["json"]))
    for path in (*without, *(path.removeprefix("request.json.") for path in case.volatile)):
        _remove(body, path.split("."))
    ours_body = json.loads(request.content) if request.content else None
    for path in added:
        assert path.split(".")[0] in ours_body, path
        _remove(ours_body, path.split("."))
    assert ours_body == body


def _remove(body: Any, path: list[str]) -> None:
    *parents, last = path
    for name in parents:
        body = (body or {}).get(name) if isinstance(body, dict) else None
    if isinstance(body, dict):
        body.pop(last, None)


def assert_reply(reply: Reply, case: Case) -> None:
    """Assert that a reply has the values that the case expects."""
    expect = case.expect
    assert reply.finish_reason == expect["finish_reason"]
    if "raw_finish_reason" in expect:
        assert reply.raw_finish_reason == expect["raw_finish_reason"]
    assert reply.reply == expect.get("text", "")
    assert reply.usage == Usage(**expect["usage"])
    calls = expect.get("calls", [])
    assert [call.name for call in reply.tool_calls] == [call["name"] for call in calls]
    assert [json.loads(call.arguments) for call in reply.tool_calls] == [call["arguments"] for call in calls]
    for ours, theirs in zip(reply.tool_calls, calls, strict=True):
        assert ours.id == theirs.get("id", ours.id)
        assert ours.id


def assert_error(error: ProviderError | None, case: Case) -> None:
    """Assert that an error has the class, code and message that the case expects."""
    assert error is not None
    assert type(error) is ERRORS[case.expect["class"]]
    if case.expect["class"] != "token_expired":  # refreshed by the auth, not retried by the transport
        assert error.retryable is case.expect["retryable"]
    assert error.code == str(case.expect["code"])
    assert case.expect.get("message", "").lower() in error.message.lower()


def assert_stream(codec: Codec, case: Case) -> Reply:
    """Assert that the stream of the case gives the expected reply and deltas wherever its bytes are cut."""
    body = case.body
    reply, events = read_pieces(codec, [body])
    assert_reply(reply, case)
    if "deltas" in case.expect:
        assert [event.text for event in events if isinstance(event, TextDelta)] == case.expect["deltas"]
    single = read_pieces(codec, [body[i : i + 1] for i in range(len(body))])
    assert single == (reply, events)
    for cut in range(1, len(body)):
        assert read_pieces(codec, [body[:cut], body[cut:]]) == (reply, events)
    return reply
