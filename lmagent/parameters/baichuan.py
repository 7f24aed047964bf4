"""What Baichuan's models take beyond the neutral set."""

from typing import Any

from lmagent.parameters.base import ChatParameters

__all__ = ["BaichuanChatParameters"]


class BaichuanChatParameters(ChatParameters):
    """Parameters of `BaichuanChat`. The API of 2023 has no `max_tokens` and sends `top_p=1` as 0.99."""

    with_search_enhance: bool | None = None
    """API of 2023: let the platform search."""
    response_format: dict[str, Any] | None = None
    """Today's API: `{"type": "json_object"}`."""
