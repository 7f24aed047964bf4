"""Anthropic's Messages dialect. Wire reference: docs/providers/anthropic.md.

Documented nearest values and defaults:

- The API requires `max_tokens`; the default is 4096 plus the thinking budget.
- Version 2026-10-21 and the newest models refuse `temperature`, `top_p` and `top_k`, so they are not sent to them.
  `AnthropicCodec(..., sampling=True)` always sends them, `False` never does.
- `reasoning_effort="minimal"` is sent as `low`, `"none"` as `thinking: {"type": "disabled"}`.
- Broken arguments in a history are sent as `{"_raw": text}`, because the API demands an object.
- If a history has calls and the call has no tools, the called tools are declared without a schema.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, cast

from lmagent.core.events import Delta
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    Part,
    Reply,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import ParameterError, ProviderError
from lmagent.providers.anthropic_reply import AnthropicReplyState, sort_error
from lmagent.providers.base import ChatCall, Codec, Features, NamedTool, ParameterRule, Request
from lmagent.providers.conversation import (
    BEGIN,
    CONTINUE,
    arguments_object,
    called_names,
    kept_items,
    settled,
    system_texts,
)
from lmagent.providers.fields import data_url, elsewhere, encoded, joined, mapping, same, within
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from lmagent.toolkit.schema_dialects import anthropic_strict, schema_as_text

__all__ = ["DEFAULT_MAX_TOKENS", "DEFAULT_URL", "DEFAULT_VERSION", "AnthropicCodec"]

DEFAULT_URL = VENDORS["anthropic"].api().address
DEFAULT_VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096

SAMPLING = frozenset({"temperature", "top_p", "top_k"})
NO_SAMPLING_VERSIONS = frozenset({"2026-10-21"})
NO_SAMPLING_MODELS = (
    "claude-opus-4-7*", "claude-opus-4-8*", "claude-opus-5*", "claude-sonnet-5*", "claude-haiku-5-5*",
    "claude-fable-5*", "claude-mythos-5*",
)  # fmt: skip
"""As known to other clients in November 2026. `sampling=` overrides it."""

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_KEY = "anthropic"
"""Key of the encoded bytes that are cached on messages and tools."""
_EFFORT = {"none": None, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_FORCED = {"required": "any", "none": "none", "auto": "auto"}


_PLACED = ("user", "metadata", "parallel_tool_calls", "reasoning_effort", "output_config", "prompt_cache", "betas")
_RULES: dict[str, ParameterRule] = {
    **same("top_p", "top_k", "max_tokens", "thinking", "service_tier", "cache_control"),
    "temperature": within("temperature", 0, 1),
    "stop": "stop_sequences",
    **dict.fromkeys(_PLACED, elsewhere),
}


class AnthropicCodec(Codec):
    """Claude through `POST /v1/messages`.

    Args:
        model: Model name.
        base_url: Without `/v1`.
        version: `anthropic-version` header.
        betas: Values of the `anthropic-beta` header of every request.
        max_tokens: Default of the parameter.
        sampling: Whether temperature, top_p and top_k are sent; None: by version and model name.
        prefill: Whether a history may end with an assistant message, which the reply then continues. Newer models
            refuse that, so by default a user message `CONTINUE` is added.
    """

    provider: ClassVar[str] = "anthropic"
    features = Features(reasoning=True)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = DEFAULT_URL,
        version: str = DEFAULT_VERSION,
        betas: Sequence[str] = (),
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: bool | None = None,
        prefill: bool = False,
    ) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.version = version
        self.betas = tuple(betas)
        self.max_tokens = max_tokens
        self.sampling = sampling
        self.prefill = prefill

    @property
    def sends_sampling(self) -> bool:
        """Whether temperature, top_p and top_k are sent."""
        if self.sampling is not None:
            return self.sampling
        refused = any(fnmatchcase(self.model, pattern) for pattern in NO_SAMPLING_MODELS)
        return not refused and self.version not in NO_SAMPLING_VERSIONS

    def build_request(self, call: ChatCall) -> Request:
        given = call.parameters
        system, others = system_texts(call.messages)
        messages = settled(others, _ID, key=_KEY)
        format_ = self._output_format(call.output_schema, system)
        cached = _cache_marks(given.get("prompt_cache"))
        tools, tool_choice = self._tools(call, messages, cached.get("tools"))
        head = self._settings(given, format_)
        if system:
            head = {"system": _system(system, cached.get("system")), **head}
        if tool_choice:
            head = {"tool_choice": tool_choice, **head}
        if call.stream:
            head["stream"] = True
        parts = {"messages": self._messages(messages, cached.get("messages"), bool(system))}
        if tools:
            parts["tools"] = tools
        headers = {"accept": "application/json", "anthropic-version": self.version}
        betas = dict.fromkeys([*self.betas, *(given.get("betas") or ())])
        if betas:
            headers["anthropic-beta"] = ",".join(betas)
        return self.post(f"{self.base_url}/v1/messages", joined(head, parts), call, headers=headers)

    def _settings(self, given: Mapping[str, Any], format_: JSON) -> dict[str, Any]:
        """Return the members made from parameters, `extra_body` last."""
        config = dict(given.get("output_config") or {})
        thinking: dict[str, Any] = mapping(given.get("thinking"))
        effort = given.get("reasoning_effort")
        if effort == "none":
            thinking = thinking or {"type": "disabled"}
        elif effort is not None:
            config["effort"] = _EFFORT.get(effort, effort)
        if format_ is not None:
            config["format"] = format_
        max_tokens = self.max_tokens + int(thinking.get("budget_tokens") or 0)
        body: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens}
        metadata = dict(given.get("metadata") or {})
        if given.get("user") is not None:
            metadata["user_id"] = given["user"]
        body |= {"thinking": thinking} if thinking else {}
        body |= {"output_config": config} if config else {}
        body |= {"metadata": metadata} if metadata else {}
        sent = given if self.sends_sampling else {name: v for name, v in given.items() if name not in SAMPLING}
        return body | self.render_parameters(sent, _RULES)

    def _output_format(self, schema: OutputSchema | None, system: list[str]) -> JSON:
        """Return `output_config.format`; a schema that strict mode cannot express is described in `system` instead."""
        if schema is None:
            return None
        strict, reason = anthropic_strict(schema.schema)
        if reason is None:
            return {"type": "json_schema", "schema": strict}
        if schema.strict:
            raise ParameterError(f"The output schema {schema.name!r} cannot be strict: {reason}.")
        system.append(schema_as_text(schema))
        return None

    def _tools(
        self, call: ChatCall, messages: Sequence[Message], mark: JSON
    ) -> tuple[list[bytes], dict[str, Any] | None]:
        if not call.tools:
            # The API demands the tools of every call in the history; with `none` the model can call none of them.
            names = called_names(messages)
            bare = [dumps({"name": name, "input_schema": {"type": "object"}}) for name in names]
            return bare, {"type": "none"} if bare else None
        tools = [encoded(spec.encoded, _KEY, _tool, spec) for spec in call.tools]
        if mark:
            tools[-1] = dumps({**_tool(call.tools[-1]), "cache_control": mark})
        choice = call.tool_choice
        if isinstance(choice, NamedTool):
            rendered: dict[str, Any] = {"type": "tool", "name": choice.name}
        else:
            rendered = {"type": _FORCED[choice]}
        thinking = mapping(call.parameters.get("thinking"))
        if rendered["type"] in ("any", "tool") and thinking.get("type") == "enabled":
            raise ParameterError(
                "anthropic cannot force a tool call while thinking is enabled with a budget: "
                "use tool_choice='auto' or omit thinking."
            )
        parallel = call.parameters.get("parallel_tool_calls")
        if parallel is not None and rendered["type"] != "none":
            rendered["disable_parallel_tool_use"] = not parallel
        return tools, None if rendered == {"type": "auto"} else rendered

    def _messages(self, messages: Iterable[Message], mark: JSON, has_system: bool) -> list[bytes]:
        """Return the encoded messages; the results of one turn are one user message."""
        turns: list[list[Message]] = []
        for message in messages:
            if isinstance(message, ToolMessage) and turns and isinstance(turns[-1][0], ToolMessage):
                turns[-1].append(message)
            elif isinstance(message, ToolMessage) or _KEY in message.wire or self._blocks(message):
                turns.append([message])
        if not turns and not has_system:
            raise self.refuse_empty()
        if not turns or isinstance(turns[0][0], AssistantMessage):
            turns.insert(0, [UserMessage(BEGIN)])
        if isinstance(turns[-1][0], AssistantMessage) and not self.prefill:
            turns.append([UserMessage(CONTINUE)])
        answer = [self._encoded(turn) for turn in turns]
        if mark:
            blocks = [block for message in turns[-1] for block in self._blocks(message)]
            blocks[-1] = {**blocks[-1], "cache_control": mark}
            role = "assistant" if isinstance(turns[-1][0], AssistantMessage) else "user"
            answer[-1] = dumps({"role": role, "content": blocks})
        return answer

    def _encoded(self, turn: list[Message]) -> bytes:
        results = [encoded(message.wire, _KEY, self._rendered, message) for message in turn]
        if not isinstance(turn[0], ToolMessage):
            return results[0]
        return b'{"role":"user","content":[' + b",".join(results) + b"]}"

    def _rendered(self, message: Message) -> dict[str, Any]:
        """Return a message, or the one block of a tool result."""
        blocks: JSON = self._blocks(message)
        if isinstance(message, ToolMessage):
            return blocks[0]
        if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
            blocks = blocks[0]["text"]
        return {"role": "assistant" if isinstance(message, AssistantMessage) else "user", "content": blocks}

    def _blocks(self, message: Message) -> list[dict[str, Any]]:
        """Return the content blocks of a message; an empty list if it has no content."""
        match message:
            case UserMessage(content=str(text)):
                return [{"type": "text", "text": text}] if text.strip() else []
            case UserMessage():
                parts = cast("tuple[Part, ...]", message.content)
                return [self._part(part) for part in parts if not isinstance(part, TextPart) or part.text.strip()]
            case AssistantMessage():
                return _echo(message) or _plain(message)
            case ToolMessage():
                result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id}
                if message.content.strip():
                    result["content"] = message.content
                return [result | ({"is_error": True} if message.is_error else {})]
            case SystemMessage():
                return []

    def _part(self, part: Part) -> dict[str, Any]:
        match part:
            case TextPart():
                return {"type": "text", "text": part.text}
            case ImagePart(data=str(data)):
                if part.media_type not in _IMAGE_TYPES:
                    raise self.refuse(f"an image of type {part.media_type!r}; it takes {sorted(_IMAGE_TYPES)}")
                return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": data}}
            case ImagePart():
                return {"type": "image", "source": self._url_source(part.url or "", "an image")}
            case FilePart():
                title = {"title": part.name} if part.name else {}
                return {"type": "document", "source": self._file_source(part), **title}

    def _url_source(self, url: str, what: str) -> dict[str, Any]:
        if url.startswith(("https://", "http://")):
            return {"type": "url", "url": url}
        inline = data_url(url)
        if inline is not None:
            return {"type": "base64", "media_type": inline[0], "data": inline[1]}
        raise self.refuse(f"{what} at {url[:40]!r}: it takes http, https and base64 data URLs")

    def _file_source(self, part: FilePart) -> dict[str, Any]:
        if part.file_id is not None:
            return {"type": "file", "file_id": part.file_id}
        if part.url is not None:
            return self._url_source(part.url, "a file")
        data = part.data or ""
        if part.media_type == "application/pdf":
            return {"type": "base64", "media_type": part.media_type, "data": data}
        if part.media_type.startswith("text/"):
            text = base64.b64decode(data).decode("utf-8", "replace")
            return {"type": "text", "media_type": "text/plain", "data": text}
        raise self.refuse(f"a file of type {part.media_type!r}; it takes application/pdf and text")

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        return self.reply_of(body, self.new_state().whole(body), prefix=prefix)

    def new_state(self) -> AnthropicReplyState:
        return AnthropicReplyState()

    def parse_event(self, state: AnthropicReplyState, data: bytes, event: str = "") -> Iterable[Delta]:
        body = self.object_of(data)
        if body.get("type") == "error":
            raise sort_error(self, None, {}, body)
        with self.reading(body):
            return state.take(body)

    def parse_error(self, status: int, headers: Mapping[str, str], body: JSON, text: str = "") -> ProviderError | None:
        given = mapping(body)
        if status < 400 and ("content" in given or not (given.get("type") == "error" or given.get("error"))):
            return None
        return sort_error(self, status, headers, body, text)


def _system(texts: list[str], mark: JSON) -> JSON:
    if len(texts) == 1 and not mark:
        return texts[0]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    if mark:
        blocks[-1]["cache_control"] = mark
    return blocks


def _cache_marks(prompt_cache: object) -> dict[str, JSON]:
    """Return the `cache_control` for the ends of tools, system and messages, from True or a dict of lifetimes."""
    if not prompt_cache:
        return {}
    lives = dict.fromkeys(("tools", "system", "messages"), "5m") if prompt_cache is True else mapping(prompt_cache)
    return {
        place: {"type": "ephemeral"} if life == "5m" else {"type": "ephemeral", "ttl": life}
        for place, life in lives.items()
    }


def _tool(spec: ToolSpec) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": spec.name}
    if spec.description:
        tool["description"] = spec.description
    if not spec.strict:
        return {**tool, "input_schema": {"type": "object", **spec.parameters}}
    strict, reason = anthropic_strict(spec.parameters)
    if reason:
        raise ParameterError(f"{spec.name}: {reason}")
    return {**tool, "input_schema": strict, "strict": True}


def _plain(message: AssistantMessage) -> list[dict[str, Any]]:
    text = [{"type": "text", "text": message.content}] if message.content.strip() else []
    return [*text, *(_tool_use(call, {}) for call in message.tool_calls)]


def _tool_use(call: ToolCall, block: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, **block, "input": arguments_object(call.arguments)}


def _echo(message: AssistantMessage) -> list[dict[str, Any]]:
    """Return the blocks as received, thinking with its signature; nothing if the message was changed since."""
    blocks = kept_items(message, _KEY, "content")
    calls = {call.id: call for call in message.tool_calls}
    uses = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
    text = "".join(str(block.get("text")) for block in blocks if block.get("type") == "text")
    if uses != list(calls) or text != ("" if message.refusal == message.content else message.content):
        return []
    render: dict[object, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "tool_use": lambda block: _tool_use(calls[str(block["id"])], block)
    }
    return [
        render.get(block.get("type"), dict)(block)
        for block in blocks
        if block.get("type") != "text" or str(block.get("text")).strip()
    ]
