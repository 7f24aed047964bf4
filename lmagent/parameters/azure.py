"""What Azure OpenAI takes beyond OpenAI's own."""

from typing import Any

from lmagent.parameters.openai import OpenAIChatParameters

__all__ = ["AzureChatParameters"]


class AzureChatParameters(OpenAIChatParameters):
    """Parameters of `AzureChat`."""

    data_sources: list[dict[str, Any]] | None = None
    """Your own data that the answer draws on, as Azure documents it."""
