"""OpenAI's Responses API. Wire reference: docs/providers/openai.md, section "Responses".

Documented choices:

- Stateless by default: `store` is sent as false, and encrypted reasoning is requested from reasoning models, so that a
  history can be continued anywhere, at any time. Both are parameters; `store=None` leaves it to the service.
- The model's output items are sent back unchanged and in order, reasoning items included.
- With `previous_response_id` only the messages after that answer are sent.
- The API has no `stop`, `seed`, penalties and `logit_bias`: they raise an error.

Over 400 lines because it is one dialect: the items of requests and replies are read side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any, cast

from lmagent.core.events import Delta, Done, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    Part,
    Reply,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import BadRequest, ContentFiltered, ParameterError, PermissionDenied, ProviderError, ServerFailed
from lmagent.providers.base import ChatCall, Codec, Features, NamedTool, ParameterRule, Request
from lmagent.providers.conversation import kept_items, settled
from lmagent.providers.fields import (
    arguments_text,
    by_code,
    elsewhere,
    encoded,
    joined,
    mapping,
    objects,
    same,
    text,
    usage_of,
)
from lmagent.providers.openai.errors import sort_error
from lmagent.providers.openai.profile import OPENAI, REASONING_MODELS, ModelRule, rules_of_model
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import OutputSchema, ToolSpec
from lmagent.toolkit.schema_dialects import openai_strict

__all__ = ["DEFAULT_URL", "ERROR_CODES", "ResponsesCodec", "ResponsesReplyState"]

ERROR_CODES = by_code(
    (ContentFiltered, "invalid_prompt bio_policy cyber_policy misalignment_policy_violation"),
    (ContentFiltered, "image_content_policy_violation"),
    (PermissionDenied, "data_residency_mismatch"),
    (ServerFailed, "vector_store_timeout"),
    (BadRequest, "invalid_image invalid_image_format invalid_base64_image invalid_image_url image_too_large"),
    (BadRequest, "image_too_small image_parse_error invalid_image_mode image_file_too_large"),
    (BadRequest, "unsupported_image_media_type empty_image_file failed_to_download_image image_file_not_found"),
)
"""Codes of this API in addition to those of Chat Completions."""

_INCOMPLETE: dict[object, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_TEXT_EVENTS: dict[object, type[TextDelta] | type[RefusalDelta]] = {
    "response.output_text.delta": TextDelta,
    "response.refusal.delta": RefusalDelta,
}
_REASONING_EVENTS: dict[object, str] = {
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
_DETAILS = {"cached_in": "input_tokens_details", "reasoning_in": "output_tokens_details"}
_ENDS = ("response.completed", "response.incomplete")
_BETWEEN = "\n\n"
"""Put between the parts of a reasoning summary."""


@dataclass(slots=True, eq=False)
class ResponsesReplyState:
    """The state of one reply, whole or streamed. An item's key is its index in the output."""

    _provider: str
    _calls: dict[int, int] = field(default_factory=dict[int, int])
    """Index in the output -> index of the call."""
    _items: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    """Complete items."""
    _shown: set[int] = field(default_factory=set[int])
    """Items whose deltas came, so that their complete form is not shown again."""
    _last_thought: tuple[object, ...] | None = None

    def take(self, event: dict[str, Any]) -> list[Delta]:
        """Return the deltas of one event; unknown events give none."""
        kind = event.get("type")
        piece = event.get("delta")
        if isinstance(piece, str) and piece:
            return self._piece(event, kind, piece)
        if kind == "response.output_item.added":
            return self._begin(event["output_index"], event["item"])
        if kind == "response.output_item.done":
            return self._whole_item(event["output_index"], event["item"])
        if kind in _ENDS:
            return list(self.end(event["response"]))
        return []

    def _piece(self, event: dict[str, Any], kind: object, piece: str) -> list[Delta]:
        place = event["output_index"]
        if kind in _TEXT_EVENTS:
            deltas: list[Delta] = [_TEXT_EVENTS[kind](piece)]
        elif kind in _REASONING_EVENTS:
            deltas = self._thought((place, kind, event.get(_REASONING_EVENTS[kind])), piece)
        elif kind == "response.function_call_arguments.delta":
            deltas = [ToolCallDelta(self._calls[place], arguments=piece)]
        else:
            return []
        self._shown.add(place)
        return deltas

    def end(self, response: dict[str, Any], *, whole: bool = False) -> Iterator[Delta]:
        """Yield the new deltas of the final response object, `Done` last. If `whole`, it is the complete reply."""
        # Some servers leave the output of the last event empty; then the items received before are the answer.
        for place, item in enumerate(objects(response["output"] if whole else response.get("output"))):
            if place not in self._items:
                yield from self._whole_item(place, item)
        status = response.get("status")
        if status in ("in_progress", "queued"):
            raise ValueError(f"status {status!r}: the answer is not ready yet (background mode)")
        reason = mapping(response.get("incomplete_details")).get("reason") if status == "incomplete" else None
        finish: FinishReason = _INCOMPLETE.get(reason, "other") if status == "incomplete" else "stop"
        raw_reason = reason or status
        yield Done(
            finish_reason=finish,
            raw_finish_reason=raw_reason if isinstance(raw_reason, str) else None,
            usage=usage_of(response.get("usage"), "input_tokens", "output_tokens", **_DETAILS),
            details=self._details(response.get("id")),
            response_id=response.get("id"),
            raw=response,
        )

    def _begin(self, place: int, item: dict[str, Any]) -> list[Delta]:
        if item.get("type") != "function_call" or place in self._calls:
            return []
        index = self._calls[place] = len(self._calls)
        return [ToolCallDelta(index, id=text(item.get("call_id")), name=text(item["name"]))]

    def _whole_item(self, place: int, item: dict[str, Any]) -> list[Delta]:
        """Store an item and return the deltas that were not shown before."""
        self._items[place] = item
        kind = item.get("type")
        deltas = self._begin(place, item)
        if place in self._shown:
            return deltas
        if kind == "function_call":
            arguments = arguments_text(item.get("arguments")).strip() or "{}"
            deltas.append(ToolCallDelta(self._calls[place], arguments=arguments))
        elif kind == "message":
            for part in objects(item.get("content")):
                if part.get("type") == "output_text":
                    deltas.append(TextDelta(text(part.get("text"))))
                elif part.get("type") == "refusal":
                    deltas.append(RefusalDelta(text(part.get("refusal"))))
        elif kind == "reasoning":
            for name in ("summary", "content"):
                for index, part in enumerate(objects(item.get(name))):
                    deltas += self._thought((place, name, index), text(part.get("text")))
        return deltas

    def _thought(self, place: tuple[object, ...], words: str) -> list[Delta]:
        if not words:
            return []
        is_next = self._last_thought not in (None, place)
        self._last_thought = place
        return [ReasoningDelta(_BETWEEN + words if is_next else words)]

    def _details(self, identifier: JSON) -> dict[str, Any]:
        """Return the id of the response, and the items if text and calls alone are not enough to restore them."""
        items = [self._items[place] for place in sorted(self._items)]
        kinds = [item.get("type") for item in items]
        calls = kinds[1:] if kinds[:1] == ["message"] else kinds
        plain = all(kind == "function_call" for kind in calls) and not any(item.get("phase") for item in items)
        if any(part.get("annotations") for item in items for part in _parts(item)):
            plain = False
        kept: dict[str, Any] = {"id": identifier} if identifier else {}
        if not plain:
            kept["output"] = items
        return {self._provider: kept} if kept else {}


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(item.get("content")) if item.get("type") == "message" else []


DEFAULT_URL = VENDORS["openai-responses"].api().address
PROVIDER = "openai-responses"

ENCRYPTED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
REASONERS = ("o1*", "o3*", "o4*", "gpt-5*", "gpt-6*", "codex-*")
"""Models with encrypted reasoning; others answer the request with a 400. `encrypted_reasoning=` overrides it."""
NOT_REASONERS = ("*-chat*",)


_PLACED = ("include", "logprobs", "parallel_tool_calls", "reasoning", "reasoning_effort", "store", "text", "verbosity")
_RULES: dict[str, ParameterRule] = {
    **same("temperature top_p top_logprobs user max_tool_calls metadata previous_response_id prompt_cache_key"),
    **same("prompt_cache_retention safety_identifier service_tier truncation"),
    **dict.fromkeys(_PLACED, elsewhere),
    "max_tokens": "max_output_tokens",
}


class ResponsesCodec(Codec):
    """OpenAI through `POST /responses`.

    Args:
        model: Any name; it is not checked against a list.
        base_url: Everything up to `/responses`.
        provider: Name in model ids, errors and details; for servers other than OpenAI.
        store: Whether the service keeps the answer; None leaves it to the service, which keeps it.
        encrypted_reasoning: Whether encrypted reasoning is requested if nothing is stored; None: by model name.
        headers: Sent with every request, in addition to the usual ones.
        params: Query parameters of every request.
        model_rules: What the model refuses; default: OpenAI's table. `()` sends everything.
    """

    features = Features(reasoning=True, stop=False, constrained="json_schema")

    def __init__(
        self,
        model: str,
        *,
        base_url: str = DEFAULT_URL,
        provider: str = PROVIDER,
        store: bool | None = False,
        encrypted_reasoning: bool | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] = REASONING_MODELS,
    ) -> None:
        self.model = model
        # One class serves several servers, so the name is the value's and not the class's.
        self.provider = provider  # pyright: ignore[reportAttributeAccessIssue]
        self.base_url = base_url.rstrip("/").removesuffix("/responses")
        self.store = store
        self.encrypted_reasoning = encrypted_reasoning
        self.headers = {"accept": "application/json", **(headers or {})}
        self.params = dict(params or {})
        self.model_rules = tuple(model_rules)
        self._profile = replace(OPENAI, provider=provider, error_codes=ERROR_CODES)

    def build_request(self, call: ChatCall) -> Request:
        given = call.parameters
        system, messages = self._split(call)
        head: dict[str, Any] = {"model": self.model}
        if system:
            head["instructions"] = "\n\n".join(system)
        parts = {"input": [item for item in map(self._encoded, messages) if item]}
        if not parts["input"]:
            raise self.refuse_empty()
        if call.tools:
            parts["tools"] = [encoded(spec.encoded, PROVIDER, _tool, spec) for spec in call.tools]
            if given.get("parallel_tool_calls") is not None:
                head["parallel_tool_calls"] = given["parallel_tool_calls"]
        if isinstance(call.tool_choice, NamedTool):
            head["tool_choice"] = {"type": "function", "name": call.tool_choice.name}
        elif call.tool_choice != "auto":
            head["tool_choice"] = call.tool_choice
        if call.stream:
            head["stream"] = True
        head |= self._placed(given, call.output_schema)
        rules = {**_RULES, **rules_of_model(self.model_id, self.model_rules, given)}
        head |= self.render_parameters(given, rules)
        url = f"{self.base_url}/responses"
        return self.post(url, joined(head, parts), call, headers=self.headers, params=self.params)

    def _placed(self, given: Mapping[str, Any], schema: OutputSchema | None) -> dict[str, Any]:
        """Return the members that are made from several parameters."""
        body: dict[str, Any] = {}
        reasoning = dict(given.get("reasoning") or {})
        if given.get("reasoning_effort") is not None:
            reasoning["effort"] = given["reasoning_effort"]
        text = dict(given.get("text") or {})
        if given.get("verbosity") is not None:
            text["verbosity"] = given["verbosity"]
        if schema is not None:
            text["format"] = _format(schema)
        stateful = given.get("previous_response_id") is not None
        store = given.get("store", None if stateful else self.store)
        include: list[str] = list(given.get("include") or ())
        if store is False and self._hands_out_reasoning and ENCRYPTED not in include:
            include.append(ENCRYPTED)
        if given.get("logprobs") and _LOGPROBS not in include:
            include.append(_LOGPROBS)
        members = {"reasoning": reasoning, "text": text, "include": include}
        body |= {name: value for name, value in members.items() if value}
        return body if store is None else body | {"store": store}

    @property
    def _hands_out_reasoning(self) -> bool:
        if self.encrypted_reasoning is not None:
            return self.encrypted_reasoning
        return any(fnmatchcase(self.model, pattern) for pattern in REASONERS) and not any(
            fnmatchcase(self.model, pattern) for pattern in NOT_REASONERS
        )

    def _split(self, call: ChatCall) -> tuple[list[str], Sequence[Message]]:
        """Return the instructions and what goes into `input`."""
        leading = list(takewhile(lambda message: isinstance(message, SystemMessage), call.messages))
        others: Sequence[Message] = call.messages[len(leading) :]
        system = [m.content for m in leading if isinstance(m, SystemMessage) and m.content.strip()]
        before = call.parameters.get("previous_response_id")
        if before is None:
            return (system, self._fitting(others)) if others else ([], list(leading))
        known = [index for index, message in enumerate(others) if self._response_id(message) == before]
        # Put the results in order before cutting: they must follow the answer that the service has stored.
        if known:
            ordered = self._fitting(others)
            at = next(i for i, message in enumerate(ordered) if self._response_id(message) == before)
            return system, ordered[at + 1 :]
        results = list(takewhile(lambda message: isinstance(message, ToolMessage), others))
        return system, [*results, *self._fitting(others[len(results) :])]

    def _fitting(self, messages: Sequence[Message]) -> Sequence[Message]:
        return settled(messages, key=self.provider)

    def _response_id(self, message: Message) -> object:
        if not isinstance(message, AssistantMessage):
            return None
        return mapping(message.details.get(self.provider)).get("id")

    def _encoded(self, message: Message) -> bytes:
        """Return the items of a message, joined by commas."""
        kept = message.wire.get(self.provider)
        if kept is None:
            kept = message.wire[self.provider] = b",".join(dumps(item) for item in self._items(message))
        return kept

    def _items(self, message: Message) -> list[dict[str, Any]]:
        match message:
            case SystemMessage():
                return [{"role": "system", "content": message.content}]
            case UserMessage(content=str(text)):
                return [{"role": "user", "content": text}]
            case UserMessage():
                parts = cast("tuple[Part, ...]", message.content)
                return [{"role": "user", "content": [self._part(part) for part in parts]}] if parts else []
            case AssistantMessage():
                return self._echo(message) or _plain(message)
            case ToolMessage():
                return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]

    def _echo(self, message: AssistantMessage) -> list[dict[str, Any]]:
        """Return the items as received; nothing if the message was changed since."""
        items = kept_items(message, self.provider, "output")
        calls = {call.id: call for call in message.tool_calls}
        called = [item.get("call_id") for item in items if item.get("type") == "function_call"]
        said = [
            str(part.get("text", part.get("refusal", "")))
            for item in items
            if item.get("type") == "message"
            for part in cast("list[dict[str, Any]]", item.get("content") or ())
        ]
        if called != list(calls) or "".join(said) != message.content:
            return []
        return [
            {**item, "arguments": calls[str(item["call_id"])].arguments}
            if item.get("type") == "function_call"
            else item
            for item in items
        ]

    def _part(self, part: Part) -> dict[str, Any]:
        match part:
            case TextPart():
                return {"type": "input_text", "text": part.text}
            case ImagePart():
                return {"type": "input_image", "image_url": part.data_url, "detail": part.detail or "auto"}
            case FilePart(data=str(data)):
                name = part.name or "file" + ("." + part.media_type.rpartition("/")[2] if part.media_type else "")
                url = f"data:{part.media_type};base64,{data}"
                return {"type": "input_file", "filename": name, "file_data": url}
            case FilePart():
                place = {"file_id": part.file_id} if part.file_id is not None else {"file_url": part.url}
                return {"type": "input_file", **place}

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        return self.reply_of(body, self.new_state().end(body, whole=True), prefix=prefix)

    def new_state(self) -> ResponsesReplyState:
        return ResponsesReplyState(self.provider)

    def parse_event(self, state: ResponsesReplyState, data: bytes, event: str = "") -> Iterable[Delta]:
        if data.strip() == b"[DONE]":  # not documented for this API, but some servers send it
            return ()
        body = self.object_of(data)
        kind = body.get("type")
        if kind == "response.failed":
            raise self._failed(mapping(body.get("response")))
        if kind == "error" or (kind is None and body.get("error")):
            raise self._failed(body)
        with self.reading(body):
            return state.take(body)

    def parse_error(self, status: int, headers: Mapping[str, str], body: JSON, text: str = "") -> ProviderError | None:
        error = sort_error(self._profile, self.model, status, headers, body, text)
        if error is None and mapping(body).get("status") in ("failed", "cancelled"):
            return self._failed(body)
        return error

    def _failed(self, body: JSON) -> ProviderError:
        """Return the error of a failed response, also if it has no error object."""
        words = "The response has failed or was cancelled, without an explanation."
        failed = self.failure(ServerFailed, words, status=200, body=body)
        return sort_error(self._profile, self.model, 200, {}, body) or failed


def _plain(message: AssistantMessage) -> list[dict[str, Any]]:
    text = [{"role": "assistant", "content": message.content}] if message.content else []
    calls = [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments if call.arguments.strip() else "{}",
        }
        for call in message.tool_calls
    ]
    return [*text, *calls]


def _format(schema: OutputSchema) -> dict[str, Any]:
    rendered, problem = (dict(schema.schema), "") if schema.strict is False else openai_strict(schema.schema)
    if problem and schema.strict:
        raise ParameterError(f"The output schema {schema.name!r} cannot be strict: {problem}.")
    described = {"description": schema.description} if schema.description else {}
    is_strict = schema.strict is not False and not problem
    return {"type": "json_schema", "name": schema.name, **described, "schema": rendered, "strict": is_strict}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    schema: Mapping[str, Any] = spec.parameters or {"type": "object", "properties": {}}
    problem = None
    if spec.strict:
        schema, problem = openai_strict(schema)
    if problem:
        raise ParameterError(f"{spec.name}: {problem}; omit strict=True.")
    described = {"description": spec.description} if spec.description else {}
    # Always sent: the default of `strict` is true here.
    return {"type": "function", "name": spec.name, **described, "parameters": schema, "strict": bool(spec.strict)}
