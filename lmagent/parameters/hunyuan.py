"""What Hunyuan takes beyond the neutral set."""

from typing import Any

from lmagent.parameters.base import ChatParameters

__all__ = ["HunyuanChatParameters"]


class HunyuanChatParameters(ChatParameters):
    """Parameters of `HunyuanChat`. The API of 2023 (`hunyuan/v1`) takes `temperature` and `top_p` alone.

    `reasoning_effort` only switches: `"none"` thinks not, all else thinks. On the cloud API `seed` is from 1 to 10000,
    and a `stop` text stands at the end of the answer.
    """

    enable_enhancement: bool | None = None
    """Let the platform search before it answers."""
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
