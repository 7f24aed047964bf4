"""What Wenxin's models take beyond the neutral set, in the classic API and in Qianfan v2."""

from typing import Annotated, Any

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["WenxinChatParameters"]


class WenxinChatParameters(ChatParameters):
    """Parameters of `WenxinChat`. The classic API sends `temperature=0` as 0.01, the nearest value it takes."""

    penalty_score: Annotated[float, Field(ge=1, le=2)] | None = None
    """Repetition is less likely; 1 means no penalty."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`."""
    disable_search: bool | None = None
    """Classic: do not let the platform search."""
    enable_citation: bool | None = None
    """Classic: mark sources in the answer."""
    web_search: dict[str, Any] | None = None
    """v2: how the platform searches."""
    repetition_penalty: float | None = None
    """v2, models of others: repetition is less likely."""
    enable_thinking: bool | None = None
    """v2: whether a model that can do both thinks aloud."""
    metadata: dict[str, str] | None = None
    """v2: kept with the request."""
