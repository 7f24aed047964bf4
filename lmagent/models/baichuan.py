"""Baichuan: the signed API of 2023 and today's."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.credentials import find_setting, host_of, require_secret, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec

__all__ = ["CLASSIC_MODELS", "BaichuanChat"]

BaichuanAPI: TypeAlias = Literal["classic", "current"]

CLASSIC_MODELS = ("Baichuan2-53B",)
"""Shell patterns of the models that only the API of 2023 has."""

_KEY = ("BAICHUAN_API_KEY",)
_SECRET = ("BAICHUAN_SECRET_KEY",)


class BaichuanChat(ChatModel):
    """Baichuan. Which API is spoken follows from the model's name, and `api` overrules it.

        BaichuanChat()                      # today's, with tools
        BaichuanChat("Baichuan2-53B")       # 2023: needs a secret key; tools through the prompt

    Args:
        model: Any name; none is checked against a list.
        api: `classic` (signed) or `current`; None: classic for the names of `CLASSIC_MODELS`.
        api_key: Default: `BAICHUAN_API_KEY`.
        secret_key: Classic only. Default: `BAICHUAN_SECRET_KEY`.
        base_url: Default: `BAICHUAN_BASE_URL`, else Baichuan's host.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key, or no secret key where it is needed.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:BaichuanChatParameters"

    def __init__(
        self,
        model: str | None = None,
        *,
        api: BaichuanAPI | None = None,
        api_key: str | Secret | None = None,
        secret_key: str | Secret | None = None,
        base_url: str | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        key = require_secret("baichuan", api_key, _KEY)
        url = find_setting(base_url, ("BAICHUAN_BASE_URL",))
        classic = any(fnmatchcase(model or "", pattern) for pattern in CLASSIC_MODELS)
        api = api or ("classic" if classic else "current")
        codec: Codec
        auth: Auth
        if api == "classic":
            from lmagent.providers.baichuan import BASE_URL, BaichuanCodec, BaichuanSignatureAuth

            codec = BaichuanCodec(model or "Baichuan2-53B", base_url=host_of(url or BASE_URL))
            auth = BaichuanSignatureAuth(key, require_secret("baichuan", secret_key, _SECRET, "secret_key"))
        elif api == "current":
            from lmagent.providers.openai.chat import OpenAICodec
            from lmagent.providers.vendors import BAICHUAN

            codec = OpenAICodec(
                model or BAICHUAN.default_model,
                profile=BAICHUAN,
                base_url=with_default_path(url, BAICHUAN.base_url),
            )
            auth = BearerAuth(key)
        else:
            raise ConfigurationError(f"api is 'classic' or 'current', not {api!r}.")
        super().__init__(codec, auth=auth, **options)
