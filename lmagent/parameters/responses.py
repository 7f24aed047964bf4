"""What OpenAI's Responses API takes beyond the neutral set."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["OpenAIResponsesChatParameters"]


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
