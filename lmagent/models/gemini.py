"""Google's Gemini, by API key or through Vertex AI."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import find_secret, find_setting, require_secret
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, HeaderAuth
from lmagent.providers.gemini import DEFAULT_VERSION, GeminiCodec
from lmagent.providers.vendors import VENDORS

__all__ = ["GeminiChat"]

_VENDOR = VENDORS["gemini"]
_ENV = _VENDOR.env
_VERSION_WORDS = {"beta": "v1beta", "alpha": "v1alpha", "stable": "v1"}


class GeminiChat(ChatModel):
    """Google's Gemini models.

        GeminiChat().chat_completion("你好").reply
        GeminiChat(project="my-project", access_token=token)      # Vertex AI

    Args:
        model: Any model name; none is checked against a list.
        api_key: Default: `GOOGLE_API_KEY` or `GEMINI_API_KEY`. Another `base_url` may need none.
        base_url: Host without the version. Default: `GOOGLE_GEMINI_BASE_URL`, else Google itself.
        version: Default: `GOOGLE_GENAI_API_VERSION`, else `v1beta`.
        project: Use Vertex AI with this Google Cloud project.
        location: For Vertex AI. Default: `GOOGLE_CLOUD_LOCATION`, else `global`.
        access_token: For Vertex AI: a bearer token, as `gcloud auth print-access-token` prints it. It is not renewed.
        signatures: Whether calls without a thought signature get the dummy one; None: by model name.
        budgets: Whether `reasoning_effort` is sent as a thinking budget, not as a level; None: by model name.
        schema_with_tools: Whether the schema of a structured answer is sent beside tools; None: by model name.
        schemas: `openapi` describes tools and answers in the API's older form, for servers that know only that one.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key for Google itself, or no token for Vertex AI.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:GeminiChatParameters"

    def __init__(
        self,
        model: str = _VENDOR.default_model,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        version: str | None = None,
        project: str | None = None,
        location: str | None = None,
        access_token: str | Secret | None = None,
        signatures: bool | None = None,
        budgets: bool | None = None,
        schema_with_tools: bool | None = None,
        schemas: Literal["json", "openapi"] = "json",
        **options: Unpack[ModelOptions],
    ) -> None:
        auth: Auth | None
        if project is not None:
            token = find_secret(access_token, ())
            if token is None:
                raise ConfigurationError("No token for Vertex AI: pass access_token=... beside project=...")
            place = find_setting(location, _ENV["location"], "global") or "global"
            url, named, auth = _vertex(base_url, project, place), "", BearerAuth(token)
        else:
            url = find_setting(base_url, _ENV["base_url"]) or _VENDOR.api().address
            own = url == _VENDOR.api().address
            names = _ENV["api_key"]
            key = require_secret("gemini", api_key, names) if own else find_secret(api_key, names)
            named = find_setting(version, _ENV["version"]) or DEFAULT_VERSION
            auth = HeaderAuth(key, "x-goog-api-key") if key else None
        codec = GeminiCodec(
            model,
            base_url=url,
            version=_VERSION_WORDS.get(named, named),
            signatures=signatures,
            budgets=budgets,
            schema_with_tools=schema_with_tools,
            schemas=schemas,
            any_url=project is not None,
        )
        super().__init__(codec, auth=auth, **options)


def _vertex(base_url: str | None, project: str, location: str) -> str:
    """Return everything up to the publisher; `global` has a host without a region."""
    host = "aiplatform.googleapis.com" if location == "global" else f"{location}-aiplatform.googleapis.com"
    root = (base_url or f"https://{host}").rstrip("/")
    return f"{root}/v1beta1/projects/{project}/locations/{location}/publishers/google"
