"""What tells one OpenAI-shaped server from another, as data: the `Profile`, and OpenAI's own.

The codec reads profiles and knows no vendor. Vendors' profiles are in `vendor_profiles.py`; a profile of your own is
`replace(GENERIC, provider="acme", base_url="https://api.acme.example/v1")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, TypedDict

from lmagent.core.messages import FinishReason
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
from lmagent.providers.base import Features, ParameterRule
from lmagent.providers.vendors import VENDORS

__all__ = [
    "COMMON_PARAMETERS",
    "ERROR_CODES",
    "ERROR_TEXTS",
    "FINISH_REASONS",
    "GENERIC",
    "OPENAI",
    "OPENAI_SHAPED",
    "REASONING_MODELS",
    "Endpoint",
    "ErrorClass",
    "ModelRule",
    "Profile",
    "endpoint",
    "profile_at",
    "rules_of_model",
]

ErrorClass: TypeAlias = type[ProviderError]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelRule:
    """What some models of a server refuse. Wrong for your model? Hand the codec `model_rules=()`."""

    models: tuple[str, ...]
    """Shell patterns of model names, such as `"o3*"`."""
    refuses: frozenset[str] = frozenset()
    """Neutral names of parameters that these models answer with a 400."""
    while_reasoning: bool = False
    """The refusal holds only when `reasoning_effort` is set to something else than `"none"`."""
    parameters: Mapping[str, ParameterRule] = field(default_factory=dict[str, ParameterRule])
    """Rules that replace the profile's for these models."""

    def fits(self, model: str, given: Mapping[str, Any]) -> bool:
        """Whether the rule speaks of this model and these parameters."""
        if self.while_reasoning and given.get("reasoning_effort") in (None, "none"):
            return False
        return any(fnmatchcase(model, pattern) for pattern in self.models)


def rules_of_model(model_id: str, rules: Sequence[ModelRule], given: Mapping[str, Any]) -> dict[str, ParameterRule]:
    """Return the parameter rules that go before the profile's for this model.

    Raises:
        ParameterError: The model refuses one of the parameters given.
    """
    model = model_id.partition("/")[2]
    own: dict[str, ParameterRule] = {}
    for rule in rules:
        if not rule.fits(model, given):
            continue
        refused = sorted(rule.refuses & given.keys())
        if refused:
            raise ParameterError(
                f"{model_id} does not take {', '.join(refused)}"
                + (" while it reasons (reasoning_effort='none' allows it)" if rule.while_reasoning else "")
                + "; leave it away, or pass model_rules=() if this model takes it."
            )
        own |= rule.parameters
    return own


COMMON_PARAMETERS: Mapping[str, ParameterRule] = {
    name: name
    for name in (
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "user",
        "parallel_tool_calls",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
        "response_format",
    )
}
"""Names that nearly every OpenAI-shaped server takes as they are."""

_OPENAI_PARAMETERS: Mapping[str, ParameterRule] = {
    **COMMON_PARAMETERS,
    "max_tokens": "max_completion_tokens",
    **{
        name: name
        for name in (
            "metadata",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "verbosity",
            "web_search_options",
        )
    },
}

FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "normal": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "error": "error",
    "network_error": "error",
}
"""Wire spelling -> ours; an unknown one is `other`, with the spelling kept beside it."""

ERROR_CODES: Mapping[str, ErrorClass] = {
    "insufficient_quota": QuotaExceeded,
    "insufficient_balance": QuotaExceeded,
    "billing_hard_limit_reached": QuotaExceeded,
    "billing_not_active": QuotaExceeded,
    "exceeded_current_quota_error": QuotaExceeded,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_reached_error": RateLimited,
    "rate_limit_error": RateLimited,
    "rpm_rate_limit_exceeded": RateLimited,
    "tpm_rate_limit_exceeded": RateLimited,
    "too_many_requests": RateLimited,
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "content_filter": ContentFiltered,
    "content_policy_violation": ContentFiltered,
    "responsibleaipolicyviolation": ContentFiltered,
    "data_inspection_failed": ContentFiltered,
    "invalid_api_key": AuthenticationFailed,
    "authentication_error": AuthenticationFailed,
    "invalid_authentication_error": AuthenticationFailed,
    "unsupported_country_region_territory": PermissionDenied,
    "permission_error": PermissionDenied,
    "access_denied": PermissionDenied,
    "model_not_found": NotFound,
    "deploymentnotfound": NotFound,
    "not_found_error": NotFound,
    "unsupported_parameter": BadRequest,
    "unsupported_value": BadRequest,
    "invalid_function_parameters": BadRequest,
    "tool_use_failed": BadRequest,
    "server_error": ServerFailed,
    "internal_error": ServerFailed,
    "internal_server_error": ServerFailed,
    "timeout": RequestTimeout,
    "overloaded": Overloaded,
    "overloaded_error": Overloaded,
    "engine_overloaded_error": Overloaded,
    "service_unavailable": Overloaded,
    # Types that say little come last in the look-up (see `openai_errors`), so that a telling code wins.
    "invalid_request_error": BadRequest,
    "bad_request_error": BadRequest,
    "badrequesterror": BadRequest,
}
"""`error.code` or `error.type`, lower case -> class. What is not here is sorted by its HTTP status."""

ERROR_TEXTS: tuple[tuple[str, ErrorClass], ...] = (
    ("maximum context length", ContextTooLong),
    ("context length", ContextTooLong),
    ("context window", ContextTooLong),
    ("context size", ContextTooLong),
    ("prompt is too long", ContextTooLong),
    ("input length should be", ContextTooLong),
    ("exceeded your current quota", QuotaExceeded),
    ("insufficient account balance", QuotaExceeded),
    ("insufficient balance", QuotaExceeded),
    ("insufficient credits", QuotaExceeded),
    ("余额不足", QuotaExceeded),
    ("欠费", QuotaExceeded),
)
"""Words of a 4xx message that tell more than its status, lower case; tried in order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """One OpenAI-shaped server. The defaults are the conservative ones that most servers take."""

    provider: str
    """First part of the model id."""
    base_url: str = ""
    path: str = "/chat/completions"
    key_env: tuple[str, ...] = ()
    """Environment names of the key, in order of preference."""
    base_url_env: tuple[str, ...] = ()
    needs_key: bool = True
    auth: Literal["bearer", "api-key"] = "bearer"
    """`Authorization: Bearer <key>`, or the header `api-key`."""
    default_model: str = ""
    features: Features = field(default_factory=Features)

    parameters: Mapping[str, ParameterRule] = field(default_factory=lambda: COMMON_PARAMETERS)
    model_rules: tuple[ModelRule, ...] = ()
    max_stop: int = 0
    """Most stop sequences; 0: not known."""
    stream_usage: bool = False
    """Ask for usage in streams with `stream_options`."""
    finish_reasons: Mapping[str, FinishReason] = field(default_factory=dict[str, FinishReason])
    error_codes: Mapping[str, ErrorClass] = field(default_factory=dict[str, ErrorClass])
    error_texts: tuple[tuple[str, ErrorClass], ...] = ()
    code_in_message: bool = False
    """An error's number stands in parentheses at the end of its message."""

    system_role: Literal["system", "developer"] = "system"
    merge_system: bool = False
    """Several system messages become one, in front."""
    user_name: bool = True
    """`name` is taken on user messages; where it is refused it is left out."""
    tool_name: bool = False
    """`name` is sent on tool messages."""
    text_parts: bool = False
    """A list of only text parts is sent as a list; else as one text."""
    image_form: Literal["object", "text"] = "object"
    """`{"url": ...}`, or the bare URL."""
    files: bool = False
    empty_content: Literal["null", "text", "omit"] = "text"
    """Content of an assistant message that only calls tools: null, `""`, or no such key."""
    arguments_must_be_json: bool = False
    """Broken arguments of earlier calls are sent as `{}`, because the server checks them."""
    call_ids: Literal["any", "max40", "alnum9"] = "any"
    """Which ids are taken; others are derived, the same for the call and its result."""
    after_tool: str = ""
    """Assistant text put between a tool result and a user message, where the server refuses them in a row."""

    reasoning_back: Literal["", "calls", "tools"] = ""
    """`reasoning_content` travels back on assistant messages with calls, or on all of a conversation with tools."""
    reasoning_placeholder: str = " "
    """Sent in place of reasoning that was lost (a history from elsewhere); empty: nothing is."""
    reasoning_details: bool = False
    """A list of `reasoning_details` travels back unchanged."""
    think_tags: bool = False
    """Answers begin with `<think>...</think>`: split off as reasoning, sent back as it came."""

    strict: bool = False
    """`strict` is known on tools and schemas; else it is left out."""
    parameters_as_text: bool = False
    """A tool's schema is sent as a JSON text."""
    schema_drop: frozenset[str] = frozenset()
    """Keywords left out of schemas."""
    schema_with_tools: bool = True
    """An answer's schema can stand beside tools; else the system text asks for it there."""
    required_word: str = "required"
    """Wire word for the tool choice `required`."""
    forced_adds: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Body members that a forced tool choice needs, unless the user set them."""


class Endpoint(TypedDict):
    """The fields of a profile that the vendor table holds."""

    provider: str
    base_url: str
    key_env: tuple[str, ...]
    base_url_env: tuple[str, ...]
    needs_key: bool
    default_model: str


def endpoint(prefix: str, api: str = "", *, address: str = "base_url") -> Endpoint:
    """Return these fields for one API of a provider.

    Args:
        prefix: Row of the vendor table.
        api: Name of the API; default: the first.
        address: The setting that holds the environment names of the address.
    """
    entry = VENDORS[prefix]
    chosen = entry.api(api)
    return Endpoint(
        provider=prefix,
        base_url=chosen.address,
        key_env=entry.env["api_key"],
        base_url_env=entry.env[address],
        needs_key="api_key" in chosen.needs,
        default_model=chosen.model,
    )


_SAMPLING = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"}
)

REASONING_MODELS: tuple[ModelRule, ...] = (
    ModelRule(models=("o1*", "o3*", "o4*", "gpt-5", "gpt-5-*"), refuses=_SAMPLING),
    ModelRule(models=("o3*", "o4-mini*"), refuses=frozenset({"stop"})),
    ModelRule(models=("gpt-5.*", "gpt-6*"), while_reasoning=True, refuses=_SAMPLING),
)
"""OpenAI's reasoning models and what they refuse (docs and clients as of November 2026)."""

OPENAI = Profile(
    **endpoint("openai"),
    features=Features(constrained="json_schema"),
    parameters=_OPENAI_PARAMETERS,
    model_rules=REASONING_MODELS,
    max_stop=4,
    stream_usage=True,
    text_parts=True,
    files=True,
    empty_content="null",
    call_ids="max40",
    strict=True,
)
"""OpenAI itself."""

GENERIC = Profile(
    **endpoint("compatible"),
    parameters={
        **COMMON_PARAMETERS,
        **{n: n for n in ("top_k", "min_p", "repetition_penalty", "verbosity", "metadata", "service_tier")},
    },
    files=True,
)
"""An unknown server: the most conservative body."""

OPENAI_SHAPED = replace(
    GENERIC,
    provider="openai",
    key_env=OPENAI.key_env,
    base_url_env=OPENAI.base_url_env,
    features=Features(reasoning=True),
    parameters={**OPENAI.parameters, **GENERIC.parameters},
    stream_usage=True,
)
"""Somebody else's model at another address: `max_tokens` under its old name, no nulls, no strict schemas."""

_OPENAI_NAMES = ("gpt-[3-9]*", "chatgpt-*", "o[1-9]*", "ft:*", "openai/gpt-[3-9]*", "openai/o[1-9]*")


def profile_at(base_url: str | None, model: str) -> Profile:
    """Return the profile of an OpenAI-shaped server of which only address and model are known.

    OpenAI's own models keep its profile behind a proxy too: they refuse `max_tokens`, which others want.
    """
    if not base_url or base_url.startswith(OPENAI.base_url):
        return OPENAI
    return OPENAI if any(fnmatchcase(model, name) for name in _OPENAI_NAMES) else OPENAI_SHAPED
