"""OpenAI's dialects and the servers that speak them: Chat Completions, Responses, Azure. `OpenAICodec` is public."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmagent.providers.openai.chat import ModelRule, OpenAICodec, Profile

__all__ = ["ModelRule", "OpenAICodec", "Profile"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmagent.providers.openai import chat  # loaded on first use: the other dialects do not need it

    return getattr(chat, name)
