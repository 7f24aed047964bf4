"""What MiniMax's models take beyond the neutral set, in the old APIs and today."""

from typing import Annotated, Any

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["MinimaxChatParameters", "MinimaxProChatParameters"]


class MinimaxChatParameters(ChatParameters):
    """Parameters of `MinimaxChat`. `temperature` and `top_p` of 0 are sent as 0.01, the nearest value it takes."""

    reasoning_split: bool | None = None
    """Today's API: thinking comes apart from the answer."""
    thinking: dict[str, Any] | None = None
    """Today's API: `{"type": "adaptive"}` or `{"type": "disabled"}`."""
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
    """Examples in the platform's own form."""
    plugins: list[str] | None = None
    """What the platform runs by itself, e.g. `["plugin_web_search"]`."""
    mask_sensitive_info: bool | None = None
    """Mask what may be private; the platform's default is to do so."""
    glyph: dict[str, Any] | None = None
    """Forces the form of the answer; goes with no stream, tools or plugins."""
