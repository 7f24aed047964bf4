"""Asks a model in all four verbs."""

from __future__ import annotations

import asyncio
from typing import Any

from lmagent.core.messages import Reply
from lmagent.models.model import ChatModel


def in_four_verbs(model: ChatModel, prompt: Any, **options: Any) -> list[Reply]:
    """Return the replies of the plain, the streamed, the async and the async streamed verb."""
    *_, streamed = model.stream_chat_completion(prompt, **options)

    async def ask() -> list[Reply]:
        plain = await model.async_chat_completion(prompt, **options)
        last = [item async for item in model.async_stream_chat_completion(prompt, **options)][-1]
        return [plain, last]  # type: ignore[list-item]

    return [model.chat_completion(prompt, **options), streamed, *asyncio.run(ask())]  # type: ignore[list-item]
