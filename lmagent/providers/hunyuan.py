"""Tencent Hunyuan: the cloud API `ChatCompletions`, the first API of 2023, and their signatures.

Cloud API: names are in PascalCase and tool schemas are text. A reply is wrapped in `Response`, a streamed one is not;
an error before a stream starts is an HTTP 200 with JSON. The endpoint that speaks OpenAI's dialect is in
`openai.variants`. Wire reference: docs/providers/hunyuan.md.

First API (`Hyllm...`): credentials in the body, HMAC-SHA1 over the body's text in `Authorization`, no system role, no
tools. The provider has switched it off. It is kept for private copies of the service and for replayed recordings, so
that `hunyuan/v1` keeps its meaning.

Over 400 lines because the two dialects of one provider are read side by side, each with its signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from lmagent import errors
from lmagent.core.events import Delta, ReasoningDelta, TextDelta
from lmagent.core.json_text import JSON, dumps, dumps_text, loads
from lmagent.core.messages import AssistantMessage, ImagePart, Message, TextPart, ToolMessage, UserMessage
from lmagent.core.redaction import Secret
from lmagent.providers.base import (
    ChatCall,
    EventCodec,
    Fault,
    Features,
    NamedTool,
    ParameterRule,
    ReplyState,
    Request,
    SigningAuth,
    error_for_status,
)
from lmagent.providers.conversation import (
    NO_OUTPUT,
    TextOnlyCodec,
    messages_of,
    settled,
    split_system,
    text_only,
    tools_as_text,
    turns,
)
from lmagent.providers.fields import (
    CallPieces,
    arguments_text,
    by_code,
    class_of,
    ended,
    mapping,
    objects,
    switched,
    text,
    usage_of,
    within,
)
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import ToolSpec

__all__ = [
    "BASE_URL", "HunyuanCodec", "HunyuanState", "HyllmAuth", "HyllmCodec", "TC3Auth", "obeys_tools", "signed_text",
]  # fmt: skip

_ALGORITHM = "TC3-HMAC-SHA256"


class TC3Auth(SigningAuth):
    """Signs body, content type and host of a request with `TC3-HMAC-SHA256`.

    Args:
        secret_id: Id of the cloud key (`AKID…`).
        secret_key: Secret of the cloud key.
        token: Session token of a temporary key.
        service: The cloud product that the signature is for.
    """

    def __init__(
        self, secret_id: Secret, secret_key: Secret, *, token: Secret | None = None, service: str = "hunyuan"
    ) -> None:
        self.secret_id = secret_id
        self.secret_key = secret_key
        self.token = token
        self.service = service

    def signed(self, request: Request, now: float) -> Request:
        headers = {name.lower(): value for name, value in request.headers.items()}
        timestamp = int(now)
        date = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
        address = urlsplit(request.url)
        canonical = (
            f"{request.method}\n{address.path or '/'}\n\n"
            f"content-type:{headers['content-type']}\nhost:{address.netloc}\n\n"
            f"content-type;host\n{hashlib.sha256(request.content).hexdigest()}"
        )
        scope = f"{date}/{self.service}/tc3_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = b"TC3" + self.secret_key.reveal().encode()
        for part in (date, self.service, "tc3_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, f"{_ALGORITHM}\n{timestamp}\n{scope}\n{digest}".encode(), "sha256").hex()
        signed = {
            "x-tc-timestamp": str(timestamp),
            "authorization": (
                f"{_ALGORITHM} Credential={self.secret_id.reveal()}/{scope}, "
                f"SignedHeaders=content-type;host, Signature={signature}"
            ),
        }
        if self.token:
            signed["x-tc-token"] = self.token.reveal()
        return request.with_headers(**signed)


BASE_URL = VENDORS["hunyuan"].api("tc3").address

_VERSION = "2023-09-01"

_WITHOUT_TOOLS = re.compile(r"-(lite|standard|code|role|translation|vision)\b")
"""Models that ignore `Tools`. The provider's pages contradict each other; `tools=` overrides it."""
_IMAGE_MARK = "vision"

_ERRORS = by_code(
    (errors.AuthenticationFailed, "AuthFailure"),
    (errors.PermissionDenied, "AuthFailure.UnauthorizedOperation UnauthorizedOperation OperationDenied"),
    (errors.PermissionDenied, "FailedOperation.ServiceNotActivated FailedOperation.ServiceStop"),
    (errors.PermissionDenied, "FailedOperation.UserUnAuthError"),
    (errors.ContentFiltered, "OperationDenied.TextIllegalDetected OperationDenied.ImageIllegalDetected"),
    (errors.RateLimited, "RequestLimitExceeded LimitExceeded"),
    (errors.ServerFailed, "FailedOperation FailedOperation.EngineServerError FailedOperation.ConsoleServerError"),
    (errors.ServerFailed, "InternalError"),
    (errors.Overloaded, "FailedOperation.EngineServerLimitExceeded ServiceUnavailable"),
    (errors.RequestTimeout, "FailedOperation.EngineRequestTimeout"),
    (errors.QuotaExceeded, "FailedOperation.ResourcePackExhausted FailedOperation.FreeResourcePackExhausted"),
    (errors.QuotaExceeded, "FailedOperation.ServiceStopArrears ResourceInsufficient.ChargeResourceExhaust"),
    (errors.QuotaExceeded, "ResourceUnavailable.InArrears ResourceUnavailable.LowBalance"),
    (errors.BadRequest, "InvalidParameter InvalidParameterValue MissingParameter UnknownParameter"),
    (errors.BadRequest, "UnsupportedOperation RequestSizeLimitExceeded"),
    (errors.NotFound, "InvalidParameterValue.Model InvalidAction ResourceNotFound"),
    # `ErrorMsg.Code` inside a stream
    (errors.ServerFailed, "4000"),
    (errors.RequestTimeout, "4001"),
)
"""Code -> class; the fallback of `A.B.C` is `A.B`, then `A`."""


@dataclass(slots=True)
class HunyuanState(ReplyState):
    """One stream: the slot of each call and the pieces of the calls."""

    slots: dict[str, int] = field(default_factory=dict[str, int])
    at_index: dict[int, int] = field(default_factory=dict[int, int])
    calls: CallPieces = field(default_factory=CallPieces)


class HunyuanCodec(EventCodec):
    """The cloud API `ChatCompletions`.

    Args:
        model: Model name, such as `"hunyuan-turbos-latest"`.
        base_url: Scheme and host.
        region: Value of the header `X-TC-Region`, rarely needed.
        language: Language of error messages: `"zh-CN"` or `"en-US"`.
        tools: Whether the model obeys `Tools`; None: by its name.
        images: Whether the model takes images; None: by its name.
        max_messages: Longest history that the API takes; None leaves the check to the server.
    """

    provider = "hunyuan"
    state_class = HunyuanState

    def __init__(
        self,
        model: str,
        *,
        base_url: str = BASE_URL,
        region: str | None = None,
        language: str | None = None,
        tools: bool | None = None,
        images: bool | None = None,
        max_messages: int | None = 40,
    ) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.max_messages = max_messages
        has_tools = obeys_tools(model) if tools is None else tools
        self.features = Features(
            tools=has_tools,
            parallel_calls=has_tools,
            stream_tools=has_tools,
            tool_choice=frozenset({"auto", "none", "named"} if has_tools else ()),
            images=_IMAGE_MARK in model if images is None else images,
            json_schema="none",
            reasoning=model.startswith(("hunyuan-t1", "hunyuan-a13b")),
        )
        options = {"x-tc-region": region, "x-tc-language": language}
        self._headers = {
            "x-tc-action": "ChatCompletions",
            "x-tc-version": _VERSION,
            **{name: value for name, value in options.items() if value},
        }

    def build_request(self, call: ChatCall) -> Request:
        body: dict[str, Any] = {"Model": self.model, "Messages": self._messages(messages_of(call))}
        if call.stream:
            body["Stream"] = True
        if call.tools and (self.features.tools or call.tool_choice != "none"):
            body |= self._tools(call)
        body |= self.render_parameters(call.parameters, _PARAMETERS)
        return self.post(f"{self.base_url}/", dumps(body), call, headers=self._headers)

    def _messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        system, others = split_system(messages)
        if not self.features.images:
            others = text_only(others, self.refuse)
        others = settled(others) if self.features.tools else tools_as_text(others)
        rendered = [self._message(message) for message in turns(others, user_behind_result=False)]
        if system:
            rendered.insert(0, {"Role": "system", "Content": system})
        self.refuse_longer(len(rendered), self.max_messages)
        return rendered

    def _message(self, message: Message) -> dict[str, Any]:
        match message:
            case ToolMessage():
                content = message.content if message.content.strip() else NO_OUTPUT
                return {"Role": "tool", "Content": content, "ToolCallId": message.tool_call_id}
            case AssistantMessage():
                # `ReasoningContent` is never sent back: the API answers it with an error.
                turn: dict[str, Any] = {"Role": "assistant", "Content": message.content}
                if message.tool_calls:
                    turn["ToolCalls"] = [
                        {
                            "Id": call.id,
                            "Type": "function",
                            "Function": {"Name": call.name, "Arguments": call.arguments},
                        }
                        for call in message.tool_calls
                    ]
                return turn
            case UserMessage(content=str(text)):
                return {"Role": "user", "Content": text}
            case UserMessage(content=tuple(parts)):
                return {"Role": "user", "Contents": [self._part(part) for part in parts]}
            case _:
                raise self.refuse(f"a {message.role} message here")

    def _part(self, part: object) -> dict[str, Any]:
        match part:
            case TextPart(text=text):
                return {"Type": "text", "Text": text}
            case ImagePart():
                return {"Type": "image_url", "ImageUrl": {"Url": part.data_url}}
            case _:
                raise self.refuse("a user message with a file")

    def _tools(self, call: ChatCall) -> dict[str, Any]:
        if not self.features.tools:
            raise self.refuse(f"tools for {self.model!r}")
        choice = self.choice_of(call)
        tools = [_tool_out(tool) for tool in call.tools]
        if isinstance(choice, NamedTool):
            chosen = next(tool for tool in tools if tool["Function"]["Name"] == choice.name)
            return {"Tools": tools, "ToolChoice": "custom", "CustomTool": chosen}
        return {"Tools": tools} if choice == "auto" else {"Tools": tools, "ToolChoice": choice}

    def request_id_of(self, body: dict[str, Any]) -> Any:
        return mapping(body.get("Response", body)).get("RequestId")

    def read(self, state: HunyuanState, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        response = mapping(body.get("Response", body))
        choices = objects(response.get("Choices"))
        for choice in [choices[0]] if whole else choices[:1]:
            message = choice.get("Delta") or (choice["Message"] if whole else choice.get("Message"))
            yield from _deltas(state, mapping(message))
            reason = text(choice.get("FinishReason"))
            if whole or reason:
                state.ended = True
                yield from state.calls.end()
                usage = usage_of(response.get("Usage"), "PromptTokens", "CompletionTokens", "TotalTokens")
                yield ended(reason or "stop", body, usage=usage, response_id=response.get("Id"))

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        answer = mapping(body.get("Response", body))
        fault = mapping(answer.get("Error") or answer.get("ErrorMsg"))
        if not fault and status < 400:
            return None
        code = str(fault.get("Code") or "")
        kind = class_of(code, _ERRORS) or error_for_status(status)
        ids = (answer.get("RequestId"), headers.get("x-tc-requestid"))
        return Fault(kind, fault.get("Message") or fault.get("Msg"), code, ids)


def obeys_tools(model: str) -> bool:
    """Whether a model of this name is known to have function calls."""
    return not _WITHOUT_TOOLS.search(model)


def _tool_out(tool: ToolSpec) -> dict[str, Any]:
    known = tool.encoded.get("hunyuan")
    if known is None:
        function = {"Name": tool.name, "Parameters": dumps_text(dict(tool.parameters))}
        if tool.description:
            function["Description"] = tool.description
        known = tool.encoded["hunyuan"] = {"Type": "function", "Function": function}
    return known


def _deltas(state: HunyuanState, message: dict[str, Any]) -> Iterator[Delta]:
    if thought := text(message.get("ReasoningContent")):
        yield ReasoningDelta(thought)
    if content := text(message.get("Content")):
        yield TextDelta(content)
    for call in objects(message.get("ToolCalls")):
        function = mapping(call.get("Function"))
        named = {"id": text(call.get("Id")), "name": text(function.get("Name"))}
        yield state.calls.piece(_slot(state, call), named, arguments_text(function.get("Arguments")))


def _slot(state: HunyuanState, call: dict[str, Any]) -> int:
    """Return the slot of a call. The id identifies it: every call may have index 0."""
    index = call.get("Index")
    if call.get("Id"):
        slot = state.slots.setdefault(call["Id"], len(state.slots))
        state.at_index[index if isinstance(index, int) else slot] = slot
        return slot
    if isinstance(index, int) and index in state.at_index:
        return state.at_index[index]
    if index is None and state.slots:
        return len(state.slots) - 1
    slot = state.slots.setdefault(f" {index}", len(state.slots))
    state.at_index[index if isinstance(index, int) else slot] = slot
    return slot


_PARAMETERS: dict[str, ParameterRule] = {
    "temperature": "Temperature",
    "top_p": "TopP",
    "stop": "Stop",
    "seed": within("seed", 1, 10000, wire="Seed"),
    "reasoning_effort": switched("EnableThinking"),
    "enable_enhancement": "EnableEnhancement",
    "force_search_enhancement": "ForceSearchEnhancement",
    "search_info": "SearchInfo",
    "citation": "Citation",
    "enable_speed_search": "EnableSpeedSearch",
    "enable_deep_search": "EnableDeepSearch",
    "enable_multimedia": "EnableMultimedia",
    "web_search_options": "WebSearchOptions",
    "enable_thinking": "EnableThinking",
    "stream_moderation": "StreamModeration",
}


HYLLM_URL = VENDORS["hunyuan"].api("hyllm").address

_LIFETIME_S = 86400
_WORDS = (
    (("authori", "signature", "secret", "鉴权", "签名"), errors.AuthenticationFailed),
    (("quota", "arrear", "balance", "欠费", "余额"), errors.QuotaExceeded),
    (("limit", "frequen", "concurren", "too many", "频率", "并发"), errors.RateLimited),
    (("internal", "server error", "timeout", "内部"), errors.ServerFailed),
)
"""Words of a message -> class; the provider never published a table of codes."""


class HyllmAuth(SigningAuth):
    """Puts the credentials into the body and signs its text.

    Args:
        app_id: The account's number.
        secret_id: Id of the cloud key.
        secret_key: Secret of the cloud key.
        new_query_id: Makes the id of one request.
    """

    def __init__(
        self,
        app_id: int,
        secret_id: Secret,
        secret_key: Secret,
        *,
        new_query_id: Callable[[], str] = lambda: f"query_id_{uuid.uuid4()}",
    ) -> None:
        self.app_id = app_id
        self.secret_id = secret_id
        self.secret_key = secret_key
        self._new_query_id = new_query_id

    def signed(self, request: Request, now: float) -> Request:
        timestamp = int(now)
        body = {
            "app_id": self.app_id,
            "secret_id": self.secret_id.reveal(),
            "query_id": self._new_query_id(),
            **loads(request.content),
            "timestamp": timestamp,
            "expired": timestamp + _LIFETIME_S,
        }
        signature = hmac.digest(self.secret_key.reveal().encode(), signed_text(request.url, body).encode(), "sha1")
        return replace(request, content=dumps(body)).with_headers(authorization=base64.b64encode(signature).decode())


def signed_text(url: str, body: Mapping[str, Any]) -> str:
    """Return the text to sign: host, path and the sorted body.

    Messages are not escaped, as in the provider's sample, so quotes inside a message are ambiguous.
    """
    address = urlsplit(url)
    pairs = "&".join(f"{name}={_as_text(body[name])}" for name in sorted(body))
    return f"{address.netloc}{address.path}?{pairs}"


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        turns = [f'{{"role":"{turn["role"]}","content":"{turn["content"]}"}}' for turn in objects(value)]  # pyright: ignore[reportUnknownArgumentType]
        return f"[{','.join(turns)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


class HyllmCodec(TextOnlyCodec):
    """Hunyuan's API of 2023.

    Args:
        model: A name for the model id; the API has one model and no name for it.
        base_url: Up to `/v1`.
    """

    provider = "hunyuan"
    max_messages = 40

    def __init__(self, model: str = "v1", *, base_url: str = HYLLM_URL) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")

    def build_request(self, call: ChatCall) -> Request:
        body = {
            "messages": self.turns(call),
            "stream": int(call.stream),
            **self.render_parameters(call.parameters, _HYLLM_PARAMETERS),
        }
        return self.post(f"{self.base_url}/chat/completions", dumps(body), call)

    def request_id_of(self, body: dict[str, Any]) -> Any:
        return body.get("req_id")

    def read(self, state: ReplyState, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        choices = objects(body.get("choices"))
        for choice in [choices[0]] if whole else choices[:1]:
            # In a complete answer the field is `messages`, an object.
            message = mapping(choice.get("delta") or choice.get("messages") or choice.get("message"))
            if content := text(message["content"] if whole else message.get("content")):
                yield TextDelta(content)
            reason = text(choice.get("finish_reason"))
            if whole or reason:
                state.ended = True
                yield ended(reason or "stop", body, usage=usage_of(body.get("usage")), response_id=body.get("id"))

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        if not body.get("error") and status < 400:
            return None
        fault = mapping(body.get("error"))
        message = str(fault.get("message") or text)
        by_words = (kind for words, kind in _WORDS if any(word in message.lower() for word in words))
        return Fault(next(by_words, error_for_status(status)), message, fault.get("code"), (body.get("req_id"),))


_HYLLM_PARAMETERS: dict[str, ParameterRule] = {"temperature": "temperature", "top_p": "top_p"}
