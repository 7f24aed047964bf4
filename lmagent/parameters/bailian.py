"""What Alibaba's platform takes beyond the neutral set."""

from typing import Annotated, Any

from pydantic import Field

from lmagent.parameters.base import ChatParameters

__all__ = ["BailianChatParameters"]


class BailianChatParameters(ChatParameters):
    """Parameters of `BailianChat`.

    `temperature=2` is sent as 1.99 and `top_p=0` as 0.01, the nearest values the platform takes. `reasoning_effort`
    only switches: `"none"` thinks not, all else thinks; `thinking_budget` says how long.
    """

    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """1.0 is no penalty."""
    enable_search: bool | None = None
    """Let the model search the web."""
    search_options: dict[str, Any] | None = None
    """How to search."""
    enable_thinking: bool | None = None
    """Whether a model that can do both thinks aloud."""
    thinking_budget: Annotated[int, Field(ge=0)] | None = None
    """Most tokens of thinking."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`; a message must then speak of JSON."""
    n: Annotated[int, Field(ge=1, le=4)] | None = None
    """How many answers to make; the first one is the reply, the others are in `Reply.raw`."""
    logprobs: bool | None = None
    """Return log-probabilities (in `Reply.raw`)."""
    top_logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """How many alternatives a token."""
    biz_params: dict[str, Any] | None = None
    """Apps: values for the app's variables."""
    has_thoughts: bool | None = None
    """Apps: return the steps of the app (in `Reply.raw`)."""
    doc_reference_type: str | None = None
    """Apps: how sources are marked."""
    doc_tag_codes: list[str] | None = None
    """Apps: which documents to search."""
    use_raw_prompt: bool | None = None
    """Apps: send the prompt as it is."""
