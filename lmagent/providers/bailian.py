"""Alibaba's DashScope (Bailian, Model Studio; the Qwen models) in its own dialect: text and multimodal generation.

Streams come in pieces or with the whole text repeated in each event; finish reasons are the text `"null"` until the
end. The compatible mode is a profile in `compatible.py`, the old app API is in `bailian_app.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmagent.core.events import Delta, Done, ReasoningDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps, dumps_text
from lmagent.core.messages import (
    AssistantMessage,
    FinishReason,
    ImagePart,
    Message,
    Part,
    Reply,
    SystemMessage,
    TextPart,
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
    ParameterError,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.base import (
    ChatCall,
    Codec,
    Features,
    NamedTool,
    ParameterRule,
    Request,
    class_of,
    error_for_status,
    joined,
)
from lmagent.providers.conversation import (
    RAW_ARGUMENTS,
    answered,
    arguments_object,
    fitting_ids,
    messages_of,
    split_system,
    text_only,
    turns,
)
from lmagent.providers.fields import arguments_text, mapping, object_of, objects, same, switched, text, usage_of, within
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import ToolSpec

__all__ = ["BASE_URL", "BailianCodec", "BailianState", "bailian_error_class"]

_ERRORS: dict[str, type[ProviderError]] = {
    "InvalidApiKey": AuthenticationFailed,
    "InvalidParameter": BadRequest,
    "InvalidURL": BadRequest,
    "BadRequest": BadRequest,
    "DataInspectionFailed": ContentFiltered,
    "Arrearage": QuotaExceeded,
    "PrepaidBillOverdue": QuotaExceeded,
    "PostpaidBillOverdue": QuotaExceeded,
    "CommodityNotPurchased": QuotaExceeded,
    "AllocationQuota.FreeTierOnly": QuotaExceeded,
    "AccessDenied": PermissionDenied,
    "Model.AccessDenied": PermissionDenied,
    "App.AccessDenied": PermissionDenied,
    "Workspace.AccessDenied": PermissionDenied,
    "ModelNotFound": NotFound,
    "WorkSpaceNotFound": NotFound,
    "Throttling": RateLimited,
    "InternalError": ServerFailed,
    "InternalError.Algo.InvalidParameter": BadRequest,
    "InternalError.Timeout": RequestTimeout,
    "RequestTimeOut": RequestTimeout,
    "ResponseTimeout": RequestTimeout,
    "ModelServingError": Overloaded,
    "ModelServiceFailed": ServerFailed,
    "ModelUnavailable": Overloaded,
}
"""Code -> class; `A.B` falls back to `A`."""

_TOO_LONG = re.compile(r"range of input length|maximum context|input.*too long", re.IGNORECASE)
_FREE_QUOTA = re.compile(r"\bfree\b|免费", re.IGNORECASE)


def bailian_error_class(code: str, message: str) -> type[ProviderError] | None:
    """Return the class of a native code; None when it is not known."""
    kind = class_of(code, _ERRORS)
    if kind is RateLimited and "AllocationQuota" in code and _FREE_QUOTA.search(message):
        return QuotaExceeded  # tokens per minute come back, the free quota does not
    return ContextTooLong if kind is BadRequest and _TOO_LONG.search(message) else kind


BASE_URL = VENDORS["bailian"].api("native").address

_TEXT_PATH = "/services/aigc/text-generation/generation"
_MULTIMODAL_PATH = "/services/aigc/multimodal-generation/generation"
_MULTIMODAL = re.compile(r"-vl|-omni|^qvq|^qwen3\.[5-9]|^qwen[4-9]")
"""Names of models that live on the multimodal path; it changes often, so it can be overridden."""


_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


@dataclass(slots=True)
class BailianState:
    """One stream. In a stream that repeats itself, what was seen so far is what the next event is compared with."""

    cumulative: bool = False
    content: str = ""
    reasoning: str = ""
    arguments: dict[int, str] = field(default_factory=dict[int, str])
    named: set[int] = field(default_factory=set[int])
    filled: set[int] = field(default_factory=set[int])
    calls: set[int] = field(default_factory=set[int])
    done: bool = False


class BailianCodec(Codec):
    """DashScope's generation API.

    Args:
        model: Model name, such as `"qwen-plus"`.
        base_url: Up to `/api/v1`; each region has its own, and its own keys.
        incremental: Whether streams come in pieces. False: each event repeats the text (the API's own default, which
            newer models refuse).
        result_format: `"message"`; None leaves it to the model, and old ones then answer with bare text.
        multimodal: Whether the model lives on the multimodal path and takes images; None: by its name.
        workspace: Id of a workspace, for keys that have several.
    """

    provider = "bailian"

    def __init__(
        self,
        model: str,
        *,
        base_url: str = BASE_URL,
        incremental: bool = True,
        result_format: str | None = "message",
        multimodal: bool | None = None,
        workspace: str | None = None,
    ) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.incremental = incremental
        self.result_format = result_format
        self.multimodal = bool(_MULTIMODAL.search(model)) if multimodal is None else multimodal
        self.features = Features(
            tool_choice=frozenset({"auto", "none", "named"}),
            images=self.multimodal,
            json_schema="object",
            reasoning=True,
        )
        self._headers = {"content-type": "application/json; charset=utf-8", "accept": "application/json; charset=utf-8"}
        if workspace:
            self._headers["x-dashscope-workspace"] = workspace
        self._key = f"bailian|{self.multimodal}"

    def build_request(self, call: ChatCall) -> Request:
        given = dict(call.parameters)
        extra = dict(given.pop("extra_body", None) or {})
        parameters: dict[str, Any] = {} if self.result_format is None else {"result_format": self.result_format}
        headers = self._headers
        if call.stream:
            headers = {**headers, "accept": "text/event-stream", "x-dashscope-sse": "enable"}
            if self.incremental:
                parameters["incremental_output"] = True
        if call.output_schema is not None:
            # JSON mode is refused unless a message speaks of JSON, so the schema is told in words as well.
            parameters["response_format"] = {"type": "json_object"}
        if call.tools:
            parameters |= self._choice(call)
        parameters |= self.render_parameters(given, _PARAMETERS)
        parameters |= mapping(extra.pop("parameters", None))
        inner = joined(mapping(extra.pop("input", None)), {"messages": self._messages(messages_of(call))})
        tools = (
            {"tools": [_tool_bytes(tool) for tool in call.tools]} if call.tools and "tools" not in parameters else {}
        )
        head = dumps({"model": self.model, **extra})[:-1]
        content = b"".join((head, b',"input":', inner, b',"parameters":', joined(parameters, tools), b"}"))
        path = _MULTIMODAL_PATH if self.multimodal else _TEXT_PATH
        return self.post(self.base_url + path, content, call, headers=headers)

    def _choice(self, call: ChatCall) -> dict[str, Any]:
        names = [tool.name for tool in call.tools]
        match call.tool_choice:
            case "auto":
                return {}
            case "none":
                return {"tool_choice": "none"}
            case "required" if len(names) == 1:
                return {"tool_choice": {"type": "function", "function": {"name": names[0]}}}
            case NamedTool(name=name) if name in names:
                return {"tool_choice": {"type": "function", "function": {"name": name}}}
            case _:
                raise ParameterError(
                    f"bailian has no tool_choice={call.tool_choice!r}: it takes 'auto', 'none' or the name of one of "
                    f"the tools {names}."
                )

    def _messages(self, messages: Sequence[Message]) -> list[bytes]:
        system, others = split_system(messages)
        if not self.multimodal:
            others = text_only(others, self.refuse)
        ordered = turns(fitting_ids(answered(others))) if others else []
        if not ordered:
            ordered = [UserMessage(system)]
        elif system:
            first = messages[0]
            # The same object when there is one system message, so that its bytes are kept.
            alone = isinstance(first, SystemMessage) and first.content == system
            ordered.insert(0, first if alone else SystemMessage(system))
        return [message.wire.get(self._key) or self._encode(message) for message in ordered]

    def _encode(self, message: Message) -> bytes:
        match message:
            case SystemMessage():
                body: dict[str, Any] = {"role": "system", "content": self._content(message.content)}
            case UserMessage():
                body = {"role": "user", "content": self._content(message.content)}
            case AssistantMessage():
                body = {"role": "assistant", "content": self._content(message.content)}
                if message.tool_calls:
                    body["tool_calls"] = [_call_out(call) for call in message.tool_calls]
            case ToolMessage():
                body = {"role": "tool", "tool_call_id": message.tool_call_id, "content": self._content(message.content)}
                if message.name:
                    body["name"] = message.name  # the early API joins by name
        message.wire[self._key] = encoded = dumps(body)
        return encoded

    def _content(self, content: str | tuple[Part, ...]) -> str | list[dict[str, str]]:
        if isinstance(content, str):
            return [{"text": content}] if self.multimodal else content
        return [self._part(part) for part in content]

    def _part(self, part: Part) -> dict[str, str]:
        match part:
            case TextPart():
                return {"text": part.text}
            case ImagePart():
                return {"image": part.data_url}
            case _:
                raise self.refuse("a user message with a file")

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        builder = ReplyBuilder(prefix)
        with self.reading(body):
            state = BailianState()
            output = body["output"]
            choice = output["choices"][0] if output.get("choices") else output
            for delta in _deltas(state, choice["message"] if "message" in choice else {"content": choice["text"]}):
                builder.add(delta)
            for delta in _end(state, _reason(choice) or "stop", body):
                builder.add(delta)
            return builder.reply(self.model_id, request_id=body.get("request_id"))

    def new_state(self) -> BailianState:
        return BailianState(cumulative=not self.incremental)

    def parse_event(self, state: BailianState, data: bytes, event: str = "") -> Iterable[Delta]:
        if state.done or data.strip() == b"[DONE]":
            return ()
        chunk = object_of(self, data)
        if event == "error" or "output" not in chunk:
            self.check(chunk)
        with self.reading(chunk):
            return list(self._chunk(state, chunk))

    def _chunk(self, state: BailianState, chunk: dict[str, Any]) -> Iterator[Delta]:
        output = mapping(chunk.get("output"))
        for choice in (objects(output.get("choices")) or [output])[:1]:
            reason = _reason(choice)
            message = mapping(choice.get("message") or {"content": choice.get("text")})
            yield from _deltas(state, message, last=bool(reason))
            if reason and not state.done:
                state.done = True
                yield from _end(state, reason, chunk)

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        answer = mapping(body)
        inner = mapping(answer.get("error")) or answer
        code = str(inner.get("code") or "")
        if status < 400 and (not code or code in ("200", "Success") or "output" in answer):
            return None
        message = str(inner.get("message") or text)
        return self.failure(
            bailian_error_class(code, message) or error_for_status(status),
            message,
            status=status,
            headers=headers,
            body=body,
            code=code,
            request_ids=(answer.get("request_id"), headers.get("x-request-id")),
        )


def _reason(choice: Mapping[str, Any]) -> str:
    """Return the finish reason; until the end it is the text `"null"`."""
    reason = text(choice.get("finish_reason"))
    return "" if reason == "null" else reason


def _deltas(state: BailianState, message: Mapping[str, Any], *, last: bool = True) -> Iterator[Delta]:
    thought = text(message.get("reasoning_content"))
    content = _flat(message.get("content"))
    if state.cumulative:
        state.reasoning, thought = _grown(state.reasoning, thought, last)
        state.content, content = _grown(state.content, content, last)
    if thought:
        yield ReasoningDelta(thought)
    if content:
        yield TextDelta(content)
    for position, call in enumerate(objects(message.get("tool_calls"))):
        index = call.get("index")
        index = index if isinstance(index, int) else position
        function = mapping(call.get("function"))
        arguments = arguments_text(function.get("arguments"))
        if state.cumulative:
            state.arguments[index], arguments = _grown(state.arguments.get(index, ""), arguments, last)
        state.calls.add(index)
        # Continuations have an empty id and name, events that repeat themselves have both again.
        name = "" if index in state.named else text(function.get("name"))
        if name:
            state.named.add(index)
        if arguments.strip():
            state.filled.add(index)
        yield ToolCallDelta(index, text(call.get("id")), name, arguments)


def _grown(before: str, now: str, last: bool) -> tuple[str, str]:
    """Return what is known now and what is new in it; a character that was cut in half waits until it is whole."""
    whole = now if last else now.rstrip("\ufffd")
    return (whole, whole[len(before) :]) if len(whole) > len(before) else (before, "")


def _flat(content: object) -> str:
    if isinstance(content, list):
        return "".join(text(part.get("text")) for part in objects(content))  # pyright: ignore[reportUnknownArgumentType]
    return text(content)


def _end(state: BailianState, reason: str, body: dict[str, Any]) -> Iterator[Delta]:
    for index in sorted(state.calls - state.filled):
        yield ToolCallDelta(index, arguments="{}")
    yield Done(
        finish_reason=_FINISH.get(reason, "other"),
        raw_finish_reason=reason,
        usage=_usage(body.get("usage")),
        response_id=body.get("request_id"),
        raw=body,
    )


def _usage(counts: object) -> Usage | None:
    usage = usage_of(counts, "input_tokens", "output_tokens", "total_tokens")
    if usage is None:
        return None
    details = mapping(counts)
    return replace(
        usage,
        cached_tokens=int(mapping(details.get("prompt_tokens_details")).get("cached_tokens") or 0),
        reasoning_tokens=int(mapping(details.get("output_tokens_details")).get("reasoning_tokens") or 0),
    )


def _call_out(call: ToolCall) -> dict[str, Any]:
    """Arguments that are no JSON are refused, so broken ones travel inside an object."""
    value = arguments_object(call.arguments)
    lossless = RAW_ARGUMENTS not in value and call.arguments.strip()
    arguments = call.arguments if lossless else dumps_text(value)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool_bytes(tool: ToolSpec) -> bytes:
    known = tool.encoded.get("bailian")
    if known is None:
        described = {"description": tool.description} if tool.description else {}
        function = {"name": tool.name, **described, "parameters": dict(tool.parameters)}
        known = tool.encoded["bailian"] = dumps({"type": "function", "function": function})
    return known


_PARAMETERS: dict[str, ParameterRule] = {
    "temperature": within("temperature", 0, 2, sent=(0, 1.99)),
    "top_p": within("top_p", 0, 1, sent=(0.01, 1)),
    "n": within("n", 1, 4),
    "reasoning_effort": switched("enable_thinking"),  # `thinking_budget` says how long
    **same(
        "top_k",
        "max_tokens",
        "seed",
        "stop",
        "presence_penalty",
        "repetition_penalty",
        "parallel_tool_calls",
        "logprobs",
        "top_logprobs",
        "enable_search",
        "search_options",
        "enable_thinking",
        "thinking_budget",
        "response_format",
    ),
}
