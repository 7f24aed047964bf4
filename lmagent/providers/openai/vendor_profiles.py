"""What each OpenAI-shaped provider does differently, as profiles. No code branches on a provider's name.

Addresses, key names and usual models come from the vendor table (`providers/vendors.py`), which names the profile of
each row. Facts as of November 2026, from the providers' pages and current clients; each can be changed with
`dataclasses.replace(DEEPSEEK, ...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

from lmagent import errors
from lmagent.errors import ConfigurationError
from lmagent.providers.base import Features, ParameterRule
from lmagent.providers.conversation import ACKNOWLEDGED
from lmagent.providers.fields import by_code, only, same, within
from lmagent.providers.minimax import MINIMAX_ERRORS
from lmagent.providers.openai.profile import COMMON_PARAMETERS, GENERIC, ModelRule, Profile, endpoint
from lmagent.providers.vendors import VENDORS
from lmagent.providers.zhipu import ERRORS as ZHIPU_ERRORS

__all__ = [
    "BAICHUAN", "BAILIAN", "DEEPSEEK", "GENERIC", "GROQ", "HUNYUAN", "LLAMA_CPP", "LM_STUDIO", "MINIMAX", "MINIMAX_V2",
    "MISTRAL", "MOONSHOT", "OLLAMA", "OPENROUTER", "PROFILES", "QWEN", "SILICONFLOW", "STEPFUN", "TOGETHER", "VLLM",
    "VOLCENGINE", "WENXIN", "XAI", "YI", "ZHIPU", "profile_of",
]  # fmt: skip

_Choices: TypeAlias = frozenset[Literal["auto", "required", "none", "named"]]
_AUTO: _Choices = frozenset({"auto"})
_AUTO_NONE: _Choices = frozenset({"auto", "none"})
_NO_REQUIRED: _Choices = frozenset({"auto", "none", "named"})


def _with(*names: str, **rules: ParameterRule) -> dict[str, ParameterRule]:
    """Return the common parameters and a provider's own; names are separated by blanks."""
    return {**COMMON_PARAMETERS, **same(*names), **rules}


def _only_these(*names: str, **rules: ParameterRule) -> dict[str, ParameterRule]:
    """Return a closed set: the provider refuses or does not know other parameters."""
    return {**same(*names), **rules}


DEEPSEEK = Profile(
    **endpoint("deepseek"),
    features=Features(images=False, json_schema="object", reasoning=True),
    parameters=_with("thinking"),
    stream_usage=True,
    reasoning_back="tools",
    # "Thinking mode does not support this tool_choice"; thinking is on by default.
    forced_adds={"thinking": {"type": "disabled"}},
)

MOONSHOT = Profile(
    **endpoint("moonshot"),
    features=Features(tool_choice=_AUTO_NONE, json_schema="object", reasoning=True),
    parameters=_with("thinking", temperature=within("temperature", 0, 1)),
    model_rules=(
        ModelRule(
            models=("kimi-thinking*", "kimi-k2-thinking*", "kimi-k2.5*", "kimi-k2.6*"),
            parameters={"temperature": only("temperature", 1)},
        ),
    ),
    stream_usage=True,
    reasoning_back="calls",
)

QWEN = Profile(
    **endpoint("qwen"),
    features=Features(tool_choice=_NO_REQUIRED, json_schema="object", reasoning=True),
    parameters=_with(
        "top_k repetition_penalty enable_thinking thinking_budget enable_search search_options",
        temperature=within("temperature", 0, 2, sent=(0, 1.99)),
        top_p=within("top_p", 0, 1, sent=(0.01, 1)),
    ),
    stream_usage=True,
    error_codes=by_code(
        (errors.AuthenticationFailed, "invalidapikey"),
        (errors.QuotaExceeded, "arrearage"),
        (errors.PermissionDenied, "accessdenied"),
        (errors.NotFound, "modelnotfound"),
        (errors.ContentFiltered, "datainspectionfailed"),
        (errors.RateLimited, "limit_requests limit_burst_rate"),
        (errors.RateLimited, "throttling throttling.ratequota throttling.allocationquota"),
        (errors.RateLimited, "insufficient_quota"),  # tokens a minute; it recovers, unlike OpenAI's code of this name
        (errors.RequestTimeout, "requesttimeout"),
        (errors.ServerFailed, "internalerror"),
        (errors.Overloaded, "modelservingerror modelunavailable"),
    ),
    error_texts=tuple((words, errors.QuotaExceeded) for words in ("free quota", "free tier", "free allocated")),
    merge_system=True,
    arguments_must_be_json=True,
)

BAILIAN = replace(QWEN, **endpoint("bailian", "compatible", address="compatible_base_url"))
"""Bailian's compatible mode: the same service under LMClient's name."""

MISTRAL = Profile(
    **endpoint("mistral"),
    features=Features(reasoning=True),
    parameters=_only_these(
        "temperature top_p max_tokens stop presence_penalty frequency_penalty parallel_tool_calls response_format",
        "reasoning_effort safe_prompt prompt_mode prediction",
        seed="random_seed",
    ),
    user_name=False,
    tool_name=True,
    image_form="text",
    call_ids="alnum9",
    after_tool=ACKNOWLEDGED,
    required_word="any",
    schema_drop=frozenset({"$id", "$schema", "strict", "additionalProperties"}),
)

GROQ = Profile(
    **endpoint("groq"),
    # Schemas do not go together with streams or tools on most models.
    features=Features(json_schema="object", reasoning=True),
    parameters=_with("reasoning_format include_reasoning service_tier"),
    stream_usage=True,
    # The model wrote a call that Groq could not read; on a retry it writes another one.
    error_codes={"tool_use_failed": errors.ServerFailed},
)

OPENROUTER = Profile(
    **endpoint("openrouter"),
    features=Features(reasoning=True),
    parameters=_with("top_k top_a min_p repetition_penalty verbosity reasoning provider models plugins transforms"),
    stream_usage=True,
    text_parts=True,
    files=True,
    reasoning_details=True,
    strict=True,
)

TOGETHER = Profile(
    **endpoint("together"),
    features=Features(reasoning=True),
    parameters=_with("top_k min_p repetition_penalty reasoning"),
    stream_usage=True,
)

XAI = Profile(
    **endpoint("xai"),
    features=Features(reasoning=True),
    parameters=_with("search_parameters"),
    model_rules=(
        ModelRule(
            models=("grok-4*", "grok-code*"), refuses=frozenset({"stop", "frequency_penalty", "presence_penalty"})
        ),
    ),
    stream_usage=True,
    user_name=False,
)

STEPFUN = Profile(
    **endpoint("stepfun"),
    features=Features(tool_choice=_AUTO_NONE, json_schema="object", reasoning=True),
    stream_usage=True,
)

YI = Profile(**endpoint("yi"), features=Features(tool_choice=_AUTO_NONE, json_schema="object"))

SILICONFLOW = Profile(
    **endpoint("siliconflow"),
    features=Features(tool_choice=_AUTO_NONE, json_schema="object", reasoning=True),
    parameters=_with("top_k min_p enable_thinking thinking_budget"),
    stream_usage=True,
)

VOLCENGINE = Profile(
    **endpoint("volcengine"),
    features=Features(json_schema="object", reasoning=True),
    parameters=_with("thinking repetition_penalty service_tier"),
    stream_usage=True,
)

_LOCAL = Profile(
    provider="local-server",
    features=Features(reasoning=True, constrained="json_schema"),
    parameters=_with("top_k min_p repetition_penalty"),
    stream_usage=True,
    # A schema constrains everything the model writes, so that it could not call a tool.
    schema_with_tools=False,
)

OLLAMA = replace(
    _LOCAL, **endpoint("ollama"), features=Features(tool_choice=_AUTO, reasoning=True, constrained="json_schema")
)

VLLM = replace(
    _LOCAL,
    **endpoint("vllm"),
    parameters=_with(
        "top_k min_p repetition_penalty chat_template_kwargs guided_json guided_regex guided_choice",
        "structured_outputs",
    ),
    merge_system=True,
)

LLAMA_CPP = replace(
    _LOCAL,
    **endpoint("llamacpp"),
    features=Features(reasoning=True, constrained="grammar"),
    parameters=_with("top_k min_p", repetition_penalty="repeat_penalty", grammar="grammar"),
    merge_system=True,
)

LM_STUDIO = replace(_LOCAL, **endpoint("lmstudio"))

_zhipu_range = within("temperature", 0, 1, sent=(0.01, 0.99))


def _zhipu_temperature(value: Any) -> dict[str, Any]:
    """Zhipu takes the open interval (0, 1): 0 means no sampling, sent as its own SDK does."""
    return _zhipu_range(value) | ({"do_sample": False} if value == 0 else {})


ZHIPU = Profile(
    **endpoint("zhipu"),
    features=Features(tool_choice=_AUTO, json_schema="object", reasoning=True),
    parameters=_only_these(
        "max_tokens stop seed response_format reasoning_effort do_sample thinking tool_stream request_id meta",
        "sensitive_word_check",
        temperature=_zhipu_temperature,
        top_p=within("top_p", 0, 1, sent=(0.01, 0.99)),
        user="user_id",
    ),
    max_stop=1,
    reasoning_back="calls",
    reasoning_placeholder="",
    arguments_must_be_json=True,
    error_codes=ZHIPU_ERRORS,
)
"""Zhipu v4."""

BAICHUAN = Profile(
    **endpoint("baichuan"),
    features=Features(tool_choice=_AUTO, images=False, json_schema="object", stop=False),
    parameters=_only_these("top_p top_k max_tokens response_format", temperature=within("temperature", 0, 1)),
)
"""Baichuan's current API."""

HUNYUAN = Profile(
    **endpoint("hunyuan"),
    features=Features(tool_choice=_NO_REQUIRED, json_schema="none", reasoning=True),
    parameters=_with("enable_enhancement enable_thinking search_info citation force_search_enhancement"),
)
"""Hunyuan's OpenAI-compatible endpoint."""

MINIMAX = Profile(
    **endpoint("minimax"),
    features=Features(tool_choice=_AUTO_NONE, json_schema="none", reasoning=True),
    parameters=_with(
        "reasoning_split thinking",
        temperature=within("temperature", 0, 1, sent=(0.01, 1)),
        top_p=within("top_p", 0, 1, sent=(0.01, 1)),
    ),
    stream_usage=True,
    think_tags=True,
    reasoning_details=True,
    arguments_must_be_json=True,
    finish_reasons={"max_output": "length"},
    error_codes=MINIMAX_ERRORS,
    code_in_message=True,
)
"""MiniMax's current API."""

MINIMAX_V2 = replace(
    MINIMAX,
    **endpoint("minimax", "v2"),
    path="/text/chatcompletion_v2",
    parameters=_with(
        temperature=within("temperature", 0, 1, sent=(0.01, 1)), top_p=within("top_p", 0, 1, sent=(0.01, 1))
    ),
    stream_usage=False,
    think_tags=False,
    reasoning_details=False,
    empty_content="null",
    parameters_as_text=True,
)
"""MiniMax's chatcompletion_v2 of 2024: a tool's schema is a text there."""

WENXIN = Profile(
    **endpoint("wenxin"),
    features=Features(json_schema="object", reasoning=True),
    parameters=_with("penalty_score repetition_penalty web_search metadata enable_thinking"),
    stream_usage=True,
    error_codes=by_code(
        (errors.BadRequest, "malformed_json invalid_messages invalid_argument"),
        (errors.ContextTooLong, "characters_too_long tokens_too_long"),
        (errors.ContentFiltered, "unsafe_request"),
        (errors.AuthenticationFailed, "invalid_iam_token"),
        (errors.PermissionDenied, "no_parameter_permission"),
    ),
)
"""Qianfan v2, Wenxin's current API."""

PROFILES: Mapping[str, Profile] = {
    prefix: cast("Profile", globals()[entry.apis[0].profile.rpartition(":")[2]])
    for prefix, entry in VENDORS.items()
    if ("vendor", prefix) in entry.options
}
"""Prefix -> profile, for the providers without a model class of their own, in the order of the table."""


def profile_of(vendor: str) -> Profile:
    """Return the profile of a provider without a model class of its own.

    Raises:
        ConfigurationError: No such provider; the message lists the known ones.
    """
    profile = PROFILES.get(vendor)
    if profile is None:
        raise ConfigurationError(f"No vendor {vendor!r}; known are {', '.join(sorted(PROFILES))}.")
    return profile
