"""Read Anthropic's answers: content blocks and their deltas, usage, errors. Used only by `anthropic`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from lmagent import errors
from lmagent.core.events import Delta, Done, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON
from lmagent.core.messages import FinishReason, Usage
from lmagent.errors import ProviderError
from lmagent.providers.base import Codec, error_for_status
from lmagent.providers.fields import arguments_text, by_code, first_text, mapping, objects, parsed, quoted, text

__all__ = ["AnthropicReplyState", "sort_error"]

_FINISH: dict[object, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}
"""`pause_turn` and undocumented reasons are `other`; `raw_finish_reason` keeps the wire's value."""

_BY_TYPE = by_code(
    (errors.BadRequest, "invalid_request_error"),
    (errors.AuthenticationFailed, "authentication_error"),
    (errors.QuotaExceeded, "billing_error"),
    (errors.PermissionDenied, "permission_error"),
    (errors.NotFound, "not_found_error"),
    (errors.ContextTooLong, "request_too_large"),
    (errors.RateLimited, "rate_limit_error"),
    (errors.ServerFailed, "api_error"),
    (errors.RequestTimeout, "timeout_error"),
    (errors.Overloaded, "overloaded_error"),
)
_TOO_LONG = ("prompt is too long", "exceed context limit")
"""Context length has no error type of its own; only the message tells."""


@dataclass(slots=True)
class _Block:
    """One content block: its start event and the pieces after it."""

    start: dict[str, Any]
    call: int | None
    pieces: list[str] = field(default_factory=list[str])
    signature: list[str] = field(default_factory=list[str])

    def whole(self) -> dict[str, Any]:
        """Return the block as it must be sent back, without a call's input, which the message's call has."""
        kind = self.start.get("type")
        block = {key: value for key, value in self.start.items() if value is not None}
        joined = "".join(self.pieces)
        if kind == "text":
            return {**block, "text": joined}
        if kind == "thinking":
            return {**block, "thinking": joined, "signature": "".join(self.signature)}
        if kind == "tool_use":
            block.pop("input", None)
        elif joined:
            value = parsed(joined)
            block["input"] = {} if value is None else value
        return block


@dataclass(slots=True, eq=False)
class AnthropicReplyState:
    """The state of one reply, whole or streamed; both are read as blocks."""

    _blocks: dict[int, _Block] = field(default_factory=dict[int, _Block])
    _open: dict[int, _Block] = field(default_factory=dict[int, _Block])
    _calls: int = 0
    _usage: dict[str, Any] = field(default_factory=dict[str, Any])
    _stop: dict[str, Any] = field(default_factory=dict[str, Any])
    _id: str | None = None

    def whole(self, body: JSON) -> Iterator[Delta]:
        """Yield the deltas of a whole answer."""
        self._id = body.get("id")
        self._stop = body
        self._usage = mapping(body.get("usage"))
        for index, block in enumerate(objects(body["content"])):
            yield from self._start(index, block)
            yield from self._end(index)
        yield from self._refusal()
        yield self._done(body)

    def take(self, event: dict[str, Any]) -> list[Delta]:
        """Return the deltas of one event; unknown events and deltas give none."""
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event["index"], event["delta"])
            case "content_block_start":
                return self._start(event["index"], event["content_block"])
            case "content_block_stop":
                return self._end(event["index"])
            case "message_start":
                message = event["message"]
                self._id = message.get("id")
                self._count(message.get("usage"))
                return []
            case "message_delta":
                self._stop = {**self._stop, **mapping(event.get("delta"))}
                self._count(event.get("usage"))
                return []
            case "message_stop":
                ended = [delta for index in list(self._open) for delta in self._end(index)]
                return [*ended, *self._refusal(), self._done(event)]
            case _:
                return []

    def _count(self, usage: object) -> None:
        """Update the token counts. They are cumulative, so later values replace earlier ones."""
        self._usage |= {key: value for key, value in mapping(usage).items() if value is not None}

    def _start(self, index: int, block: dict[str, Any]) -> list[Delta]:
        kind = block.get("type")
        opened = _Block(block, self._calls if kind == "tool_use" else None)
        self._blocks[index] = self._open[index] = opened
        if kind == "tool_use":
            self._calls += 1
            return [ToolCallDelta(opened.call or 0, id=text(block.get("id")), name=text(block["name"]))]
        if kind == "text":
            return self._piece(opened, text(block.get("text")), TextDelta)
        if kind == "thinking":
            opened.signature.append(text(block.get("signature")))
            return self._piece(opened, text(block.get("thinking")), ReasoningDelta)
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Delta]:
        kind = delta.get("type")
        block = self._open.get(index)
        if block is None:  # a relay that omits the start event
            self._start(index, {"type": "thinking" if kind == "thinking_delta" else "text"})
            block = self._open[index]
        match kind:
            case "text_delta":
                return self._piece(block, delta["text"], TextDelta)
            case "thinking_delta":
                return self._piece(block, delta["thinking"], ReasoningDelta)
            case "input_json_delta":
                piece = text(delta.get("partial_json"))
                block.pieces.append(piece)
                return [ToolCallDelta(block.call, arguments=piece)] if piece and block.call is not None else []
            case "signature_delta":
                block.signature.append(delta["signature"])
            case "citations_delta":
                block.start = {**block.start, "citations": [*(block.start.get("citations") or ()), delta["citation"]]}
            case _:
                pass
        return []

    def _piece(self, block: _Block, piece: str, kind: type[TextDelta] | type[ReasoningDelta]) -> list[Delta]:
        if not piece:
            return []
        block.pieces.append(text(piece))
        return [kind(piece)]

    def _end(self, index: int) -> list[Delta]:
        block = self._open.pop(index, None)
        if block is None or block.call is None or any(piece.strip() for piece in block.pieces):
            return []
        given = block.start.get("input")
        return [ToolCallDelta(block.call, arguments=arguments_text(given).strip() or "{}")]

    def _refusal(self) -> list[Delta]:
        details = mapping(self._stop.get("stop_details"))
        said = details.get("explanation") if details.get("type") == "refusal" else None
        return [RefusalDelta(said)] if isinstance(said, str) and said else []

    def _done(self, raw: JSON) -> Done:
        reason = self._stop.get("stop_reason")
        return Done(
            finish_reason=_FINISH.get(reason, "other"),
            raw_finish_reason=reason if isinstance(reason, str) else None,
            usage=_usage(self._usage),
            details=self._details(),
            response_id=self._id,
            raw=raw,
        )

    def _details(self) -> dict[str, Any]:
        """Return the blocks in order, if text and calls alone are not enough to restore them."""
        blocks = [self._blocks[index].whole() for index in sorted(self._blocks)]
        blocks = [block for block in blocks if isinstance(block.get("type"), str)]
        blocks = [block for block in blocks if block["type"] != "text" or block.get("text")]
        plain = [{"type", "text"}, *[{"type", "id", "name"}] * len(blocks)]
        if blocks and blocks[0].get("type") != "text":
            plain = plain[1:]
        if all(block.keys() == keys for block, keys in zip(blocks, plain, strict=False)):
            return {}
        return {"anthropic": {"content": blocks}}


def _usage(counts: Mapping[str, Any]) -> Usage | None:
    """Return the token counts; the wire's `input_tokens` excludes tokens written to and read from the cache."""
    if not counts:
        return None
    cached = _int(counts, "cache_read_input_tokens")
    inputs = _int(counts, "input_tokens") + _int(counts, "cache_creation_input_tokens") + cached
    outputs = _int(counts, "output_tokens")
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        total_tokens=inputs + outputs,
        cached_tokens=cached,
        reasoning_tokens=_int(mapping(counts.get("output_tokens_details")), "thinking_tokens"),
    )


def _int(counts: Mapping[str, Any], name: str) -> int:
    return int(counts.get(name) or 0)


def sort_error(
    codec: Codec, status: int | None, headers: Mapping[str, str], body: JSON, words: str = ""
) -> ProviderError:
    """Return the error in a body, by its type, or by the HTTP status if the type is unknown."""
    outer = mapping(body)
    given = outer.get("error")
    error = mapping(given)
    kind = error.get("type") if isinstance(error.get("type"), str) else None
    code = mapping(error.get("details")).get("error_code")
    said = quoted(error.get("message") or (given if isinstance(given, str) else words))
    found = _BY_TYPE.get(cast("str", kind)) or error_for_status(status or 200)
    if status == 402:
        found = errors.QuotaExceeded
    if found is errors.BadRequest and any(text in said.lower() for text in _TOO_LONG):
        found = errors.ContextTooLong
    return codec.failure(
        found,
        said,
        status=status,
        headers=headers,
        body=body,
        code=code if isinstance(code, str) else kind,
        request_ids=(headers.get("request-id"), first_text(outer.get("request_id"))),
        retryable=True if kind == "conflict_error" or status == 409 else None,
    )
