"""OpenAI through the Responses API, which keeps a model's reasoning between tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.credentials import find_secret, find_setting, require_secret
from lmagent.model import ChatModel, ModelOptions
from lmagent.providers.auth import BearerAuth
from lmagent.providers.openai.profile import REASONING_MODELS, ModelRule
from lmagent.providers.openai.responses import DEFAULT_URL, ResponsesCodec

__all__ = ["OpenAIResponsesChat"]

_KEY = ("OPENAI_API_KEY",)
_BASE_URL = ("OPENAI_BASE_URL", "OPENAI_API_BASE")


class OpenAIResponsesChat(ChatModel):
    """OpenAI's Responses API.

        OpenAIResponsesChat().chat_completion("你好", reasoning_effort="low").reply

    Nothing is stored at the provider unless `store=True` is asked for; reasoning travels in the history, encrypted.

    Args:
        model: Any model name; none is checked against a list.
        api_key: Default: `OPENAI_API_KEY`. Another `base_url` may do without one.
        base_url: Default: `OPENAI_BASE_URL` or `OPENAI_API_BASE`, else OpenAI itself. Everything up to `/responses`.
        organization: Default: `OPENAI_ORG_ID`.
        project: Default: `OPENAI_PROJECT_ID`.
        encrypted_reasoning: Whether to ask for encrypted reasoning; None: for models known to have it.
        model_rules: Which parameters the model refuses; default: a table of OpenAI's reasoning models. `()` sends all.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key for OpenAI itself.
    """

    parameters_type: ClassVar[str] = "lmagent.parameters.responses:OpenAIResponsesChatParameters"

    def __init__(
        self,
        model: str = "gpt-5.4-mini",
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        encrypted_reasoning: bool | None = None,
        model_rules: Sequence[ModelRule] = REASONING_MODELS,
        **options: Unpack[ModelOptions],
    ) -> None:
        url = find_setting(base_url, _BASE_URL, DEFAULT_URL) or DEFAULT_URL
        key = require_secret("openai-responses", api_key, _KEY) if url == DEFAULT_URL else find_secret(api_key, _KEY)
        headers = {
            "openai-organization": find_setting(organization, ("OPENAI_ORG_ID",)),
            "openai-project": find_setting(project, ("OPENAI_PROJECT_ID",)),
        }
        codec = ResponsesCodec(
            model,
            base_url=url,
            encrypted_reasoning=encrypted_reasoning,
            model_rules=model_rules,
            headers={name: value for name, value in headers.items() if value},
        )
        super().__init__(codec, auth=BearerAuth(key) if key else None, **options)
