"""Zhipu (BigModel, Z.ai): chat and role play, on v4 and on the API of 2023."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import find_setting, require_secret, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec
from lmagent.providers.vendors import VENDORS
from lmagent.providers.zhipu import CharacterCodec, ZhipuAuth, ZhipuCodec

__all__ = ["ZhiPuCharacterChat", "ZhiPuChat", "ZhipuApi"]

ZhipuApi = Literal["v3", "v4"]

_API_OF_MODEL: Sequence[tuple[str, ZhipuApi]] = (("chatglm*", "v3"), ("characterglm*", "v3"), ("*", "v4"))
"""Shell pattern of a model name -> its API; the first that matches."""

_CHAT = VENDORS["zhipu"]
_CHARACTER = VENDORS["zhipu-character"]
_V4_LIFETIME_S = 210.0


class ZhiPuChat(ChatModel):
    """Zhipu's GLM models.

        ZhiPuChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list. `chatglm_turbo` and its like are on v3.
        api: `"v4"` or `"v3"`; None: by the model's name.
        api_key: `<id>.<secret>`. Default: `ZHIPU_API_KEY`, `ZHIPUAI_API_KEY` or `ZAI_API_KEY`.
        base_url: Default for v4: `ZHIPUAI_BASE_URL` or `ZAI_BASE_URL`, else open.bigmodel.cn. Outside China:
            `https://api.z.ai/api/paas/v4`.
        signed: v4: send the key as a short-lived signed token instead of as it is. v3 always does.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key, or a key that cannot sign.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:ZhiPuChatParameters"

    def __init__(
        self,
        model: str = _CHAT.default_model,
        *,
        api: ZhipuApi | None = None,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        signed: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        version, url, auth = _connection("zhipu", model, api, api_key, base_url, signed)
        if version == "v3":
            codec: Codec = ZhipuCodec(model, base_url=url)
        else:
            from lmagent.providers.openai.variants import ZhipuV4Codec

            codec = ZhipuV4Codec(model, base_url=url)
        super().__init__(codec, auth=auth, **options)


class ZhiPuCharacterChat(ChatModel):
    """Zhipu's role-play models: CharacterGLM on v3, CharGLM on v4. Tools work through the prompt.

        ZhiPuCharacterChat(meta={"bot_name": "Guide", "bot_info": "a patient guide"}).chat_completion("你好").reply

    Args:
        model: Any model name; `characterglm` is on v3.
        meta: The card: `user_info`, `bot_info`, `bot_name`, `user_name`; each has a default.
        api: `"v4"` or `"v3"`; None: by the model's name.
        api_key: As in `ZhiPuChat`.
        base_url: As in `ZhiPuChat`.
        signed: As in `ZhiPuChat`.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key, or a key that cannot sign.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:ZhiPuCharacterChatParameters"

    def __init__(
        self,
        model: str = _CHARACTER.default_model,
        *,
        meta: Mapping[str, str] | None = None,
        api: ZhipuApi | None = None,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        signed: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        version, url, auth = _connection("zhipu-character", model, api, api_key, base_url, signed)
        if version == "v3":
            codec: Codec = CharacterCodec(model, base_url=url, meta=meta)
        else:
            from lmagent.providers.openai.variants import CharacterV4Codec

            codec = CharacterV4Codec(model, base_url=url, meta=meta)
        super().__init__(codec, auth=auth, **options)


def _connection(
    prefix: str, model: str, api: ZhipuApi | None, api_key: str | Secret | None, base_url: str | None, signed: bool
) -> tuple[ZhipuApi, str, Auth]:
    """Return version, address and credentials."""
    if api not in (None, "v3", "v4"):
        raise ConfigurationError(f"api is 'v3' or 'v4', not {api!r}.")
    version: ZhipuApi = api or next(each for pattern, each in _API_OF_MODEL if fnmatchcase(model, pattern))
    key = require_secret(prefix, api_key, VENDORS[prefix].env["api_key"])
    if version == "v3":
        return version, with_default_path(base_url, _CHAT.api("v3").address), ZhipuAuth(key)
    url = with_default_path(find_setting(base_url, _CHAT.env["base_url"]), _CHAT.api("v4").address)
    auth = ZhipuAuth(key, scheme="Bearer", lifetime_s=_V4_LIFETIME_S) if signed else BearerAuth(key)
    return version, url, auth
