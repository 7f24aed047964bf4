"""What OpenAI-compatible vendors take beyond OpenAI's own; each vendor's profile says which of them it knows."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmagent.parameters.openai import OpenAIChatParameters

__all__ = ["OpenAICompatibleChatParameters"]


class OpenAICompatibleChatParameters(OpenAIChatParameters):
    """Parameters of `OpenAICompatibleChat`. One that the vendor has no word for is a `ParameterError`."""

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
