"""Anthropic's Claude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.models.loading import find_secret, find_setting, require_secret
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.anthropic import DEFAULT_MAX_TOKENS, DEFAULT_VERSION, AnthropicCodec
from lmagent.providers.base import BearerAuth, HeaderAuth
from lmagent.providers.vendors import VENDORS

__all__ = ["AnthropicChat"]

_VENDOR = VENDORS["anthropic"]
_KEY, _TOKEN = _VENDOR.env["api_key"], _VENDOR.env["auth_token"]


class AnthropicChat(ChatModel):
    """Anthropic's Messages API.

        AnthropicChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list.
        api_key: Sent as `x-api-key`. Default: `ANTHROPIC_API_KEY`. Another `base_url` may need none.
        auth_token: Sent as a bearer token, if there is no key. Default: `ANTHROPIC_AUTH_TOKEN`.
        base_url: Without `/v1`. Default: `ANTHROPIC_BASE_URL`, else Anthropic itself.
        version: The `anthropic-version` header.
        betas: Values of the `anthropic-beta` header of every request.
        max_tokens: Longest answer where a call does not say; the API requires it. A thinking budget is added to it.
        sampling: Whether `temperature`, `top_p` and `top_k` are sent; None: unless version or model refuse them.
        prefill: Whether a history may end with the beginning of the answer; models from 4.6 on refuse that.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key for Anthropic itself.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:AnthropicChatParameters"

    def __init__(
        self,
        model: str = _VENDOR.default_model,
        *,
        api_key: str | Secret | None = None,
        auth_token: str | Secret | None = None,
        base_url: str | None = None,
        version: str = DEFAULT_VERSION,
        betas: Sequence[str] = (),
        max_tokens: int = DEFAULT_MAX_TOKENS,
        sampling: bool | None = None,
        prefill: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        default_url = _VENDOR.api().address
        url = find_setting(base_url, _VENDOR.env["base_url"]) or default_url
        key = find_secret(api_key, _KEY) if auth_token is None or api_key is not None else None
        token = None if key else find_secret(auth_token, _TOKEN)
        if url == default_url and not (key or token):
            key = require_secret("anthropic", None, (*_KEY, *_TOKEN))
        auth = HeaderAuth(key, "x-api-key") if key else BearerAuth(token) if token else None
        codec = AnthropicCodec(
            model, base_url=url, version=version, betas=betas, max_tokens=max_tokens, sampling=sampling, prefill=prefill
        )
        super().__init__(codec, auth=auth, **options)
