"""Azure OpenAI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Unpack

from lmagent.core.redaction import Secret
from lmagent.credentials import find_secret, find_setting, require_secret, require_setting
from lmagent.model import ChatModel, ModelOptions
from lmagent.providers.auth import BearerAuth, HeaderAuth
from lmagent.providers.base import Auth
from lmagent.providers.openai.azure import AZURE, AzureCodec, EntraAuth
from lmagent.providers.openai.chat import ModelRule

__all__ = ["AzureChat"]

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

    parameters_type: ClassVar[str] = "lmagent.parameters.azure:AzureChatParameters"

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
    if callable(token):
        return EntraAuth(token)
    found = find_secret(token, _TOKEN) if token is not None or key is None else None
    return BearerAuth(found) if found else HeaderAuth(require_secret("azure", key, AZURE.key_env), "api-key")
