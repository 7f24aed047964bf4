"""OpenAI's own endpoints, and Azure's. Codecs load with the first model that needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.models.credentials import find_secret, find_setting, require_secret, require_setting
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, HeaderAuth

if TYPE_CHECKING:
    from lmagent.providers.openai.profile import ModelRule

__all__ = ["AzureChat", "OpenAIChat", "OpenAIResponsesChat"]

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

    parameters_type: ClassVar[str] = "lmagent.models.parameters:OpenAIChatParameters"

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

    parameters_type: ClassVar[str] = "lmagent.models.parameters:OpenAIResponsesChatParameters"

    def __init__(
        self,
        model: str = "gpt-5.4-mini",
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
        from lmagent.providers.openai.responses import DEFAULT_URL, ResponsesCodec

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
            model_rules=REASONING_MODELS if model_rules is None else model_rules,
            headers={name: value for name, value in headers.items() if value},
        )
        super().__init__(codec, auth=BearerAuth(key) if key else None, **options)


_DEPLOYMENT = ("AZURE_CHAT_API_ENGINE", "AZURE_CHAT_MODEL_NAME", "AZURE_OPENAI_DEPLOYMENT")
_VERSION = ("OPENAI_API_VERSION", "AZURE_API_VERSION")
_TOKEN = ("AZURE_OPENAI_AD_TOKEN",)


class AzureChat(ChatModel):
    """A deployment of Azure OpenAI.

        AzureChat("my-deployment", endpoint="https://RESOURCE.openai.azure.com")

    Args:
        model: Name of the deployment. Default: `AZURE_CHAT_API_ENGINE`, `AZURE_CHAT_MODEL_NAME` or
            `AZURE_OPENAI_DEPLOYMENT`.
        endpoint: Default: `AZURE_OPENAI_ENDPOINT` or `AZURE_API_BASE`.
        api_version: A date such as `2024-10-21`; default: `OPENAI_API_VERSION` or `AZURE_API_VERSION`. Without one, or
            with `""`, the v1 API is spoken, which needs none.
        api_key: Default: `AZURE_OPENAI_API_KEY` or `AZURE_API_KEY`.
        ad_token: A Microsoft Entra token in place of a key, or a function that returns one that is good now. Default:
            `AZURE_OPENAI_AD_TOKEN`, which wins over a key of the environment.
        reasoning: The deployment is a reasoning model (its name does not say so).
        headers: Sent with every request, e.g. the opt-in of a preview feature.
        model_rules: Which parameters the deployment refuses; default: by `reasoning`. `()` sends all.
        stream_usage: Whether a stream is asked to tell its usage (`stream_options`); None: where the version knows it.
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
        from lmagent.providers.openai.chat import AZURE, AzureCodec

        codec = AzureCodec(
            require_setting("azure", "deployment", "model", model or None, _DEPLOYMENT),
            endpoint=require_setting("azure", "endpoint", "endpoint", endpoint, AZURE.base_url_env),
            api_version=find_setting(api_version, _VERSION) or None,
            reasoning=reasoning,
            headers=headers,
            model_rules=model_rules,
            stream_usage=stream_usage,
        )
        super().__init__(codec, auth=_auth(api_key, ad_token), **options)


def _auth(key: str | Secret | None, token: str | Secret | Callable[[], str | Secret] | None) -> Auth:
    from lmagent.providers.openai.chat import AZURE, EntraAuth

    if callable(token):
        return EntraAuth(token)
    found = find_secret(token, _TOKEN) if token is not None or key is None else None
    return BearerAuth(found) if found else HeaderAuth(require_secret("azure", key, AZURE.key_env), "api-key")
