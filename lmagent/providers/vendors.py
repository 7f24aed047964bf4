"""The table of OpenAI-shaped vendors: what each does differently, as profiles. No code knows a vendor.

Facts as of November 2026 from vendors' pages and current clients; each can be overridden with
`dataclasses.replace(DEEPSEEK, ...)`. The first twenty or so are reached by name (`PROFILES`); the platforms of LMClient
that also have dialects of their own are constants for their front doors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.base import Features, ParameterRule
from lmagent.providers.conversation import ACKNOWLEDGED
from lmagent.providers.fields import only, same, within
from lmagent.providers.minimax import MINIMAX_ERRORS
from lmagent.providers.openai.profile import COMMON_PARAMETERS, GENERIC, ModelRule, Profile
from lmagent.providers.zhipu import ERRORS as ZHIPU_ERRORS

__all__ = [
    "BAICHUAN",
    "BAILIAN",
    "DEEPSEEK",
    "GENERIC",
    "GROQ",
    "HUNYUAN",
    "LLAMA_CPP",
    "LM_STUDIO",
    "MINIMAX",
    "MINIMAX_V2",
    "MISTRAL",
    "MOONSHOT",
    "OLLAMA",
    "OPENROUTER",
    "PROFILES",
    "QWEN",
    "SILICONFLOW",
    "STEPFUN",
    "TOGETHER",
    "VLLM",
    "VOLCENGINE",
    "WENXIN",
    "XAI",
    "YI",
    "ZHIPU",
    "profile_of",
]

_Choices: TypeAlias = frozenset[Literal["auto", "required", "none", "named"]]
_AUTO: _Choices = frozenset({"auto"})
_AUTO_NONE: _Choices = frozenset({"auto", "none"})
_NO_REQUIRED: _Choices = frozenset({"auto", "none", "named"})


def _with(*names: str, **rules: ParameterRule) -> dict[str, ParameterRule]:
    """Return the common parameters and a vendor's own."""
    return {**COMMON_PARAMETERS, **same(*names), **rules}


def _only_these(*names: str, **rules: ParameterRule) -> dict[str, ParameterRule]:
    """Return a closed set: the vendor refuses or has never heard of the others."""
    return {**same(*names), **rules}


DEEPSEEK = Profile(
    provider="deepseek",
    base_url="https://api.deepseek.com",
    key_env=("DEEPSEEK_API_KEY",),
    base_url_env=("DEEPSEEK_BASE_URL",),
    default_model="deepseek-chat",
    features=Features(images=False, json_schema="object", reasoning=True),
    parameters=_with("thinking"),
    stream_usage=True,
    reasoning_back="tools",
    # "Thinking mode does not support this tool_choice"; thinking is on by default.
    forced_adds={"thinking": {"type": "disabled"}},
)

MOONSHOT = Profile(
    provider="moonshot",
    base_url="https://api.moonshot.ai/v1",
    key_env=("MOONSHOT_API_KEY",),
    base_url_env=("MOONSHOT_BASE_URL",),
    default_model="kimi-k2.6",
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
    provider="qwen",
    base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
    key_env=("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
    base_url_env=("DASHSCOPE_COMPATIBLE_BASE_URL",),
    default_model="qwen-plus",
    features=Features(tool_choice=_NO_REQUIRED, json_schema="object", reasoning=True),
    parameters=_with(
        "top_k",
        "repetition_penalty",
        "enable_thinking",
        "thinking_budget",
        "enable_search",
        "search_options",
        temperature=within("temperature", 0, 2, sent=(0, 1.99)),
        top_p=within("top_p", 0, 1, sent=(0.01, 1)),
    ),
    stream_usage=True,
    error_codes={
        "invalidapikey": AuthenticationFailed,
        "arrearage": QuotaExceeded,
        "accessdenied": PermissionDenied,
        "modelnotfound": NotFound,
        "datainspectionfailed": ContentFiltered,
        "limit_requests": RateLimited,
        "limit_burst_rate": RateLimited,
        "throttling": RateLimited,
        "throttling.ratequota": RateLimited,
        "throttling.allocationquota": RateLimited,
        "insufficient_quota": RateLimited,  # tokens a minute; it recovers, unlike OpenAI's code of this name
        "requesttimeout": RequestTimeout,
        "internalerror": ServerFailed,
        "modelservingerror": Overloaded,
        "modelunavailable": Overloaded,
    },
    error_texts=(("free quota", QuotaExceeded), ("free tier", QuotaExceeded), ("free allocated", QuotaExceeded)),
    merge_system=True,
    arguments_must_be_json=True,
)

BAILIAN = replace(QWEN, provider="bailian")
"""Bailian's compatible mode: the same service under LMClient's name."""

MISTRAL = Profile(
    provider="mistral",
    base_url="https://api.mistral.ai/v1",
    key_env=("MISTRAL_API_KEY",),
    base_url_env=("MISTRAL_BASE_URL",),
    default_model="mistral-large-latest",
    features=Features(reasoning=True),
    parameters=_only_these(
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "safe_prompt",
        "prompt_mode",
        "prediction",
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
    provider="groq",
    base_url="https://api.groq.com/openai/v1",
    key_env=("GROQ_API_KEY",),
    base_url_env=("GROQ_BASE_URL",),
    default_model="openai/gpt-oss-20b",
    # Schemas do not go together with streams or tools on most models.
    features=Features(json_schema="object", reasoning=True),
    parameters=_with("reasoning_format", "include_reasoning", "service_tier"),
    stream_usage=True,
    # The model wrote a call that Groq could not read; asked again, it writes another one.
    error_codes={"tool_use_failed": ServerFailed},
)

OPENROUTER = Profile(
    provider="openrouter",
    base_url="https://openrouter.ai/api/v1",
    key_env=("OPENROUTER_API_KEY",),
    base_url_env=("OPENROUTER_BASE_URL",),
    default_model="openai/gpt-5.4-mini",
    features=Features(reasoning=True),
    parameters=_with(
        "top_k",
        "top_a",
        "min_p",
        "repetition_penalty",
        "verbosity",
        "reasoning",
        "provider",
        "models",
        "plugins",
        "transforms",
    ),
    stream_usage=True,
    text_parts=True,
    files=True,
    reasoning_details=True,
    strict=True,
)

TOGETHER = Profile(
    provider="together",
    base_url="https://api.together.xyz/v1",
    key_env=("TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
    base_url_env=("TOGETHER_BASE_URL",),
    default_model="openai/gpt-oss-20b",
    features=Features(reasoning=True),
    parameters=_with("top_k", "min_p", "repetition_penalty", "reasoning"),
    stream_usage=True,
)

XAI = Profile(
    provider="xai",
    base_url="https://api.x.ai/v1",
    key_env=("XAI_API_KEY",),
    base_url_env=("XAI_BASE_URL",),
    default_model="grok-4",
    features=Features(reasoning=True),
    parameters=_with("search_parameters"),
    model_rules=(
        ModelRule(
            models=("grok-4*", "grok-code*"),
            refuses=frozenset({"stop", "frequency_penalty", "presence_penalty"}),
        ),
    ),
    stream_usage=True,
    user_name=False,
)

STEPFUN = Profile(
    provider="stepfun",
    base_url="https://api.stepfun.com/v1",
    key_env=("STEP_API_KEY", "STEPFUN_API_KEY"),
    base_url_env=("STEP_BASE_URL",),
    default_model="step-3.5-flash",
    features=Features(tool_choice=_AUTO_NONE, json_schema="object", reasoning=True),
    stream_usage=True,
)

YI = Profile(
    provider="yi",
    base_url="https://api.lingyiwanwu.com/v1",
    key_env=("YI_API_KEY", "LINGYI_API_KEY"),
    base_url_env=("YI_BASE_URL",),
    default_model="yi-lightning",
    features=Features(tool_choice=_AUTO_NONE, json_schema="object"),
)

SILICONFLOW = Profile(
    provider="siliconflow",
    base_url="https://api.siliconflow.cn/v1",
    key_env=("SILICONFLOW_API_KEY",),
    base_url_env=("SILICONFLOW_BASE_URL",),
    default_model="Qwen/Qwen3-8B",
    features=Features(tool_choice=_AUTO_NONE, json_schema="object", reasoning=True),
    parameters=_with("top_k", "min_p", "enable_thinking", "thinking_budget"),
    stream_usage=True,
)

VOLCENGINE = Profile(
    provider="volcengine",
    base_url="https://ark.cn-beijing.volces.com/api/v3",
    key_env=("ARK_API_KEY", "VOLCENGINE_API_KEY"),
    base_url_env=("ARK_BASE_URL",),
    default_model="doubao-seed-1-6",
    features=Features(json_schema="object", reasoning=True),
    parameters=_with("thinking", "repetition_penalty", "service_tier"),
    stream_usage=True,
)

_LOCAL = Profile(
    provider="local-server",
    needs_key=False,
    features=Features(reasoning=True, constrained="json_schema"),
    parameters=_with("top_k", "min_p", "repetition_penalty"),
    stream_usage=True,
    # A schema constrains all that the model writes there, so it could not call a tool.
    schema_with_tools=False,
)

OLLAMA = replace(
    _LOCAL,
    provider="ollama",
    base_url="http://localhost:11434/v1",
    key_env=("OLLAMA_API_KEY",),
    base_url_env=("OLLAMA_BASE_URL", "OLLAMA_HOST"),
    default_model="qwen3",
    features=Features(tool_choice=_AUTO, reasoning=True, constrained="json_schema"),
)

VLLM = replace(
    _LOCAL,
    provider="vllm",
    base_url="http://localhost:8000/v1",
    key_env=("VLLM_API_KEY",),
    base_url_env=("VLLM_BASE_URL",),
    parameters=_with(
        "top_k",
        "min_p",
        "repetition_penalty",
        "chat_template_kwargs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "structured_outputs",
    ),
    merge_system=True,
)

LLAMA_CPP = replace(
    _LOCAL,
    provider="llamacpp",
    base_url="http://localhost:8080/v1",
    key_env=("LLAMA_API_KEY",),
    base_url_env=("LLAMA_CPP_BASE_URL",),
    features=Features(reasoning=True, constrained="grammar"),
    parameters=_with("top_k", "min_p", repetition_penalty="repeat_penalty", grammar="grammar"),
    merge_system=True,
)

LM_STUDIO = replace(
    _LOCAL,
    provider="lmstudio",
    base_url="http://localhost:1234/v1",
    base_url_env=("LM_STUDIO_BASE_URL",),
    key_env=("LM_STUDIO_API_KEY",),
)


_zhipu_range = within("temperature", 0, 1, sent=(0.01, 0.99))


def _zhipu_temperature(value: Any) -> dict[str, Any]:
    """Zhipu takes the open interval (0, 1): 0 means no sampling, sent as its own SDK does."""
    return _zhipu_range(value) | ({"do_sample": False} if value == 0 else {})


ZHIPU = Profile(
    provider="zhipu",
    base_url="https://open.bigmodel.cn/api/paas/v4",
    key_env=("ZHIPU_API_KEY", "ZHIPUAI_API_KEY", "ZAI_API_KEY"),
    base_url_env=("ZHIPUAI_BASE_URL", "ZAI_BASE_URL"),
    default_model="glm-4.6",
    features=Features(tool_choice=_AUTO, json_schema="object", reasoning=True),
    parameters=_only_these(
        "max_tokens",
        "stop",
        "seed",
        "response_format",
        "reasoning_effort",
        "do_sample",
        "thinking",
        "tool_stream",
        "request_id",
        "meta",
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
    provider="baichuan",
    base_url="https://api.baichuan-ai.com/v1",
    key_env=("BAICHUAN_API_KEY",),
    base_url_env=("BAICHUAN_BASE_URL",),
    default_model="Baichuan4-Turbo",
    features=Features(tool_choice=_AUTO, images=False, json_schema="object", stop=False),
    parameters=_only_these(
        "top_p",
        "top_k",
        "max_tokens",
        "response_format",
        temperature=within("temperature", 0, 1),
    ),
)
"""Baichuan's current API."""

HUNYUAN = Profile(
    provider="hunyuan",
    base_url="https://api.hunyuan.cloud.tencent.com/v1",
    key_env=("HUNYUAN_API_KEY",),
    base_url_env=("HUNYUAN_BASE_URL",),
    default_model="hunyuan-turbos-latest",
    features=Features(tool_choice=_NO_REQUIRED, json_schema="none", reasoning=True),
    parameters=_with("enable_enhancement", "enable_thinking", "search_info", "citation", "force_search_enhancement"),
)
"""Hunyuan's OpenAI-compatible endpoint."""

MINIMAX = Profile(
    provider="minimax",
    base_url="https://api.minimax.io/v1",
    key_env=("MINIMAX_API_KEY",),
    base_url_env=("MINIMAX_BASE_URL",),
    default_model="MiniMax-M2.7",
    features=Features(tool_choice=_AUTO_NONE, json_schema="none", reasoning=True),
    parameters=_with(
        "reasoning_split",
        "thinking",
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
    base_url="https://api.minimax.chat/v1",
    path="/text/chatcompletion_v2",
    default_model="MiniMax-Text-01",
    parameters=_with(
        temperature=within("temperature", 0, 1, sent=(0.01, 1)),
        top_p=within("top_p", 0, 1, sent=(0.01, 1)),
    ),
    stream_usage=False,
    think_tags=False,
    reasoning_details=False,
    empty_content="null",
    parameters_as_text=True,
)
"""MiniMax's chatcompletion_v2 of 2024: a tool's schema is a text there."""

WENXIN = Profile(
    provider="wenxin",
    base_url="https://qianfan.baidubce.com/v2",
    key_env=("QIANFAN_API_KEY",),
    base_url_env=("WENXIN_BASE_URL",),
    default_model="ernie-4.5-turbo-128k",
    features=Features(json_schema="object", reasoning=True),
    parameters=_with("penalty_score", "repetition_penalty", "web_search", "metadata", "enable_thinking"),
    stream_usage=True,
    error_codes={
        "malformed_json": BadRequest,
        "invalid_messages": BadRequest,
        "invalid_argument": BadRequest,
        "characters_too_long": ContextTooLong,
        "tokens_too_long": ContextTooLong,
        "unsafe_request": ContentFiltered,
        "invalid_iam_token": AuthenticationFailed,
        "no_parameter_permission": PermissionDenied,
    },
)
"""Qianfan v2, Wenxin's current API."""

PROFILES: Mapping[str, Profile] = {
    profile.provider: profile
    for profile in (
        DEEPSEEK,
        MOONSHOT,
        QWEN,
        MISTRAL,
        GROQ,
        OPENROUTER,
        TOGETHER,
        XAI,
        STEPFUN,
        YI,
        SILICONFLOW,
        VOLCENGINE,
        OLLAMA,
        VLLM,
        LLAMA_CPP,
        LM_STUDIO,
        GENERIC,
    )
}
"""Vendor name -> profile, for those that have no front door of their own."""


def profile_of(vendor: str) -> Profile:
    """Return the profile of a vendor.

    Raises:
        ConfigurationError: No such vendor; the message lists the known ones.
    """
    profile = PROFILES.get(vendor)
    if profile is None:
        raise ConfigurationError(f"No vendor {vendor!r}; known are {', '.join(sorted(PROFILES))}.")
    return profile
