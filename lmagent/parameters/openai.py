"""What OpenAI's Chat Completions takes beyond the neutral set."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["OpenAIChatParameters"]


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
