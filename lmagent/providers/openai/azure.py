"""Azure OpenAI: Chat Completions behind a deployment, by the dated API or by v1.

Wire reference: docs/providers/azure.md. Bodies are OpenAI's; what differs is the address, the key's header and what the
service cannot know: which model is behind a deployment's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError, ProviderError
from lmagent.providers.base import Auth, AuthFlow, ChatCall, Request
from lmagent.providers.openai.chat import OPENAI, ModelRule, OpenAICodec, Profile
from lmagent.providers.openai.profile import REASONING_MODELS

__all__ = ["AZURE", "AzureCodec", "EntraAuth"]

_FIRST_WITH_USAGE = "2024-09-01"
"""Versions before this one refuse `stream_options`."""

AZURE = replace(
    OPENAI,
    provider="azure",
    base_url="",
    key_env=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
    base_url_env=("AZURE_OPENAI_ENDPOINT", "AZURE_API_BASE"),
    auth="api-key",
    default_model="",
    parameters={**OPENAI.parameters, "data_sources": "data_sources"},
    model_rules=(),
)
"""What Azure's models have in common with OpenAI's."""

_REASONING = replace(REASONING_MODELS[0], models=("*",))


class AzureCodec(OpenAICodec):
    """Chat Completions of one deployment.

    Args:
        model: Name of the deployment, any characters.
        endpoint: `https://RESOURCE.openai.azure.com`; a path such as `/openai/v1` behind it is understood.
        api_version: `2024-10-21` or another date: the dated API. None: the v1 API, which needs none.
        reasoning: The deployment is a reasoning model: `max_tokens` goes out as `max_completion_tokens`, and sampling
            parameters are refused before the service does it.
        profile: What the service is like.
        headers: Sent with every request, e.g. the opt-in of a preview feature.
        model_rules: What the deployment refuses; default: by `reasoning`.
        stream_usage: Ask for usage in streams; default: yes, where the version knows it.

    Raises:
        ConfigurationError: No endpoint, no deployment, or a version that is no date.
    """

    def __init__(
        self,
        model: str,
        *,
        endpoint: str,
        api_version: str | None = None,
        reasoning: bool = False,
        profile: Profile = AZURE,
        headers: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        stream_usage: bool | None = None,
    ) -> None:
        if not model:
            raise ConfigurationError("Azure needs the name of a deployment as its model.")
        if "://" not in endpoint:
            raise ConfigurationError(f"The endpoint of Azure is https://RESOURCE.openai.azure.com, not {endpoint!r}.")
        if api_version is not None and not api_version[:4].isdecimal():
            raise ConfigurationError(f"api_version is a date such as '2024-10-21' or None for v1, not {api_version!r}.")
        host = endpoint.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        place = "v1" if api_version is None else f"deployments/{quote(model, safe='')}"
        if api_version is not None and not reasoning:
            # Deployments of the dated API may be older than `max_completion_tokens`.
            profile = replace(profile, parameters={**profile.parameters, "max_tokens": "max_tokens"})
        if stream_usage is None and api_version is not None:
            stream_usage = profile.stream_usage and api_version >= _FIRST_WITH_USAGE
        if model_rules is None and reasoning:
            model_rules = (*profile.model_rules, _REASONING)
        super().__init__(
            model,
            base_url=f"{host}/openai/{place}",
            profile=profile,
            headers=headers,
            model_rules=model_rules,
            stream_usage=stream_usage,
        )
        self.api_version = api_version

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST; raises as `OpenAICodec.build_request`."""
        request = super().build_request(call)
        return request if self.api_version is None else replace(request, params={"api-version": self.api_version})


class EntraAuth(Auth):
    """A Microsoft Entra token from a function, such as `azure.identity.get_bearer_token_provider(...)` makes.

    Args:
        provider: Returns a token that is good now. It is asked for every request, so it should keep its token.
    """

    def __init__(self, provider: Callable[[], str | Secret]) -> None:
        self.provider = provider

    def flow(self, request: Request, now: float) -> AuthFlow:
        token = self.provider()
        shown = token.reveal() if isinstance(token, Secret) else Secret(token).reveal()
        return request.with_headers(authorization=f"Bearer {shown}")
        yield request  # a flow is a generator; this one asks for nothing

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        """The function knows when its token ends; asking again at once would give the same one."""
        return False
