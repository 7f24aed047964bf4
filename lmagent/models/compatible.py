"""Every OpenAI-compatible server: a vendor by name, or any address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.credentials import find_secret, find_setting, require_secret, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import BearerAuth, HeaderAuth
from lmagent.providers.openai.chat import ModelRule, OpenAICodec, Profile
from lmagent.providers.vendors import profile_of

__all__ = ["OpenAICompatibleChat"]


class OpenAICompatibleChat(ChatModel):
    """A model behind `/chat/completions`, whoever serves it.

        OpenAICompatibleChat("deepseek-chat", vendor="deepseek")
        OpenAICompatibleChat("my-model", base_url="http://localhost:8000/v1", vendor="vllm")

    Args:
        model: Any model name; none is checked against a list. Default: the vendor's usual one, where it has one.
        vendor: A name of the table (`deepseek`, `moonshot`, `qwen`, `mistral`, `groq`, `openrouter`, `together`,
            `xai`, `stepfun`, `yi`, `siliconflow`, `volcengine`, `ollama`, `vllm`, `llamacpp`, `lmstudio`,
            `compatible`) or a `Profile` of your own. `compatible` sends only what every server takes.
        base_url: Everything up to `/chat/completions`. Default: the vendor's environment variable, else its address.
        api_key: Default: the vendor's environment variables. Servers on your own machine need none.
        legacy_functions: Speak the old `functions` form instead of `tools`.
        headers: Sent with every request, e.g. OpenRouter's `X-Title`.
        model_rules: Which parameters the model refuses; default: the vendor's table. `()` sends all.
        stream_usage: Whether a stream is asked to tell its usage (`stream_options`); None: as the profile says.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: Unknown vendor, no model, no address, or no key where one is needed.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:OpenAICompatibleChatParameters"

    def __init__(
        self,
        model: str = "",
        *,
        vendor: str | Profile = "compatible",
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        legacy_functions: bool = False,
        headers: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        stream_usage: bool | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        profile = vendor if isinstance(vendor, Profile) else profile_of(vendor)
        url = _address(profile, find_setting(base_url, profile.base_url_env, profile.base_url))
        if not (model or profile.default_model):
            raise ConfigurationError(f"{profile.provider!r} has no usual model: name one.")
        if profile.needs_key:
            key: Secret | None = require_secret(profile.provider, api_key, profile.key_env)
        else:
            key = find_secret(api_key, profile.key_env)
        auth = None
        if key:
            auth = BearerAuth(key) if profile.auth == "bearer" else HeaderAuth(key, profile.auth)
        codec = OpenAICodec(
            model or profile.default_model,
            base_url=url,
            profile=profile,
            legacy_functions=legacy_functions,
            headers=headers,
            model_rules=model_rules,
            stream_usage=stream_usage,
        )
        super().__init__(codec, auth=auth, **options)


def _address(profile: Profile, url: str | None) -> str:
    """Return a whole base URL; servers on one's own machine are often named by host and port alone."""
    if not url:
        raise ConfigurationError(
            f"No address for {profile.provider!r}: pass base_url='https://.../v1'"
            + (f" or set {' or '.join(profile.base_url_env)}." if profile.base_url_env else ".")
        )
    if profile.needs_key or not profile.base_url:
        return url
    if "://" not in url:
        url = f"http://{url}"
    return with_default_path(url, profile.base_url)
