"""What Anthropic's Messages API takes beyond the neutral set."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["AnthropicChatParameters", "CacheLife"]

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
