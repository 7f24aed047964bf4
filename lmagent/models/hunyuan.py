"""Tencent Hunyuan through any of its four APIs."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import find_secret, find_setting, require_secret, require_setting, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec
from lmagent.providers.vendors import VENDORS

__all__ = ["HunyuanApi", "HunyuanChat"]

HunyuanApi = Literal["compatible", "tokenhub", "tc3", "hyllm"]
"""The OpenAI-compatible API, the same on the TokenHub platform, the signed cloud API, the API of 2023."""

_API_OF_MODEL: Sequence[tuple[str, HunyuanApi]] = (("v1", "hyllm"), ("hy3*", "tokenhub"))
"""Model names that only one API has."""

_VENDOR = VENDORS["hunyuan"]
_ENV = _VENDOR.env


class HunyuanChat(ChatModel):
    """Tencent Hunyuan.

        HunyuanChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list. `"v1"` is the API of 2023, which Tencent has shut down.
        api: Which API; None: by the model's name, else `"compatible"` if there is an API key, else `"tc3"`.
        api_key: For `"compatible"` (default: `HUNYUAN_API_KEY`) and `"tokenhub"` (`TOKENHUB_API_KEY`).
        secret_id: For `"tc3"` and `"hyllm"`. Default: `HUNYUAN_SECRET_ID` or `TENCENTCLOUD_SECRET_ID`.
        secret_key: Default: `HUNYUAN_SECRET_KEY` or `TENCENTCLOUD_SECRET_KEY`.
        token: Session token of a temporary cloud key. Default: `TENCENTCLOUD_TOKEN`.
        app_id: For `"hyllm"`. Default: `HUNYUAN_APP_ID`.
        base_url: Default: `HUNYUAN_BASE_URL` for `"compatible"`, else Tencent's host.
        region: For `"tc3"`, rarely needed.
        native_tools: Whether the model has function calls; None: by its name.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: A key is missing, or `api` is unknown.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:HunyuanChatParameters"

    def __init__(
        self,
        model: str = _VENDOR.default_model,
        *,
        api: HunyuanApi | None = None,
        api_key: str | Secret | None = None,
        secret_id: str | Secret | None = None,
        secret_key: str | Secret | None = None,
        token: str | Secret | None = None,
        app_id: int | str | None = None,
        base_url: str | None = None,
        region: str | None = None,
        native_tools: bool | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        chosen = api or _api_of(model, api_key, secret_id)
        codec: Codec
        auth: Auth
        match chosen:
            case "compatible" | "tokenhub":
                from lmagent.providers.openai.variants import HunyuanCompatibleCodec

                if chosen == "tokenhub":
                    given, key_names = base_url, _ENV["tokenhub_key"]
                else:
                    given, key_names = find_setting(base_url, _ENV["base_url"]), _ENV["api_key"]
                url = with_default_path(given, _VENDOR.api(chosen).address)
                codec = HunyuanCompatibleCodec(model, base_url=url, tools=native_tools)
                auth = BearerAuth(require_secret("hunyuan", api_key, key_names))
            case "tc3":
                from lmagent.providers.hunyuan import HunyuanCodec, TC3Auth

                url = base_url or _VENDOR.api("tc3").address
                codec = HunyuanCodec(model, base_url=url, region=region, tools=native_tools)
                auth = TC3Auth(*_pair(secret_id, secret_key), token=find_secret(token, _ENV["token"]))
            case "hyllm":
                from lmagent.providers.hunyuan import HyllmAuth, HyllmCodec

                number = None if app_id is None else str(app_id)
                number = require_setting("hunyuan", "app id", "app_id", number, _ENV["app_id"])
                if not number.isdecimal():
                    raise ConfigurationError(f"Hunyuan's app_id is a number, not {number!r}.")
                codec = HyllmCodec(model, base_url=with_default_path(base_url, _VENDOR.api("hyllm").address))
                auth = HyllmAuth(int(number), *_pair(secret_id, secret_key))
            case _:
                raise ConfigurationError(f"api is 'compatible', 'tokenhub', 'tc3' or 'hyllm', not {chosen!r}.")
        super().__init__(codec, auth=auth, **options)


def _api_of(model: str, api_key: str | Secret | None, secret_id: str | Secret | None) -> HunyuanApi:
    for pattern, only in _API_OF_MODEL:
        if fnmatchcase(model, pattern):
            return only
    if api_key is not None:
        return "compatible"
    if secret_id is not None:
        return "tc3"
    if find_secret(None, _ENV["api_key"]) or not find_secret(None, _ENV["secret_id"]):
        return "compatible"
    return "tc3"


def _pair(secret_id: str | Secret | None, secret_key: str | Secret | None) -> tuple[Secret, Secret]:
    return (
        require_secret("hunyuan", secret_id, _ENV["secret_id"], "secret_id"),
        require_secret("hunyuan", secret_key, _ENV["secret_key"], "secret_key"),
    )
