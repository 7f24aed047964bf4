"""Everything behind OpenAI's wire format: OpenAI itself, Azure, and any compatible provider or server.

Codecs load with the first model that needs them: `import lmagent` and a model of one kind do not pay for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import find_secret, find_setting, require_secret, require_setting, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, HeaderAuth
from lmagent.providers.vendors import VENDORS

if TYPE_CHECKING:
    from lmagent.providers.openai.profile import ModelRule, Profile

__all__ = ["AzureChat", "OpenAIChat", "OpenAICompatibleChat", "OpenAIResponsesChat"]

_OPENAI = VENDORS["openai"]
_RESPONSES = VENDORS["openai-responses"]
_AZURE = VENDORS["azure"]


class OpenAIChat(ChatModel):
    """OpenAI's Chat Completions.

        OpenAIChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list.
        api_key: Default: `OPENAI_API_KEY`. Another `base_url` may need none.
        base_url: Default: `OPENAI_BASE_URL` or `OPENAI_API_BASE`, else OpenAI itself. Everything up to
            `/chat/completions`, e.g. `http://localhost:8000/v1`.
        organization: Default: `OPENAI_ORG_ID`.
        project: Default: `OPENAI_PROJECT_ID`.
        legacy_functions: Use the old `functions` form instead of `tools`, for servers that know only that.
        model_rules: Which parameters the model refuses; default: a table of OpenAI's reasoning models. `()` sends all.
        stream_usage: Whether a stream asks for its usage (`stream_options`); None: yes.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key for OpenAI itself.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:OpenAIChatParameters"

    def __init__(
        self,
        model: str = _OPENAI.default_model,
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
        from lmagent.providers.openai.chat import OpenAICodec  # loads with the first model

        url, auth = _url_and_auth("openai", base_url, api_key)
        codec = OpenAICodec(
            model,
            base_url=url.rstrip("/"),
            legacy_functions=legacy_functions,
            model_rules=model_rules,
            stream_usage=stream_usage,
            headers=_account(organization, project),
        )
        super().__init__(codec, auth=auth, **options)


class OpenAIResponsesChat(ChatModel):
    """OpenAI's Responses API.

        OpenAIResponsesChat().chat_completion("你好", reasoning_effort="low").reply

    Nothing is stored at the provider unless you pass `store=True`; reasoning travels in the history, encrypted.

    Args:
        model: Any model name; none is checked against a list.
        api_key: Default: `OPENAI_API_KEY`. Another `base_url` may need none.
        base_url: Default: `OPENAI_BASE_URL` or `OPENAI_API_BASE`, else OpenAI itself. Everything up to `/responses`.
        organization: Default: `OPENAI_ORG_ID`.
        project: Default: `OPENAI_PROJECT_ID`.
        encrypted_reasoning: Whether to ask for encrypted reasoning; None: for models known to have it.
        model_rules: Which parameters the model refuses; default: a table of OpenAI's reasoning models. `()` sends all.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key for OpenAI itself.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:OpenAIResponsesChatParameters"

    def __init__(
        self,
        model: str = _RESPONSES.default_model,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        encrypted_reasoning: bool | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        from lmagent.providers.openai.profile import REASONING_MODELS
        from lmagent.providers.openai.responses import ResponsesCodec

        url, auth = _url_and_auth("openai-responses", base_url, api_key)
        codec = ResponsesCodec(
            model,
            base_url=url,
            encrypted_reasoning=encrypted_reasoning,
            model_rules=REASONING_MODELS if model_rules is None else model_rules,
            headers=_account(organization, project),
        )
        super().__init__(codec, auth=auth, **options)


def _url_and_auth(prefix: str, base_url: str | None, api_key: str | Secret | None) -> tuple[str, Auth | None]:
    """Return address and credentials. Only OpenAI itself needs a key; another server may need none."""
    env, default = VENDORS[prefix].env, VENDORS[prefix].api().address
    url = find_setting(base_url, env["base_url"]) or default
    own = url.rstrip("/") == default
    key = require_secret(prefix, api_key, env["api_key"]) if own else find_secret(api_key, env["api_key"])
    return url, BearerAuth(key) if key else None


def _account(organization: str | None, project: str | None) -> dict[str, str]:
    headers = {
        "openai-organization": find_setting(organization, _OPENAI.env["organization"]),
        "openai-project": find_setting(project, _OPENAI.env["project"]),
    }
    return {name: value for name, value in headers.items() if value}


class AzureChat(ChatModel):
    """A deployment of Azure OpenAI.

        AzureChat("my-deployment", endpoint="https://RESOURCE.openai.azure.com")

    Args:
        model: Name of the deployment. Default: `AZURE_CHAT_API_ENGINE`, `AZURE_CHAT_MODEL_NAME` or
            `AZURE_OPENAI_DEPLOYMENT`.
        endpoint: Default: `AZURE_OPENAI_ENDPOINT` or `AZURE_API_BASE`.
        api_version: A date such as `2024-10-21`; default: `OPENAI_API_VERSION` or `AZURE_API_VERSION`. Without one, or
            with `""`, the v1 API is used, which needs none.
        api_key: Default: `AZURE_OPENAI_API_KEY` or `AZURE_API_KEY`.
        ad_token: A Microsoft Entra token in place of a key, or a function that returns a valid one. Default:
            `AZURE_OPENAI_AD_TOKEN`, which wins over a key of the environment.
        reasoning: The deployment is a reasoning model (its name does not say so).
        headers: Sent with every request, e.g. to opt in to a preview feature.
        model_rules: Which parameters the deployment refuses; default: by `reasoning`. `()` sends all.
        stream_usage: Whether a stream asks for its usage (`stream_options`); None: where the version knows it.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No endpoint, no deployment, no key; a version that is no date.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:AzureChatParameters"

    def __init__(
        self,
        model: str | None = None,
        *,
        endpoint: str | None = None,
        api_version: str | None = None,
        api_key: str | Secret | None = None,
        ad_token: str | Secret | Callable[[], str | Secret] | None = None,
        reasoning: bool = False,
        headers: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        stream_usage: bool | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        from lmagent.providers.openai.chat import AzureCodec

        codec = AzureCodec(
            require_setting("azure", "deployment", "model", model or None, _AZURE.env["model"]),
            endpoint=require_setting("azure", "endpoint", "endpoint", endpoint, _AZURE.env["endpoint"]),
            api_version=find_setting(api_version, _AZURE.env["api_version"]) or None,
            reasoning=reasoning,
            headers=headers,
            model_rules=model_rules,
            stream_usage=stream_usage,
        )
        super().__init__(codec, auth=_azure_auth(api_key, ad_token), **options)


def _azure_auth(key: str | Secret | None, token: str | Secret | Callable[[], str | Secret] | None) -> Auth:
    if callable(token):
        from lmagent.providers.openai.chat import EntraAuth

        return EntraAuth(token)
    found = find_secret(token, _AZURE.env["ad_token"]) if token is not None or key is None else None
    return BearerAuth(found) if found else HeaderAuth(require_secret("azure", key, _AZURE.env["api_key"]), "api-key")


class OpenAICompatibleChat(ChatModel):
    """A model behind `/chat/completions`, on any server.

        OpenAICompatibleChat("deepseek-chat", vendor="deepseek")
        OpenAICompatibleChat("my-model", base_url="http://localhost:8000/v1", vendor="vllm")

    Args:
        model: Any model name; none is checked against a list. Default: the provider's usual one, if it has one.
        vendor: A name of the table (`deepseek`, `moonshot`, `qwen`, `mistral`, `groq`, `openrouter`, `together`,
            `xai`, `stepfun`, `yi`, `siliconflow`, `volcengine`, `ollama`, `vllm`, `llamacpp`, `lmstudio`,
            `compatible`) or your own `Profile`. `compatible` sends only what every server takes.
        base_url: Everything up to `/chat/completions`. Default: the provider's environment variable, else its address.
        api_key: Default: the provider's environment variables. Servers on your machine need none.
        legacy_functions: Use the old `functions` form instead of `tools`.
        headers: Sent with every request, e.g. OpenRouter's `X-Title`.
        model_rules: Which parameters the model refuses; default: the provider's table. `()` sends all.
        stream_usage: Whether a stream asks for its usage (`stream_options`); None: as the profile says.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: Unknown provider, no model, no address, or no key where one is needed.
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
        from lmagent.providers.openai.chat import OpenAICodec
        from lmagent.providers.openai.vendor_profiles import profile_of  # all profiles: not for OpenAIChat

        profile = profile_of(vendor) if isinstance(vendor, str) else vendor
        url = _address(profile, find_setting(base_url, profile.base_url_env, profile.base_url))
        if not (model or profile.default_model):
            raise ConfigurationError(f"{profile.provider!r} has no default model: pass model='...'.")
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
    """Return a whole base URL; servers on the same machine are often given as host and port alone."""
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
