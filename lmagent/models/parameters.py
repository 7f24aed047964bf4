"""Model parameters under neutral names, and their checks. Codecs translate them; no wire name is known here.

Over 400 lines because it is a table: one class per model class, one documented field per parameter.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lmagent.errors import ParameterError, UnknownParameter

__all__ = [
    "AnthropicChatParameters", "AzureChatParameters", "BaichuanChatParameters", "BailianChatParameters",
    "CacheLife", "ChatParameters", "GeminiChatParameters", "HunyuanChatParameters", "LocalChatParameters",
    "MinimaxChatParameters", "MinimaxProChatParameters", "OpenAIChatParameters", "OpenAICompatibleChatParameters",
    "OpenAIResponsesChatParameters", "WenxinChatParameters", "ZhiPuCharacterChatParameters", "ZhiPuChatParameters",
]  # fmt: skip


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ChatParameters(BaseModel):
    """Parameters that every model takes under these names; what a provider cannot express is a clear error.

    All are optional: what is not set is not sent. Subclasses add a provider's own.

    Raises:
        ParameterError: An unknown name, a wrong type, or a value out of range; the message names field and range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Randomness; 0 is as deterministic as the provider can be."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Nucleus sampling."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Sample among the k likeliest tokens only."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens (reasoning included where the provider counts it)."""
    stop: Annotated[list[str], BeforeValidator(_as_list)] | None = None
    """The answer ends before any of these texts."""
    seed: int | None = None
    """For repeatable answers, where the provider knows it."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Positive: new subjects are likelier."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Positive: repetition is less likely."""
    user: str | None = None
    """Your end user's id, for the provider's abuse detection."""
    parallel_tool_calls: bool | None = None
    """Whether one answer may hold several tool calls."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How long a reasoning model thinks."""
    extra_body: dict[str, Any] | None = None
    """Members merged into the request body as they are, last: for what lmagent does not know."""
    extra_headers: dict[str, str] | None = None
    """Headers added to the request."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            text = _explain(type(self), error)
            unknown = [str(each["loc"][0]) for each in error.errors() if each["type"] == "extra_forbidden"]
            raise (UnknownParameter(text, names=unknown) if unknown else ParameterError(text)) from None

    def given(self) -> dict[str, Any]:
        """Return the parameters that were set, by name."""
        return {name: value for name, value in self if value is not None}


def _explain(kind: type[ChatParameters], error: ValidationError) -> str:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "?"
        if problem["type"] == "extra_forbidden":
            known = sorted(kind.model_fields.keys() - {"extra_body", "extra_headers"})
            close = get_close_matches(name, known, n=1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            lines.append(
                f"{name} is no parameter of {kind.__name__}{guess}; it takes {known}, "
                f"and extra_body={{{name!r}: ...}} sends what lmagent does not know"
            )
            continue
        bounds = _range_of(kind, name)
        lines.append(f"{name}={problem['input']!r}: {problem['msg']}" + (f" ({name} is {bounds})" if bounds else ""))
    return f"{kind.__name__}: " + "; ".join(lines) + "."


def _range_of(kind: type[ChatParameters], name: str) -> str:
    schema = kind.model_json_schema()["properties"].get(name, {})
    words = {
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "less than {}",
    }
    bounds = schema if "anyOf" not in schema else schema["anyOf"][0]
    return " and ".join(text.format(bounds[key]) for key, text in words.items() if key in bounds)


class OpenAIChatParameters(ChatParameters):
    """Parameters of `OpenAIChat`, `AzureChat` and every server that speaks their language."""

    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """Token id (as text) -> how much likelier it becomes."""
    logprobs: bool | None = None
    """Return log-probabilities of the answer's tokens (in `Reply.raw`)."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many alternatives a token."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """How long the answer is."""
    service_tier: str | None = None
    """Which queue serves the request."""
    store: bool | None = None
    """Whether the provider keeps the exchange."""
    metadata: dict[str, str] | None = None
    """At most 16 pairs kept with it."""
    prompt_cache_key: str | None = None
    """Groups requests that share a prefix."""
    safety_identifier: str | None = None
    """A stable id of your end user, hashed."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """How long the prefix is kept."""
    prediction: dict[str, Any] | None = None
    """What most of the answer will be, when it is known."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}` and the like, as on the wire; for a typed answer see `Agent(output_type=...)`."""
    web_search_options: dict[str, Any] | None = None
    """OpenAI: how a search model searches."""


class AzureChatParameters(OpenAIChatParameters):
    """Parameters of `AzureChat`."""

    data_sources: list[dict[str, Any]] | None = None
    """Your own data that the answer draws on, as Azure documents it."""


class OpenAIResponsesChatParameters(ChatParameters):
    """Parameters of `OpenAIResponsesChat`. There is no `stop`, no `seed` and no penalty; they are an error."""

    reasoning: dict[str, Any] | None = None
    """As on the wire, e.g. `{"summary": "auto"}`; `reasoning_effort` is put in."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """How long the answer is."""
    text: dict[str, Any] | None = None
    """As on the wire; `verbosity` and a structured answer are put in."""
    store: bool | None = None
    """Whether the provider keeps the exchange. Default: not."""
    previous_response_id: str | None = None
    """Go on from a stored answer: only what came after it is sent. The system prompt is sent anew."""
    include: list[str] | None = None
    """What else to return."""
    logprobs: bool | None = None
    """Return log-probabilities of the answer's tokens (in `Reply.raw`)."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many alternatives a token."""
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    """Most calls of the provider's own tools."""
    truncation: Literal["auto", "disabled"] | None = None
    """Whether the provider may drop old items that do not fit."""
    service_tier: str | None = None
    """Which queue serves the request."""
    metadata: dict[str, str] | None = None
    """At most 16 pairs kept with it."""
    prompt_cache_key: str | None = None
    """Groups requests that share a prefix."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """How long the prefix is kept."""
    safety_identifier: str | None = None
    """A stable id of your end user, hashed."""


class OpenAICompatibleChatParameters(OpenAIChatParameters):
    """Parameters of `OpenAICompatibleChat`. One that the provider does not have is a `ParameterError`."""

    thinking: dict[str, Any] | None = None
    """DeepSeek, Moonshot, Zhipu, Volcengine: `{"type": "enabled"}` or `{"type": "disabled"}`."""
    enable_thinking: bool | None = None
    """Qwen, SiliconFlow: whether the model thinks first."""
    thinking_budget: Annotated[int, Field(ge=0)] | None = None
    """Qwen, SiliconFlow: most tokens of thinking."""
    reasoning: dict[str, Any] | None = None
    """OpenRouter, Together: `{"effort": ..., "max_tokens": ..., "exclude": ...}`."""
    reasoning_format: Literal["hidden", "raw", "parsed"] | None = None
    """Groq: where the reasoning goes."""
    include_reasoning: bool | None = None
    """Groq: whether reasoning is returned."""
    enable_search: bool | None = None
    """Qwen: search the web first."""
    search_options: dict[str, Any] | None = None
    """Qwen: how to search."""
    search_parameters: dict[str, Any] | None = None
    """xAI: live search."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least likelihood of a token, relative to the likeliest."""
    top_a: Annotated[float, Field(ge=0, le=1)] | None = None
    """OpenRouter."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Above 1: repetition is less likely."""
    safe_prompt: bool | None = None
    """Mistral: put its safety prompt in front."""
    prompt_mode: str | None = None
    """Mistral: `"reasoning"` switches Magistral's system prompt on."""
    provider: dict[str, Any] | None = None
    """OpenRouter: which providers may serve the request."""
    models: list[str] | None = None
    """OpenRouter: models to fall back on."""
    plugins: list[dict[str, Any]] | None = None
    """OpenRouter."""
    transforms: list[str] | None = None
    """OpenRouter."""
    chat_template_kwargs: dict[str, Any] | None = None
    """vLLM: values for the model's chat template."""
    guided_json: dict[str, Any] | None = None
    """vLLM: decoding constrained by a schema."""
    guided_regex: str | None = None
    """vLLM: decoding constrained by a regular expression."""
    guided_choice: list[str] | None = None
    """vLLM: the answer is one of these texts."""
    structured_outputs: dict[str, Any] | None = None
    """vLLM: how decoding is constrained, in its newer form."""
    grammar: str | None = None
    """llama.cpp: a grammar that the answer must fit."""


CacheLife = Literal["5m", "1h"]


class AnthropicChatParameters(ChatParameters):
    """Parameters of `AnthropicChat`.

    There is no `seed` and no penalty; they are an error. API version 2026-10-21 and the newest models refuse
    `temperature`, `top_p` and `top_k`: they are left out there (see `AnthropicChat(sampling=...)`).
    """

    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    """Randomness; 1 at most."""
    thinking: dict[str, Any] | None = None
    """`{"type": "adaptive"}`, `{"type": "enabled", "budget_tokens": 2048}` or `{"type": "disabled"}`."""
    prompt_cache: bool | dict[Literal["tools", "system", "messages"], CacheLife] | None = None
    """True marks the ends of tools, system prompt and messages for the cache; a dict says which, and for how long."""
    cache_control: dict[str, Any] | None = None
    """Top-level mark, `{"type": "ephemeral"}`: the service marks the last block it can."""
    output_config: dict[str, Any] | None = None
    """As on the wire; `reasoning_effort` and a structured answer are put in."""
    service_tier: Literal["auto", "standard_only"] | None = None
    """Which capacity serves the request."""
    metadata: dict[str, Any] | None = None
    """As on the wire; `user` is put in as `user_id`."""
    betas: list[str] | None = None
    """Values of the `anthropic-beta` header."""


class GeminiChatParameters(ChatParameters):
    """Parameters of `GeminiChat`. Calls cannot be limited to one at a time and there is no `user`: both are errors."""

    include_thoughts: bool | None = None
    """Return summaries of the model's thinking."""
    thinking_config: dict[str, Any] | None = None
    """As on the wire, e.g. `{"thinkingBudget": 0}`; `reasoning_effort` and `include_thoughts` are put in."""
    logprobs: bool | None = None
    """Return log-probabilities of the answer's tokens (in `Reply.raw`)."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many alternatives a token."""
    safety_settings: list[dict[str, Any]] | None = None
    """`[{"category": "HARM_CATEGORY_...", "threshold": "BLOCK_ONLY_HIGH"}]`."""
    cached_content: str | None = None
    """Name of a cache, `cachedContents/...`."""
    response_modalities: list[str] | None = None
    """`["TEXT"]` and others."""
    media_resolution: str | None = None
    """How closely images are looked at, `MEDIA_RESOLUTION_LOW` and others."""


class WenxinChatParameters(ChatParameters):
    """Parameters of `WenxinChat`. The classic API sends `temperature=0` as 0.01, the nearest value it takes."""

    penalty_score: Annotated[float, Field(ge=1, le=2)] | None = None
    """Repetition is less likely; 1 means no penalty."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`."""
    disable_search: bool | None = None
    """Classic: do not search the web."""
    enable_citation: bool | None = None
    """Classic: mark sources in the answer."""
    web_search: dict[str, Any] | None = None
    """v2: how to search the web."""
    repetition_penalty: float | None = None
    """v2, models of others: repetition is less likely."""
    enable_thinking: bool | None = None
    """v2: whether a model that can do both reasons first."""
    metadata: dict[str, str] | None = None
    """v2: kept with the request."""


class MinimaxChatParameters(ChatParameters):
    """Parameters of `MinimaxChat`. `temperature` and `top_p` of 0 are sent as 0.01, the nearest value it takes."""

    reasoning_split: bool | None = None
    """Current API: reasoning comes separately from the answer."""
    thinking: dict[str, Any] | None = None
    """Current API: `{"type": "adaptive"}` or `{"type": "disabled"}`."""
    response_format: dict[str, Any] | None = None
    """Later APIs: `{"type": "json_object"}`."""
    beam_width: Annotated[int, Field(ge=1, le=4)] | None = None
    """API of 2023: how many answers are generated."""
    skip_info_mask: bool | None = None
    """API of 2023: do not mask what may be private."""
    continue_last_message: bool | None = None
    """API of 2023: the model goes on with its own last message."""


class MinimaxProChatParameters(ChatParameters):
    """Parameters of `MinimaxProChat`. `temperature` and `top_p` of 0 are sent as 0.01, the nearest value it takes."""

    bot_setting: Annotated[list[dict[str, str]], Field(min_length=1)] | None = None
    """The bots, each `{"bot_name": ..., "content": ...}`; with several there is no system prompt."""
    sample_messages: list[dict[str, Any]] | None = None
    """Examples in the provider's own form."""
    plugins: list[str] | None = None
    """What the provider runs by itself, e.g. `["plugin_web_search"]`."""
    mask_sensitive_info: bool | None = None
    """Mask what may be private; the provider does so by default."""
    glyph: dict[str, Any] | None = None
    """Forces the form of the answer; goes with no stream, tools or plugins."""


class ZhiPuChatParameters(ChatParameters):
    """Parameters of `ZhiPuChat`.

    `temperature` and `top_p` of 0 and 1 are sent as 0.01 and 0.99, the nearest values that models of 2023
    and 2024 take.
    """

    request_id: Annotated[str, Field(min_length=6)] | None = None
    """An id of your own, unique for each request."""
    ref: dict[str, Any] | None = None
    """v3: web search, `{"enable": true, "search_query": "..."}`."""
    return_type: Literal["text", "json_string"] | None = None
    """v3: form of the answer."""
    do_sample: bool | None = None
    """v4: False takes the likeliest token each time."""
    thinking: dict[str, Any] | None = None
    """v4: `{"type": "enabled"}` or `{"type": "disabled"}`."""
    tool_stream: bool | None = None
    """v4, GLM-4.6 and later: arguments of calls come in pieces."""
    sensitive_word_check: dict[str, Any] | None = None
    """v4: switches the check of sensitive words."""
    response_format: dict[str, Any] | None = None
    """v4: `{"type": "json_object"}`."""


class ZhiPuCharacterChatParameters(ZhiPuChatParameters):
    """Parameters of `ZhiPuCharacterChat`."""

    meta: dict[Literal["user_info", "bot_info", "bot_name", "user_name"], str] | None = None
    """Who speaks to whom; what it leaves out is as the model was built."""


class HunyuanChatParameters(ChatParameters):
    """Parameters of `HunyuanChat`. The API of 2023 (`hunyuan/v1`) takes `temperature` and `top_p` alone.

    `reasoning_effort` only switches: `"none"` thinks not, all else thinks. On the cloud API `seed` is from 1 to 10000,
    and a `stop` text stands at the end of the answer.
    """

    enable_enhancement: bool | None = None
    """Search the web before answering."""
    force_search_enhancement: bool | None = None
    """Search for every question."""
    search_info: bool | None = None
    """Return what was found (in `Reply.raw`)."""
    citation: bool | None = None
    """Mark sources in the answer."""
    enable_speed_search: bool | None = None
    """Search fast rather than thoroughly."""
    enable_deep_search: bool | None = None
    """Search and study thoroughly."""
    enable_multimedia: bool | None = None
    """Let search find pictures and videos."""
    web_search_options: dict[str, Any] | None = None
    """How to search."""
    enable_thinking: bool | None = None
    """Whether a model that can do both thinks aloud."""
    stream_moderation: bool | None = None
    """Check the content of a stream piece by piece (the default) or only at its end."""


class BailianChatParameters(ChatParameters):
    """Parameters of `BailianChat`.

    `temperature=2` is sent as 1.99 and `top_p=0` as 0.01, the nearest values that the API takes. `reasoning_effort`
    only switches: `"none"` thinks not, all else thinks; `thinking_budget` says how long.
    """

    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """1.0 is no penalty."""
    enable_search: bool | None = None
    """Let the model search the web."""
    search_options: dict[str, Any] | None = None
    """How to search."""
    enable_thinking: bool | None = None
    """Whether a model that can do both thinks aloud."""
    thinking_budget: Annotated[int, Field(ge=0)] | None = None
    """Most tokens of thinking."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`; a message must then speak of JSON."""
    n: Annotated[int, Field(ge=1, le=4)] | None = None
    """How many answers to make; the first one is the reply, the others are in `Reply.raw`."""
    logprobs: bool | None = None
    """Return log-probabilities (in `Reply.raw`)."""
    top_logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """How many alternatives a token."""
    biz_params: dict[str, Any] | None = None
    """Apps: values for the app's variables."""
    has_thoughts: bool | None = None
    """Apps: return the steps of the app (in `Reply.raw`)."""
    doc_reference_type: str | None = None
    """Apps: how sources are marked."""
    doc_tag_codes: list[str] | None = None
    """Apps: which documents to search."""
    use_raw_prompt: bool | None = None
    """Apps: send the prompt as it is."""


class BaichuanChatParameters(ChatParameters):
    """Parameters of `BaichuanChat`. The API of 2023 has no `max_tokens` and sends `top_p=1` as 0.99."""

    with_search_enhance: bool | None = None
    """API of 2023: search the web."""
    response_format: dict[str, Any] | None = None
    """Current API: `{"type": "json_object"}`."""


class LocalChatParameters(ChatParameters):
    """Parameters of `LocalChat`."""

    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least likelihood of a token, relative to the likeliest."""
    repeat_penalty: Annotated[float, Field(ge=0)] | None = None
    """Above 1: repetition is less likely."""
