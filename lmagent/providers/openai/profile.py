"""The differences between OpenAI-shaped servers, as data: `Profile`, and the profiles of OpenAI.

The codec reads profiles and knows no provider. The other providers' profiles are in `vendor_profiles`; your own is
`replace(GENERIC, provider="acme", base_url="https://api.acme.example/v1")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, TypedDict

from lmagent.core.messages import FinishReason
from lmagent.errors import ParameterError, ProviderError
from lmagent.providers.base import Features, ParameterRule
from lmagent.providers.fields import same
from lmagent.providers.vendors import VENDORS

__all__ = [
    "COMMON_PARAMETERS", "GENERIC", "OPENAI", "OPENAI_SHAPED", "REASONING_MODELS", "Endpoint", "ErrorClass",
    "ModelRule", "Profile", "endpoint", "profile_at", "rules_of_model",
]  # fmt: skip

ErrorClass: TypeAlias = type[ProviderError]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelRule:
    """What some models of a server refuse. If it is wrong for your model, pass `model_rules=()` to the codec."""

    models: tuple[str, ...]
    """Shell patterns of model names, such as `"o3*"`."""
    refuses: frozenset[str] = frozenset()
    """Neutral names of parameters that these models answer with a 400."""
    while_reasoning: bool = False
    """Refuse only if `reasoning_effort` is set and is not `"none"`."""
    parameters: Mapping[str, ParameterRule] = field(default_factory=dict[str, ParameterRule])
    """Rules that replace the profile's for these models."""

    def fits(self, model: str, given: Mapping[str, Any]) -> bool:
        """Whether the rule applies to this model and these parameters."""
        if self.while_reasoning and given.get("reasoning_effort") in (None, "none"):
            return False
        return any(fnmatchcase(model, pattern) for pattern in self.models)


def rules_of_model(model_id: str, rules: Sequence[ModelRule], given: Mapping[str, Any]) -> dict[str, ParameterRule]:
    """Return the parameter rules of this model, which override the profile's.

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
                + "; omit it, or pass model_rules=() if this model takes it."
            )
        own |= rule.parameters
    return own


COMMON_PARAMETERS: Mapping[str, ParameterRule] = same(
    "temperature top_p max_tokens stop seed presence_penalty frequency_penalty user parallel_tool_calls",
    "logit_bias logprobs top_logprobs reasoning_effort response_format",
)
"""Names that nearly every OpenAI-shaped server accepts unchanged."""

_OPENAI_PARAMETERS: Mapping[str, ParameterRule] = {
    **COMMON_PARAMETERS,
    "max_tokens": "max_completion_tokens",
    **same("metadata prediction prompt_cache_key prompt_cache_retention safety_identifier service_tier store"),
    **same("verbosity web_search_options"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """One OpenAI-shaped server. The defaults are conservative: most servers accept them."""

    provider: str
    """First part of the model id."""
    base_url: str = ""
    path: str = "/chat/completions"
    key_env: tuple[str, ...] = ()
    """Environment variables of the key, in order of preference."""
    base_url_env: tuple[str, ...] = ()
    needs_key: bool = True
    auth: Literal["bearer", "api-key"] = "bearer"
    """`Authorization: Bearer <key>`, or the header `api-key`."""
    default_model: str = ""
    features: Features = field(default_factory=Features)

    parameters: Mapping[str, ParameterRule] = field(default_factory=lambda: COMMON_PARAMETERS)
    model_rules: tuple[ModelRule, ...] = ()
    max_stop: int = 0
    """Maximum number of stop sequences; 0: not known."""
    stream_usage: bool = False
    """Request usage in streams with `stream_options`."""
    finish_reasons: Mapping[str, FinishReason] = field(default_factory=dict[str, FinishReason])
    error_codes: Mapping[str, ErrorClass] = field(default_factory=dict[str, ErrorClass])
    error_texts: tuple[tuple[str, ErrorClass], ...] = ()
    code_in_message: bool = False
    """The code of an error is in parentheses at the end of its message."""

    system_role: Literal["system", "developer"] = "system"
    merge_system: bool = False
    """Several system messages become one, in front."""
    user_name: bool = True
    """The server accepts `name` on user messages; otherwise it is left out."""
    tool_name: bool = False
    """`name` is sent on tool messages."""
    text_parts: bool = False
    """A list of only text parts is sent as a list; otherwise as one text."""
    image_form: Literal["object", "text"] = "object"
    """`{"url": ...}`, or the bare URL."""
    files: bool = False
    empty_content: Literal["null", "text", "omit"] = "text"
    """Content of an assistant message that only calls tools: null, `""`, or no key."""
    arguments_must_be_json: bool = False
    """Broken arguments of earlier calls are sent as `{}`, because the server validates them."""
    call_ids: Literal["any", "max40", "alnum9"] = "any"
    """Which ids the server accepts; others are derived, the same one for a call and its result."""
    after_tool: str = ""
    """Assistant text put between a tool result and a user message, if the server refuses that sequence."""

    reasoning_back: Literal["", "calls", "tools"] = ""
    """`reasoning_content` is sent back: never, with messages that have calls, or with all if there are tools."""
    reasoning_placeholder: str = " "
    """Sent in place of missing reasoning (a history from another provider); empty: nothing is sent."""
    reasoning_details: bool = False
    """The list `reasoning_details` is sent back unchanged."""
    think_tags: bool = False
    """Answers begin with `<think>...</think>`: read as reasoning, sent back unchanged."""

    strict: bool = False
    """The server accepts `strict` on tools and schemas; otherwise it is left out."""
    parameters_as_text: bool = False
    """The schema of a tool is sent as JSON text."""
    schema_drop: frozenset[str] = frozenset()
    """Keywords that are left out of schemas."""
    schema_with_tools: bool = True
    """The server accepts an output schema together with tools; otherwise system text describes it then."""
    required_word: str = "required"
    """Wire value of the tool choice `required`."""
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
    parameters={**COMMON_PARAMETERS, **same("top_k min_p repetition_penalty verbosity metadata service_tier")},
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
"""Another provider's model at another address: `max_tokens` under its old name, no nulls, no strict schemas."""

_OPENAI_NAMES = ("gpt-[3-9]*", "chatgpt-*", "o[1-9]*", "ft:*", "openai/gpt-[3-9]*", "openai/o[1-9]*")


def profile_at(base_url: str | None, model: str) -> Profile:
    """Return the profile of an OpenAI-shaped server from its address and the model.

    OpenAI's own models have its profile behind a proxy too: they refuse `max_tokens`, which others require.
    """
    if not base_url or base_url.startswith(OPENAI.base_url):
        return OPENAI
    return OPENAI if any(fnmatchcase(model, name) for name in _OPENAI_NAMES) else OPENAI_SHAPED
