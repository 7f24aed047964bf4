"""Sort the errors of OpenAI-shaped servers: every known shape of an error body -> our error classes.

A server's own codes are data of its profile. Nothing here raises because of the content of a body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from lmagent import errors
from lmagent.core.json_text import JSON, JSONError, dumps_text
from lmagent.errors import InvalidResponse, ProviderError
from lmagent.providers.base import error_for_status
from lmagent.providers.fields import by_code, failure, first_text, mapping, quoted
from lmagent.providers.openai.profile import ErrorClass, Profile

__all__ = ["sort_error"]

ERROR_CODES = by_code(
    (errors.QuotaExceeded, "insufficient_quota insufficient_balance billing_hard_limit_reached billing_not_active"),
    (errors.QuotaExceeded, "exceeded_current_quota_error"),
    (errors.RateLimited, "rate_limit_exceeded rate_limit_reached_error rate_limit_error rpm_rate_limit_exceeded"),
    (errors.RateLimited, "tpm_rate_limit_exceeded too_many_requests"),
    (errors.ContextTooLong, "context_length_exceeded exceed_context_size_error"),
    (errors.ContentFiltered, "content_filter content_policy_violation responsibleaipolicyviolation"),
    (errors.ContentFiltered, "data_inspection_failed"),
    (errors.AuthenticationFailed, "invalid_api_key authentication_error invalid_authentication_error"),
    (errors.PermissionDenied, "unsupported_country_region_territory permission_error access_denied"),
    (errors.NotFound, "model_not_found deploymentnotfound not_found_error"),
    (errors.BadRequest, "unsupported_parameter unsupported_value invalid_function_parameters tool_use_failed"),
    (errors.ServerFailed, "server_error internal_error internal_server_error"),
    (errors.RequestTimeout, "timeout"),
    (errors.Overloaded, "overloaded overloaded_error engine_overloaded_error service_unavailable"),
    # Vague types; `_class_of` prefers a specific code.
    (errors.BadRequest, "invalid_request_error bad_request_error badrequesterror"),
)
"""`error.code` or `error.type`, lower case -> class. For any other, the HTTP status decides."""

_TOO_LONG = ("context length", "context window", "context size", "prompt is too long", "input length should be")
_NO_QUOTA = (
    "exceeded your current quota", "insufficient account balance", "insufficient balance", "insufficient credits",
    "余额不足", "欠费",
)  # fmt: skip
ERROR_TEXTS: Mapping[str, ErrorClass] = {
    **dict.fromkeys(_TOO_LONG, errors.ContextTooLong),
    **dict.fromkeys(_NO_QUOTA, errors.QuotaExceeded),
}
"""Words of a 4xx message that are more specific than its status, lower case; tried in order."""

_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-bc-request-id", "x-ds-trace-id")
_SIGNS = frozenset({"error", "base_resp"})
_CODE_AT_END = re.compile(r"\((\d{3,6})\)\s*$")


class _Found(NamedTuple):
    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None


def sort_error(
    profile: Profile, model: str, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
) -> ProviderError | None:
    """Return the error in an answer, also one in a body of status 200; None if the answer is no error."""
    fields = mapping(body)
    if status < 400 and fields.get("choices") and not fields.keys() & _SIGNS and not _error_of_choice(fields):
        return None  # like nearly every answer
    found = _find(body)
    if found is None and status < 400 and (body is not None or not text.strip()):
        return None
    if found is None:
        words = quoted(text)
        found = _Found(f"The answer is not JSON: {words}" if status < 400 else words)
    found = _with_code(profile, found)
    ids = (*(headers.get(name) for name in _REQUEST_ID_HEADERS), fields.get("request_id"), fields.get("id"))
    return failure(
        _class_of(profile, found, status),
        found.message,
        provider=profile.provider,
        model=model,
        status=status,
        headers=headers,
        body=body,
        suffix=f" [parameter {found.param!r}]" if found.param else "",
        code=found.code,
        request_ids=(first_text(*ids),),
        retryable=True if status == 409 else None,
    )


def _error_of_choice(data: Mapping[str, Any]) -> Any:
    """Return the error that OpenRouter puts inside a choice if the upstream provider failed."""
    choices = data.get("choices")
    return mapping(cast("list[Any]", choices)[0]).get("error") if isinstance(choices, list) and choices else None


def _find(body: JSON | None) -> _Found | None:
    """Return the error of a body in any of the known shapes; None if it has none."""
    if isinstance(body, list) and body:
        return _find(cast("list[Any]", body)[0])
    if not isinstance(body, dict):
        return None if body is None else _Found(f"The answer is no JSON object but {str(cast('object', body))[:80]!r}")
    data = cast("dict[str, Any]", body)
    error = data.get("error") or _error_of_choice(data)
    if isinstance(error, Mapping) and error:
        inner = cast("Mapping[str, Any]", error)
        cause = mapping(inner.get("innererror")).get("code")  # Azure's content filter
        return _Found(
            _as_text(inner.get("message") or inner.get("msg") or _nested(inner)),
            _as_code(inner.get("code")),
            _as_code(inner.get("type")) or _as_code(cause),
            _as_code(inner.get("param")),
        )
    if error and not isinstance(error, Mapping):
        return _Found(
            _as_text(data.get("error_description") or data.get("message") or error),
            _as_code(data.get("code")) or (error if isinstance(error, str) and " " not in error else None),
        )
    base = data.get("base_resp")
    if isinstance(base, Mapping):
        resp = cast("Mapping[str, Any]", base)
        if resp.get("status_code") not in (0, "0", None):
            return _Found(_as_text(resp.get("status_msg")), _as_code(resp.get("status_code")))
    if data.get("choices") or (data.get("id") and "choices" in data):
        return None
    code = data.get("code", data.get("statusCode", data.get("error_code")))
    message = data.get("message", data.get("msg", data.get("error_msg", data.get("detail"))))
    if message or data.get("object") == "error" or (code not in (None, 0, "0", 200, "200") and "choices" not in data):
        return _Found(_as_text(message), _as_code(code), _as_code(data.get("type")), _as_code(data.get("param")))
    return None


def _nested(error: Mapping[str, Any]) -> Any:
    """Return the message of an error object without one. OpenRouter has the upstream's message in `metadata.raw`."""
    metadata = error.get("metadata")
    raw = cast("Mapping[str, Any]", metadata).get("raw") if isinstance(metadata, Mapping) else None
    return raw or {name: value for name, value in error.items() if name != "param"}


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return dumps_text(value)
    except JSONError:
        return repr(value)


def _as_code(value: Any) -> str | None:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        return str(value)
    return None


def _with_code(profile: Profile, found: _Found) -> _Found:
    if not profile.code_in_message or (found.code and not found.code.startswith(("4", "5"))):
        return found
    match = _CODE_AT_END.search(found.message)
    return found._replace(code=match[1]) if match else found


def _class_of(profile: Profile, found: _Found, status: int) -> ErrorClass:
    message = found.message.lower()
    for words, kind in profile.error_texts:
        if words in message:
            return kind
    code = (found.code or "").lower()
    kind_of_code = profile.error_codes.get(code) or ERROR_CODES.get(code)
    if kind_of_code is not None:
        if kind_of_code is not ERROR_CODES["invalid_request_error"]:
            return kind_of_code
        return _by_text(message, 400 if code in profile.error_codes else status)  # a provider's own code is specific
    if not 400 <= status < 600 and code.isdecimal() and 400 <= int(code) < 600:
        status = int(code)  # a gateway's 200 with the real status inside
    kind_of_type = profile.error_codes.get((found.type or "").lower()) or ERROR_CODES.get((found.type or "").lower())
    by_text = _by_text(message, status)
    if kind_of_type is not None and by_text is error_for_status(status):
        # A vague type ("invalid_request_error" with status 401 or 404) must not override the status.
        vague = kind_of_type is ERROR_CODES["invalid_request_error"] and status >= 400
        return by_text if vague else kind_of_type
    return by_text


def _by_text(message: str, status: int) -> ErrorClass:
    if status < 500:
        for words, kind in ERROR_TEXTS.items():
            if words in message:
                return kind
    if status < 400:
        return errors.ServerFailed if "internal" in message and "error" in message else InvalidResponse
    return error_for_status(status)
