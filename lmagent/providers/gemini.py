"""Google's Gemini dialect (`generateContent`). Wire reference: docs/providers/gemini.md.

Documented nearest values and defaults:

- Thought signatures are sent back on the parts that they came with. In a history from another provider, the first call
  of each message gets the documented dummy signature, for models that demand signatures (`signatures=` overrides).
- `reasoning_effort` is a `thinkingLevel`, with `none` as `MINIMAL` and `max` as `XHIGH`; before Gemini 3 it is a
  `thinkingBudget`.
- Parallel calls cannot be switched off: `parallel_tool_calls=False` is an error.
- Broken arguments in a history are sent as `{"_raw": text}`, because the API demands an object.
- A tool result that is a JSON object or array is sent as such under `output`, any other text as a string.
- Before Gemini 3 structured output and tools exclude each other; with tools, the system prompt describes the schema.
- The URL of an image must be one that Google serves (Files API, Cloud Storage, YouTube); others are an error.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, cast
from urllib.parse import quote

from lmagent.core.events import Delta
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    Part,
    Reply,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import ParameterError, ProviderError
from lmagent.providers.base import ChatCall, Codec, Features, NamedTool, ParameterRule, Request
from lmagent.providers.conversation import BEGIN, CONTINUE, arguments_object, kept_items, settled, system_texts
from lmagent.providers.fields import data_url, elsewhere, encoded, joined, mapping, parsed, same
from lmagent.providers.gemini_reply import GeminiReplyState, blocked, sort_error
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from lmagent.toolkit.schema_dialects import gemini_openapi, gemini_subset, schema_as_text

__all__ = ["DEFAULT_URL", "DEFAULT_VERSION", "GeminiCodec"]

DEFAULT_URL = VENDORS["gemini"].api().address
DEFAULT_VERSION = "v1beta"

BEFORE_GEMINI_3 = ("gemini-1*", "gemini-2*", "gemini-pro", "gemini-pro-vision", "gemma*", "learnlm*")
"""Models without signature checks, with thinking budgets, without a schema together with tools. Arguments of
`GeminiCodec` override it."""
DUMMY_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""`skip_thought_signature_validator`, encoded as the official SDK sends it."""

_MAX_ID = 1 << 16
_MODES = {"required": "ANY", "none": "NONE"}
_NEAREST_LEVELS = {"none": "MINIMAL", "max": "XHIGH"}
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_URIS = ("https://generativelanguage.googleapis.com/", "gs://", "https://www.youtube.com/", "https://youtu.be/")


def _parallel(value: bool) -> dict[str, Any]:
    if not value:
        raise ParameterError(
            "parallel_tool_calls can only be True, got False: gemini cannot switch parallel calls off."
        )
    return {}


_PLACED = ("thinking_config", "include_thoughts", "reasoning_effort", "safety_settings", "cached_content")
_GENERATION: dict[str, ParameterRule] = {
    **same("temperature", "seed"),
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "stop": "stopSequences",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "response_modalities": "responseModalities",
    "media_resolution": "mediaResolution",
    "parallel_tool_calls": _parallel,
    **dict.fromkeys(_PLACED, elsewhere),
}
_TOP = {"safety_settings": "safetySettings", "cached_content": "cachedContent"}


class GeminiCodec(Codec):
    """Gemini through `models/...:generateContent`.

    Args:
        model: Model name; `tunedModels/x` and `models/x` are taken as they are.
        base_url: Host, without the version. For Vertex AI everything up to `/publishers/google`, and `version=""`.
        version: `v1beta` or `v1`.
        signatures: Whether calls without a thought signature get the dummy signature; None: by model name.
        budgets: Whether thinking is set by budget instead of level; None: by model name.
        schema_with_tools: Whether a response schema is sent together with tools; None: by model name.
        schemas: `json`: tools and answers are described in JSON Schema. `openapi`: in the older form of the API.
        any_url: Whether an image or a file may have any https URL (Vertex AI fetches some).
    """

    provider: ClassVar[str] = "gemini"
    features = Features(reasoning=True)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = DEFAULT_URL,
        version: str = DEFAULT_VERSION,
        signatures: bool | None = None,
        budgets: bool | None = None,
        schema_with_tools: bool | None = None,
        schemas: Literal["json", "openapi"] = "json",
        any_url: bool = False,
    ) -> None:
        name = model.rpartition("/")[2]
        is_old = any(fnmatchcase(name, pattern) for pattern in BEFORE_GEMINI_3)
        self.model = model
        self.base_url = base_url.rstrip("/").removesuffix(f"/{version}" if version else "")
        self.version = version
        self.signatures = not is_old if signatures is None else signatures
        self.budgets = is_old if budgets is None else budgets
        self.schema_with_tools = not is_old if schema_with_tools is None else schema_with_tools
        self.schemas = schemas
        self.any_url = any_url
        self._key = ("gemini", self.signatures, any_url)

    def build_request(self, call: ChatCall) -> Request:
        given = call.parameters
        system, others = system_texts(call.messages)
        messages = settled(others, max_length=_MAX_ID, key=(*self._key, None))
        config = self._generation(given, self._answer_format(call, system))
        head: dict[str, Any] = {_TOP[name]: given[name] for name in _TOP if name in given}
        if system:
            head["systemInstruction"] = {"parts": [{"text": text} for text in system]}
        if call.tools:
            head |= self._tool_config(call)
        if config:
            head["generationConfig"] = config
        for name, value in mapping(given.get("extra_body")).items():
            inner = head.get(name)
            head[name] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
        parts = {"contents": self._contents(messages, bool(system))}
        if call.tools:
            key = f"gemini-{self.schemas}"
            declarations = b",".join(encoded(spec.encoded, key, self._declaration, spec) for spec in call.tools)
            parts["tools"] = [b'{"functionDeclarations":[' + declarations + b"]}"]
        name = self.model if "/" in self.model else f"models/{self.model}"
        path = f"{quote(name, safe='/')}:{'streamGenerateContent' if call.stream else 'generateContent'}"
        url = "/".join(piece for piece in (self.base_url, self.version, path) if piece)
        headers, params = {"accept": "application/json"}, {"alt": "sse"} if call.stream else None
        return self.post(url, joined(head, parts), call, headers=headers, params=params)

    def _generation(self, given: Mapping[str, Any], format_: dict[str, Any]) -> dict[str, Any]:
        config = self.render_parameters({k: v for k, v in given.items() if k != "extra_body"}, _GENERATION)
        thinking = dict(given.get("thinking_config") or {})
        effort = given.get("reasoning_effort")
        if effort is not None:
            if self.budgets:
                thinking["thinkingBudget"] = _BUDGETS[effort]
            else:
                thinking["thinkingLevel"] = _NEAREST_LEVELS.get(effort, effort.upper())
        if given.get("include_thoughts") is not None:
            thinking["includeThoughts"] = given["include_thoughts"]
        return config | ({"thinkingConfig": thinking} if thinking else {}) | format_

    def _answer_format(self, call: ChatCall, system: list[str]) -> dict[str, Any]:
        """Return the members for structured output; if tools exclude them, `system` describes the schema instead."""
        schema: OutputSchema | None = call.output_schema
        if schema is None:
            return {}
        if call.tools and not self.schema_with_tools:
            system.append(schema_as_text(schema))
            return {}
        is_old = self.schemas == "openapi"
        rendered = gemini_openapi(schema.schema, ordered=True) if is_old else gemini_subset(schema.schema)
        member = "responseSchema" if is_old else "responseJsonSchema"
        return {"responseMimeType": "application/json", member: rendered}

    def _tool_config(self, call: ChatCall) -> dict[str, Any]:
        choice = call.tool_choice
        if isinstance(choice, NamedTool):
            return {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice.name]}}}
        return {} if choice == "auto" else {"toolConfig": {"functionCallingConfig": {"mode": _MODES[choice]}}}

    def _declaration(self, spec: ToolSpec) -> dict[str, Any]:
        tool: dict[str, Any] = {"name": spec.name}
        if spec.description:
            tool["description"] = spec.description
        # Older versions refuse an object without properties, so the key is left out if there are no parameters.
        if spec.parameters.get("properties") or spec.parameters.get("additionalProperties"):
            if self.schemas == "openapi":
                tool["parameters"] = gemini_openapi(spec.parameters)
            else:
                tool["parametersJsonSchema"] = gemini_subset(spec.parameters)
        return tool

    def _contents(self, messages: Iterable[Message], has_system: bool) -> list[bytes]:
        """Return the contents, which alternate: the parts of consecutive messages of one role become one content."""
        turns: list[tuple[str, list[bytes]]] = []
        ids: dict[str, str | None] = {}
        for message in messages:
            role = "model" if isinstance(message, AssistantMessage) else "user"
            if isinstance(message, AssistantMessage) and message.tool_calls:
                ids = _service_ids(message) if message.details else {}
            parts = self._encoded(message, ids)
            if not parts:
                continue
            if turns and turns[-1][0] == role:
                turns[-1][1].append(parts)
            else:
                turns.append((role, [parts]))
        if not turns and not has_system:
            raise self.refuse_empty()
        if not turns or turns[0][0] == "model":
            turns.insert(0, ("user", [dumps({"text": BEGIN})]))
        if turns[-1][0] == "model":
            turns.append(("user", [dumps({"text": CONTINUE})]))
        return [b'{"role":"%b","parts":[%b]}' % (role.encode(), b",".join(parts)) for role, parts in turns]

    def _encoded(self, message: Message, ids: Mapping[str, str | None]) -> bytes:
        """Return the parts of a message, joined by commas. A result has the id that the service gave its call."""
        service_id = ids.get(message.tool_call_id) if isinstance(message, ToolMessage) else None
        key = (*self._key, service_id)
        kept = message.wire.get(key)
        if kept is None:
            parts = _response(message, service_id) if isinstance(message, ToolMessage) else self._parts(message)
            kept = message.wire[key] = b",".join(dumps(part) for part in parts)
        return kept

    def _parts(self, message: Message) -> list[dict[str, Any]]:
        match message:
            case UserMessage(content=str(text)):
                return [{"text": text}] if text.strip() else []
            case UserMessage():
                parts = cast("tuple[Part, ...]", message.content)
                return [self._part(part) for part in parts if not isinstance(part, TextPart) or part.text]
            case AssistantMessage():
                parts_ = _echo(message) or _plain(message)
                return _signed(parts_) if self.signatures else parts_
            case _:
                return []

    def _part(self, part: Part) -> dict[str, Any]:
        match part:
            case TextPart():
                return {"text": part.text}
            case ImagePart(data=str(data)):
                return {"inlineData": {"mimeType": part.media_type, "data": data}}
            case ImagePart():
                url = part.url or ""
                return self._from_url(url, mimetypes.guess_type(url)[0] or part.media_type, "an image")
            case FilePart(data=str(data)):
                return {"inlineData": {"mimeType": part.media_type, "data": data}}
            case FilePart():
                if part.file_id is not None:
                    return {"fileData": {"mimeType": part.media_type, "fileUri": part.file_id}}
                return self._from_url(part.url or "", part.media_type, "a file")

    def _from_url(self, url: str, media_type: str, what: str) -> dict[str, Any]:
        inline = data_url(url)
        if inline is not None:
            return {"inlineData": {"mimeType": inline[0], "data": inline[1]}}
        if url.startswith(_URIS) or (self.any_url and url.startswith("https://")):
            return {"fileData": {"mimeType": media_type, "fileUri": url}}
        raise self.refuse(
            f"{what} at {url[:60]!r}: it fetches only URLs of Google. Download it and use from_bytes(...)"
        )

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        return self.reply_of(body, _whole(body), prefix=prefix)

    def new_state(self) -> GeminiReplyState:
        return GeminiReplyState()

    def parse_event(self, state: GeminiReplyState, data: bytes, event: str = "") -> Iterable[Delta]:
        body = self.object_of(data)
        if body.get("error"):
            raise sort_error(self, None, {}, body)
        with self.reading(body):
            blocked(self, body)
            return state.take(body)

    def finish(self, state: GeminiReplyState) -> Iterable[Delta]:
        """Return `Done` after a finish reason: the dialect has no end mark except the end of the body."""
        with self.reading(state.raw):
            return (state.done(),) if state.has_finished else ()

    def parse_error(self, status: int, headers: Mapping[str, str], body: JSON, text: str = "") -> ProviderError | None:
        answers = [mapping(answer) for answer in _answers(body)]
        given = next((answer for answer in answers if answer.get("error")), answers[0] if answers else {})
        if status >= 400 or given.get("error"):
            return sort_error(self, status, headers, given, text)
        try:
            blocked(self, given)
        except ProviderError as error:
            return error
        return None


def _answers(body: JSON) -> list[JSON]:
    """Return the objects of a body: without `alt=sse` a stream is an array of objects, and so may be an error."""
    return cast("list[JSON]", body) if isinstance(body, list) else [body]


def _whole(body: JSON) -> Iterator[Delta]:
    state, answers = GeminiReplyState(), _answers(body)
    if not any(answer.get("candidates") for answer in answers):
        raise ValueError("no candidate")
    for answer in answers:
        yield from state.take(answer)
    yield state.done()


def _plain(message: AssistantMessage) -> list[dict[str, Any]]:
    text: list[dict[str, Any]] = [{"text": message.content}] if message.content.strip() else []
    return text + [_call(call, {}) for call in message.tool_calls]


def _call(call: ToolCall, part: Mapping[str, Any]) -> dict[str, Any]:
    kept = mapping(part.get("functionCall"))
    inner = {"name": call.name, **kept, "args": arguments_object(call.arguments)}
    return {**part, "functionCall": inner}


def _kept(message: AssistantMessage) -> list[dict[str, Any]]:
    """Return the parts as received, without arguments; nothing if the message was changed since."""
    parts = kept_items(message, "gemini", "parts")
    named = [mapping(part["functionCall"]).get("name") for part in parts if "functionCall" in part]
    text = "".join(str(part["text"]) for part in parts if "text" in part and not part.get("thought"))
    return parts if named == [call.name for call in message.tool_calls] and text == message.content else []


def _echo(message: AssistantMessage) -> list[dict[str, Any]]:
    """Return the parts as received, with signatures and the arguments filled in."""
    calls = iter(message.tool_calls)
    return [_call(next(calls), part) if "functionCall" in part else part for part in _kept(message)]


def _service_ids(message: AssistantMessage) -> dict[str, str | None]:
    """Return the ids that the service gave its calls, by our call id; only those may be sent back."""
    kept = [mapping(part["functionCall"]) for part in _kept(message) if "functionCall" in part]
    return {call.id: inner.get("id") for call, inner in zip(message.tool_calls, kept, strict=False)}


def _signed(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts with the dummy signature on the first call if none has one; the service demands a signature."""
    first = next((index for index, part in enumerate(parts) if "functionCall" in part), None)
    if first is None or any("thoughtSignature" in part for part in parts):
        return parts
    return [*parts[:first], {**parts[first], "thoughtSignature": DUMMY_SIGNATURE}, *parts[first + 1 :]]


def _response(message: ToolMessage, service_id: str | None) -> list[dict[str, Any]]:
    value: JSON = None
    if not message.is_error and message.content[:1] in ("{", "["):
        value = parsed(message.content)
    response = {"error" if message.is_error else "output": message.content if value is None else value}
    inner = {"name": message.name, "response": response}
    return [{"functionResponse": {"id": service_id, **inner} if service_id else inner}]
