"""Alibaba's DashScope (Bailian, Model Studio; the Qwen models) in its own dialect: text and multimodal generation.

Streams come in pieces, or each event repeats the whole text; the finish reason is the text `"null"` until the end. The
compatible mode is a profile in `vendors`, the app API of 2023 is in `bailian_app`. Wire reference:
docs/providers/bailian.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmagent import errors
from lmagent.core.events import Delta, ReasoningDelta, TextDelta
from lmagent.core.json_text import JSON, dumps, dumps_text
from lmagent.core.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    Part,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import ProviderError
from lmagent.providers.base import (
    ChatCall,
    EventCodec,
    Fault,
    Features,
    NamedTool,
    ParameterRule,
    ReplyState,
    Request,
    error_for_status,
)
from lmagent.providers.conversation import (
    RAW_ARGUMENTS,
    arguments_object,
    messages_of,
    settled,
    split_system,
    text_only,
    turns,
)
from lmagent.providers.fields import (
    CallPieces,
    arguments_text,
    by_code,
    class_of,
    encoded,
    ended,
    joined,
    mapping,
    objects,
    same,
    switched,
    text,
    usage_of,
    within,
)
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import ToolSpec

__all__ = ["BASE_URL", "BailianCodec", "BailianState", "bailian_error_class"]

_ERRORS = by_code(
    (errors.AuthenticationFailed, "InvalidApiKey"),
    (errors.BadRequest, "InvalidParameter InvalidURL BadRequest InternalError.Algo.InvalidParameter"),
    (errors.ContentFiltered, "DataInspectionFailed"),
    (errors.QuotaExceeded, "Arrearage PrepaidBillOverdue PostpaidBillOverdue CommodityNotPurchased"),
    (errors.QuotaExceeded, "AllocationQuota.FreeTierOnly"),
    (errors.PermissionDenied, "AccessDenied Model.AccessDenied App.AccessDenied Workspace.AccessDenied"),
    (errors.NotFound, "ModelNotFound WorkSpaceNotFound"),
    (errors.RateLimited, "Throttling"),
    (errors.ServerFailed, "InternalError ModelServiceFailed"),
    (errors.RequestTimeout, "InternalError.Timeout RequestTimeOut ResponseTimeout"),
    (errors.Overloaded, "ModelServingError ModelUnavailable"),
)
"""Code -> class; the fallback of `A.B` is `A`."""

_TOO_LONG = re.compile(r"range of input length|maximum context|input.*too long", re.IGNORECASE)
_FREE_QUOTA = re.compile(r"\bfree\b|免费", re.IGNORECASE)


def bailian_error_class(code: str, message: str) -> type[ProviderError] | None:
    """Return the class of a native code; None if it is not known."""
    kind = class_of(code, _ERRORS)
    if kind is errors.RateLimited and "AllocationQuota" in code and _FREE_QUOTA.search(message):
        return errors.QuotaExceeded  # tokens per minute recover, the free quota does not
    return errors.ContextTooLong if kind is errors.BadRequest and _TOO_LONG.search(message) else kind


BASE_URL = VENDORS["bailian"].api("native").address

_DETAILS = {"cached_in": "prompt_tokens_details", "reasoning_in": "output_tokens_details"}
_TEXT_PATH = "/services/aigc/text-generation/generation"
_MULTIMODAL_PATH = "/services/aigc/multimodal-generation/generation"
_MULTIMODAL = re.compile(r"-vl|-omni|^qvq|^qwen3\.[5-9]|^qwen[4-9]")
"""Names of models on the multimodal path. The list changes often; `multimodal=` overrides it."""


@dataclass(slots=True)
class BailianState(ReplyState):
    """One stream. If each event repeats the text, the next event is compared with the text so far."""

    cumulative: bool = False
    content: str = ""
    reasoning: str = ""
    arguments: dict[int, str] = field(default_factory=dict[int, str])
    calls: CallPieces = field(default_factory=CallPieces)


class BailianCodec(EventCodec):
    """DashScope's generation API.

    Args:
        model: Model name, such as `"qwen-plus"`.
        base_url: Up to `/api/v1`; each region has its own, and its own keys.
        incremental: Whether streams come in pieces. False: each event repeats the text (the API's own default, which
            newer models refuse).
        result_format: `"message"`; None leaves it to the model, and old models then answer with bare text.
        multimodal: Whether the model is on the multimodal path and takes images; None: by its name.
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
            # JSON mode is refused unless a message mentions JSON, so the system text describes the schema as well.
            parameters["response_format"] = {"type": "json_object"}
        if call.tools:
            parameters |= self._choice(call)
        parameters |= self.render_parameters(given, _PARAMETERS)
        parameters |= mapping(extra.pop("parameters", None))
        inner = joined(mapping(extra.pop("input", None)), {"messages": self._messages(messages_of(call))})
        tools = (
            {"tools": [encoded(tool.encoded, "bailian", _tool, tool) for tool in call.tools]}
            if call.tools and "tools" not in parameters
            else {}
        )
        head = dumps({"model": self.model, **extra})[:-1]
        content = b"".join((head, b',"input":', inner, b',"parameters":', joined(parameters, tools), b"}"))
        path = _MULTIMODAL_PATH if self.multimodal else _TEXT_PATH
        return self.post(self.base_url + path, content, call, headers=headers)

    def _choice(self, call: ChatCall) -> dict[str, Any]:
        choice = self.choice_of(call)
        if isinstance(choice, NamedTool):
            return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
        return {} if choice == "auto" else {"tool_choice": choice}

    def _messages(self, messages: Sequence[Message]) -> list[bytes]:
        system, others = split_system(messages)
        if not self.multimodal:
            others = text_only(others, self.refuse)
        ordered = turns(settled(others)) if others else []
        if not ordered:
            ordered = [UserMessage(system)]
        elif system:
            first = messages[0]
            # The same object if there is one system message, so that its cached bytes are used.
            alone = isinstance(first, SystemMessage) and first.content == system
            ordered.insert(0, first if alone else SystemMessage(system))
        return [encoded(message.wire, self._key, self._message, message) for message in ordered]

    def _message(self, message: Message) -> dict[str, Any]:
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
                    body["name"] = message.name  # the early API matches results by name
        return body

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

    def new_state(self) -> BailianState:
        return BailianState(cumulative=not self.incremental)

    def request_id_of(self, body: dict[str, Any]) -> Any:
        return body.get("request_id")

    def read(self, state: BailianState, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        output = mapping(body["output"] if whole else body.get("output"))
        choice = (objects(output.get("choices")) or [output])[0]
        reason = text(choice.get("finish_reason"))
        if reason == "null":  # before the end
            reason = ""
        message = choice.get("message") or {"content": choice["text"] if whole else choice.get("text")}
        yield from _deltas(state, mapping(message), last=whole or bool(reason))
        if whole or reason:
            state.ended = True
            yield from state.calls.end()
            usage = usage_of(body.get("usage"), "input_tokens", "output_tokens", **_DETAILS)
            yield ended(reason or "stop", body, usage=usage, response_id=body.get("request_id"))

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        inner = mapping(body.get("error")) or body
        code = str(inner.get("code") or "")
        if status < 400 and (not code or code in ("200", "Success") or "output" in body):
            return None
        message = str(inner.get("message") or text)
        kind = bailian_error_class(code, message) or error_for_status(status)
        return Fault(kind, message, code, (body.get("request_id"), headers.get("x-request-id")))


def _deltas(state: BailianState, message: Mapping[str, Any], *, last: bool) -> Iterator[Delta]:
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
        # Continuations have an empty id and name; events that repeat the text repeat both.
        yield state.calls.piece(index, {"id": text(call.get("id")), "name": text(function.get("name"))}, arguments)


def _grown(before: str, now: str, last: bool) -> tuple[str, str]:
    """Return the text so far and its new part; a character that was cut in half waits until it is complete."""
    whole = now if last else now.rstrip("\ufffd")
    return (whole, whole[len(before) :]) if len(whole) > len(before) else (before, "")


def _flat(content: object) -> str:
    if isinstance(content, list):
        return "".join(text(part.get("text")) for part in objects(content))  # pyright: ignore[reportUnknownArgumentType]
    return text(content)


def _call_out(call: ToolCall) -> dict[str, Any]:
    """Return a call for the wire. Arguments that are not JSON are refused, so broken ones are put into an object."""
    value = arguments_object(call.arguments)
    lossless = RAW_ARGUMENTS not in value and call.arguments.strip()
    arguments = call.arguments if lossless else dumps_text(value)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": dict(tool.parameters)}}


_PARAMETERS: dict[str, ParameterRule] = {
    "temperature": within("temperature", 0, 2, sent=(0, 1.99)),
    "top_p": within("top_p", 0, 1, sent=(0.01, 1)),
    "n": within("n", 1, 4),
    "reasoning_effort": switched("enable_thinking"),  # `thinking_budget` sets how long
    **same("top_k max_tokens seed stop presence_penalty repetition_penalty parallel_tool_calls logprobs top_logprobs"),
    **same("enable_search search_options enable_thinking thinking_budget response_format"),
}
