"""OpenAI, and any server that speaks Chat Completions at a `base_url`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.credentials import find_secret, find_setting, require_secret
from lmagent.model import ChatModel, ModelOptions
from lmagent.providers.auth import BearerAuth

if TYPE_CHECKING:
    from lmagent.providers.openai.profile import ModelRule

__all__ = ["OpenAIChat"]

_KEY = ("OPENAI_API_KEY",)
_BASE_URL = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
_DEFAULT_URL = "https://api.openai.com/v1"


class OpenAIChat(ChatModel):
    """OpenAI's Chat Completions.

        OpenAIChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list.
        api_key: Default: `OPENAI_API_KEY`. Another `base_url` may do without one.
        base_url: Default: `OPENAI_BASE_URL` or `OPENAI_API_BASE`, else OpenAI itself. Everything up to
            `/chat/completions`, e.g. `http://localhost:8000/v1`.
        organization: Default: `OPENAI_ORG_ID`.
        project: Default: `OPENAI_PROJECT_ID`.
        legacy_functions: Speak the old `functions` form instead of `tools`, for servers that know only that.
        model_rules: Which parameters the model refuses; default: a table of OpenAI's reasoning models. `()` sends all.
        stream_usage: Whether a stream is asked to tell its usage (`stream_options`); None: yes.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key for OpenAI itself.
    """

    parameters_type: ClassVar[str] = "lmagent.parameters.openai:OpenAIChatParameters"

    def __init__(
        self,
        model: str = "gpt-5.4-mini",
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        legacy_functions: bool = False,
        model_rules: Sequence[ModelRule] | None = None,
        stream_usage: bool | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        from lmagent.providers.openai.chat import OpenAICodec  # with the first model, not with the front door

        url = (find_setting(base_url, _BASE_URL) or _DEFAULT_URL).rstrip("/")
        key = require_secret("openai", api_key, _KEY) if url == _DEFAULT_URL else find_secret(api_key, _KEY)
        headers = {
            "openai-organization": find_setting(organization, ("OPENAI_ORG_ID",)),
            "openai-project": find_setting(project, ("OPENAI_PROJECT_ID",)),
        }
        codec = OpenAICodec(
            model,
            base_url=url,
            legacy_functions=legacy_functions,
            model_rules=model_rules,
            stream_usage=stream_usage,
            headers={name: value for name, value in headers.items() if value},
        )
        super().__init__(codec, auth=BearerAuth(key) if key else None, **options)
