"""What Zhipu's models take beyond the neutral set, in v3 and v4."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["ZhiPuCharacterChatParameters", "ZhiPuChatParameters"]


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
