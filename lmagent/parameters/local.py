"""What llama.cpp takes beyond the neutral set."""

from typing import Annotated

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["LocalChatParameters"]


class LocalChatParameters(ChatParameters):
    """Parameters of `LocalChat`."""

    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least likelihood of a token, relative to the likeliest."""
    repeat_penalty: Annotated[float, Field(ge=0)] | None = None
    """Above 1: repetition is less likely."""
