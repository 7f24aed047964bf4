"""What the Responses API answers: output items and their events, usage, error codes. Used by `responses.py` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmagent.core.events import Delta, Done, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON
from lmagent.core.messages import FinishReason, Usage
from lmagent.errors import BadRequest, ContentFiltered, PermissionDenied, ServerFailed
from lmagent.providers.fields import arguments_text, mapping, objects, text
from lmagent.providers.openai.profile import ErrorClass

__all__ = ["ERROR_CODES", "ResponsesReplyState"]

ERROR_CODES: Mapping[str, ErrorClass] = {
    "invalid_prompt": ContentFiltered,
    "bio_policy": ContentFiltered,
    "cyber_policy": ContentFiltered,
    "misalignment_policy_violation": ContentFiltered,
    "image_content_policy_violation": ContentFiltered,
    "data_residency_mismatch": PermissionDenied,
    "vector_store_timeout": ServerFailed,
    **dict.fromkeys(
        (
            "invalid_image",
            "invalid_image_format",
            "invalid_base64_image",
            "invalid_image_url",
            "image_too_large",
            "image_too_small",
            "image_parse_error",
            "invalid_image_mode",
            "image_file_too_large",
            "unsupported_image_media_type",
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
        ),
        BadRequest,
    ),
}
"""Codes of this API beside those of Chat Completions."""

_INCOMPLETE: dict[object, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_TEXT_EVENTS: dict[object, type[TextDelta] | type[RefusalDelta]] = {
    "response.output_text.delta": TextDelta,
    "response.refusal.delta": RefusalDelta,
}
_REASONING_EVENTS: dict[object, str] = {
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
_ENDS = ("response.completed", "response.incomplete")
_BETWEEN = "\n\n"
"""Between the parts of a reasoning summary."""


class ResponsesReplyState:
    """The state of one reply, whole or streamed. Items are numbered by their place in the output."""

    __slots__ = ("_calls", "_id", "_items", "_last_thought", "_provider", "_shown")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._calls: dict[int, int] = {}
        """Place in the output -> index of the call."""
        self._items: dict[int, dict[str, Any]] = {}
        """Items that are whole."""
        self._shown: set[int] = set()
        """Items of which deltas came, so that their whole form is not shown again."""
        self._last_thought: tuple[object, ...] | None = None
        self._id: str | None = None

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
            return self.end(event["response"])
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

    def end(self, response: dict[str, Any], *, whole: bool = False) -> list[Delta]:
        """Return what the final response object adds, with `Done` last. Here it is all there is if `whole`."""
        deltas: list[Delta] = []
        # Some servers leave the output of the last event empty; then the items that came one by one are the answer.
        for place, item in enumerate(objects(response["output"] if whole else response.get("output"))):
            if place not in self._items:
                deltas += self._whole_item(place, item)
        status = response.get("status")
        if status in ("in_progress", "queued"):
            raise ValueError(f"status {status!r}: the answer is not there yet (background mode)")
        reason = mapping(response.get("incomplete_details")).get("reason") if status == "incomplete" else None
        finish: FinishReason = _INCOMPLETE.get(reason, "other") if status == "incomplete" else "stop"
        raw_reason = reason or status
        done = Done(
            finish_reason=finish,
            raw_finish_reason=raw_reason if isinstance(raw_reason, str) else None,
            usage=_usage(mapping(response.get("usage"))),
            details=self._details(response.get("id")),
            response_id=response.get("id"),
            raw=response,
        )
        return [*deltas, done]

    def _begin(self, place: int, item: dict[str, Any]) -> list[Delta]:
        if item.get("type") != "function_call" or place in self._calls:
            return []
        index = self._calls[place] = len(self._calls)
        return [ToolCallDelta(index, id=text(item.get("call_id")), name=text(item["name"]))]

    def _whole_item(self, place: int, item: dict[str, Any]) -> list[Delta]:
        """Keep an item and return what has not been shown of it."""
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
        """Return the id of the response, and the items when text and calls alone would not give them back."""
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


def _usage(counts: Mapping[str, Any]) -> Usage | None:
    if not counts:
        return None
    inputs, outputs = int(counts.get("input_tokens") or 0), int(counts.get("output_tokens") or 0)
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        total_tokens=int(counts.get("total_tokens") or inputs + outputs),
        cached_tokens=int(mapping(counts.get("input_tokens_details")).get("cached_tokens") or 0),
        reasoning_tokens=int(mapping(counts.get("output_tokens_details")).get("reasoning_tokens") or 0),
    )
