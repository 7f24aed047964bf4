"""Read Gemini's answers: parts, usage, blocked prompts, errors. Used only by `gemini`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from lmagent import errors
from lmagent.core.events import Delta, Done, ReasoningDelta, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON
from lmagent.core.messages import FinishReason, Usage
from lmagent.errors import ProviderError
from lmagent.providers.base import Codec, error_for_status
from lmagent.providers.fields import arguments_text, by_code, known_objects, mapping, objects, quoted, seconds, text

__all__ = ["GeminiReplyState", "blocked", "sort_error"]

_FINISH: dict[object, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "LANGUAGE": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MALFORMED_RESPONSE": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
    "OTHER": "error",
}
"""Undocumented reasons are `other`; `raw_finish_reason` keeps the wire's value."""

_BY_STATUS = by_code(
    (errors.BadRequest, "INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE CANCELLED"),
    (errors.AuthenticationFailed, "UNAUTHENTICATED"),
    (errors.PermissionDenied, "PERMISSION_DENIED"),
    (errors.NotFound, "NOT_FOUND"),
    (errors.RateLimited, "RESOURCE_EXHAUSTED"),
    (errors.ServerFailed, "INTERNAL UNKNOWN"),
    (errors.Overloaded, "UNAVAILABLE"),
    (errors.RequestTimeout, "DEADLINE_EXCEEDED"),
)
_BAD_KEY = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_EXPIRED", "CREDENTIALS_MISSING"})
_TOO_LONG = ("input token count", "exceeds the maximum number of tokens")
"""Context length has no status of its own; a message with both texts tells."""


@dataclass(slots=True, eq=False)
class GeminiReplyState:
    """The state of one reply, whole or streamed. Every chunk is a whole response object with the new parts."""

    _parts: list[tuple[dict[str, Any], list[str]]] = field(default_factory=list[Any])
    """Parts to send back, each with the pieces of its text."""
    _calls: int = 0
    _finish: JSON = None
    _usage: dict[str, Any] = field(default_factory=dict[str, Any])
    _id: str | None = None
    raw: JSON = None
    """The last object."""

    @property
    def has_finished(self) -> bool:
        """Whether a finish reason has come."""
        return self._finish is not None

    def take(self, body: dict[str, Any]) -> list[Delta]:
        """Return the deltas of one response object."""
        self.raw = body
        self._id = body.get("responseId") or self._id
        self._usage |= mapping(body.get("usageMetadata"))
        candidates = objects(body.get("candidates"))
        if not candidates:
            return []
        first = candidates[0]  # the others, if the user requested some, are in `raw`
        self._finish = first.get("finishReason") or self._finish
        deltas: list[Delta] = []
        for part in objects(mapping(first.get("content")).get("parts")):
            deltas += self._part(part)
        return deltas

    def _part(self, part: dict[str, Any]) -> list[Delta]:
        if "functionCall" in part:
            inner = mapping(part["functionCall"])
            index, self._calls = self._calls, self._calls + 1
            kept = {key: value for key, value in inner.items() if key != "args"}
            self._parts.append(({**part, "functionCall": kept}, []))
            arguments = arguments_text(inner.get("args")).strip() or "{}"
            return [ToolCallDelta(index, id=text(inner.get("id")), name=text(inner["name"]), arguments=arguments)]
        if "text" not in part:
            # Code, its result, inline data: not shown, but sent back. The API refuses a part without content.
            if "thoughtSignature" in part or any(isinstance(value, dict) for value in part.values()):
                self._parts.append((part, []))
            return []
        words = text(part["text"])
        if part.get("thought"):
            if "thoughtSignature" in part:
                self._parts.append((part, [words]))
            return [ReasoningDelta(words)] if words else []
        # Plain text is joined with the plain text before it; a part with a signature stays separate.
        is_plain = part.keys() == {"text"}
        if is_plain and self._parts and self._parts[-1][0].keys() == {"text"}:
            self._parts[-1][1].append(words)
        elif words or not is_plain:
            self._parts.append((part, [words]))
        return [TextDelta(words)] if words else []

    def done(self) -> Done:
        """Return the end of the reply."""
        return Done(
            finish_reason=_FINISH.get(self._finish, "other"),
            raw_finish_reason=self._finish if isinstance(self._finish, str) else None,
            usage=_usage(self._usage),
            details=self._details(),
            response_id=self._id,
            raw=self.raw,
        )

    def _details(self) -> dict[str, Any]:
        """Return the parts in order, if text and calls alone are not enough to restore them."""
        parts = [{**part, "text": "".join(words)} if "text" in part else part for part, words in self._parts]
        call_keys = [mapping(part.get("functionCall")).keys() for part in parts]
        plain = [
            part.keys() == {"text"} or (part.keys() == {"functionCall"} and keys == {"name"})
            for part, keys in zip(parts, call_keys, strict=True)
        ]
        texts = [index for index, part in enumerate(parts) if "text" in part]
        if all(plain) and texts in ([], [0]):
            return {}
        return {"gemini": {"parts": parts}}


def _usage(counts: Mapping[str, Any]) -> Usage | None:
    """Return the token counts. The wire omits counts of zero, and counts thoughts apart from the candidates."""
    if not counts:
        return None
    thoughts = int(counts.get("thoughtsTokenCount") or 0)
    inputs = int(counts.get("promptTokenCount") or 0) + int(counts.get("toolUsePromptTokenCount") or 0)
    outputs = int(counts.get("candidatesTokenCount") or 0) + thoughts
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        total_tokens=int(counts.get("totalTokenCount") or inputs + outputs),
        cached_tokens=int(counts.get("cachedContentTokenCount") or 0),
        reasoning_tokens=thoughts,
    )


def blocked(codec: Codec, body: JSON) -> None:
    """Check that the prompt was not blocked.

    Raises:
        ContentFiltered: The answer has `promptFeedback.blockReason` and no candidate.
    """
    given = mapping(body)
    reason = mapping(given.get("promptFeedback")).get("blockReason")
    if reason and not given.get("candidates"):
        raise errors.ContentFiltered(
            f"The prompt was blocked: {quoted(reason, 'no reason given')}.",
            provider=codec.provider,
            model=codec.model,
            status=200,
            code=str(reason),
            request_id=text(given.get("responseId")) or None,
            body=body,
        )


def sort_error(
    codec: Codec, status: int | None, headers: Mapping[str, str], body: JSON, words: str = ""
) -> ProviderError:
    """Return the error in a body, by its status word and details, or else by the HTTP status."""
    given = mapping(body).get("error")
    error = mapping(given)
    word = error.get("status") if isinstance(error.get("status"), str) else None
    number = error.get("code") if isinstance(error.get("code"), int) else None
    said = quoted(error.get("message") or (given if isinstance(given, str) else words))
    details = known_objects(error.get("details"))
    found = _BY_STATUS.get(word or "") or error_for_status(status if status and status >= 400 else number or 200)
    found = _refined(found, said, details)
    return codec.failure(
        found,
        said,
        status=status,
        headers=headers,
        body=body,
        code=_reason(details) or word or number,
        request_ids=(headers.get("x-request-id"),),
        wait=_delay(details),
    )


def _refined(found: type[ProviderError], said: str, details: list[dict[str, Any]]) -> type[ProviderError]:
    if found is errors.BadRequest:
        if _reason(details) in _BAD_KEY:
            return errors.AuthenticationFailed
        if all(part in said.lower() for part in _TOO_LONG):
            return errors.ContextTooLong
    if found is errors.RateLimited:
        quotas = [str(broken.get("quotaId")) for item in details for broken in known_objects(item.get("violations"))]
        if any("PerDay" in quota or "PerMonth" in quota for quota in quotas):
            return errors.QuotaExceeded  # free and paid tiers also have quotas per day; waiting a minute does not help
    return found


def _reason(details: list[dict[str, Any]]) -> str | None:
    return next((str(item["reason"]) for item in details if item.get("reason")), None)


def _delay(details: list[dict[str, Any]]) -> float | None:
    given: Any = next((item["retryDelay"] for item in details if "retryDelay" in item), None)
    return seconds(mapping(cast("object", given)).get("seconds") if isinstance(given, dict) else given)
