"""What Gemini takes beyond the neutral set."""

from typing import Annotated, Any

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["GeminiChatParameters"]


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
