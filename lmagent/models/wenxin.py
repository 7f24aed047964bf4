"""Baidu's ERNIE models: the classic API of 2023 and Qianfan v2."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.credentials import find_secret, find_setting, host_of, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec

__all__ = ["CLASSIC_MODELS", "WenxinChat"]

WenxinAPI: TypeAlias = Literal["classic", "v2"]

CLASSIC_MODELS = (
    "ERNIE-Bot*",
    "ernie-bot*",
    "ERNIE-3.5-*",
    "ERNIE-4.0-*",
    "ERNIE-Lite-*",
    "ERNIE-Speed-*",
    "ERNIE-Tiny-*",
    "ERNIE-Character-*",
    "ERNIE-Functions-*",
    "eb-instant",
    "completions*",
    "ernie_*",
    "llama_2_*",
)
"""Shell patterns of model names of the classic API. Case counts: v2 has some of these names in lower case."""

_CLASSIC_DEFAULT = "ERNIE-Bot"
_PAIRS = (("WENXIN_API_KEY", "WENXIN_SECRET_KEY"), ("QIANFAN_AK", "QIANFAN_SK"), ("EB_AK", "EB_SK"))
_TOKENS = ("QIANFAN_ACCESS_TOKEN", "EB_ACCESS_TOKEN")
_V2_KEYS = ("QIANFAN_API_KEY", "QIANFAN_BEARER_TOKEN")


class WenxinChat(ChatModel):
    """ERNIE. Which of the two APIs is spoken follows from the model's name, and `api` overrules it.

        WenxinChat("ERNIE-Bot")                 # classic: key pair, access token by itself
        WenxinChat("ernie-4.5-turbo-128k")      # Qianfan v2: one key

    `QIANFAN_SECRET_KEY` is read only beside `QIANFAN_ACCESS_KEY`, as the IAM secret that Baidu's own SDK means by it.

    Args:
        model: Default: `ERNIE-Bot` where a key pair or access token is all there is, else v2's.
        api: `classic` or `v2`; None: classic for the names of `CLASSIC_MODELS`.
        api_key: v2: the key, default `QIANFAN_API_KEY`, `QIANFAN_BEARER_TOKEN` or `WENXIN_API_KEY`. Classic: of the
            application, default `WENXIN_API_KEY`, `QIANFAN_AK` or `EB_AK`.
        secret_key: Classic: of the application, default `WENXIN_SECRET_KEY`, `QIANFAN_SK` or `EB_SK`.
        access_token: Classic: a token in place of the pair, default `QIANFAN_ACCESS_TOKEN` or `EB_ACCESS_TOKEN`.
        iam_access_key: In place of all these, for both APIs; default `QIANFAN_ACCESS_KEY`.
        iam_secret_key: Goes with it; default `QIANFAN_SECRET_KEY`.
        base_url: Default `WENXIN_BASE_URL` (classic also `QIANFAN_BASE_URL`), else Baidu's host.
        endpoint: Classic: last part of the URL, for models that are not in the table.
        native_tools: Classic: whether the model hears functions; None: as the table of models says.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No credentials.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:WenxinChatParameters"

    def __init__(
        self,
        model: str | None = None,
        *,
        api: WenxinAPI | None = None,
        api_key: str | Secret | None = None,
        secret_key: str | Secret | None = None,
        access_token: str | Secret | None = None,
        iam_access_key: str | Secret | None = None,
        iam_secret_key: str | Secret | None = None,
        base_url: str | None = None,
        endpoint: str | None = None,
        native_tools: bool | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        iam = _iam(iam_access_key, iam_secret_key)
        if api is None:
            api = _api_of(model) if model else _api_by_keys(api_key, secret_key, access_token)
        codec: Codec
        if api == "classic":
            from lmagent.providers.wenxin import BASE_URL, WenxinCodec

            url = find_setting(base_url, ("WENXIN_BASE_URL", "QIANFAN_BASE_URL"), BASE_URL) or BASE_URL
            codec = WenxinCodec(
                model or _CLASSIC_DEFAULT, base_url=host_of(url, "/v2"), endpoint=endpoint, tools=native_tools
            )
            auth = _classic_auth(codec.base_url, api_key, secret_key, access_token, iam)
        elif api == "v2":
            from lmagent.providers.openai.variants import WenxinV2Codec
            from lmagent.providers.vendors import WENXIN

            if endpoint is not None or native_tools is not None:
                raise ConfigurationError("endpoint= and native_tools= belong to the classic API; add api='classic'.")
            url = find_setting(base_url, WENXIN.base_url_env)
            codec = WenxinV2Codec(model or WENXIN.default_model, base_url=with_default_path(url, WENXIN.base_url))
            auth = _v2_auth(api_key, iam)
        else:
            raise ConfigurationError(f"api is 'classic' or 'v2', not {api!r}.")
        super().__init__(codec, auth=auth, **options)


def _api_of(model: str) -> WenxinAPI:
    return "classic" if any(fnmatchcase(model, pattern) for pattern in CLASSIC_MODELS) else "v2"


def _api_by_keys(
    api_key: str | Secret | None, secret_key: str | Secret | None, access_token: str | Secret | None
) -> WenxinAPI:
    """Return the API that the credentials are for; where they serve both it is the current one."""
    if secret_key is not None or access_token is not None:
        return "classic"
    if api_key is not None or find_secret(None, _V2_KEYS):
        return "v2"
    return "classic" if _key_pair(None, None) or find_secret(None, _TOKENS) else "v2"


def _key_pair(api_key: str | Secret | None, secret_key: str | Secret | None) -> tuple[Secret, Secret] | None:
    for key_name, secret_name in _PAIRS:
        key, secret = find_secret(api_key, (key_name,)), find_secret(secret_key, (secret_name,))
        if key and secret:
            return key, secret
    return None


def _iam(access_key: str | Secret | None, secret_key: str | Secret | None) -> tuple[Secret, Secret] | None:
    key = find_secret(access_key, ("QIANFAN_ACCESS_KEY",))
    secret = find_secret(secret_key, ("QIANFAN_SECRET_KEY",))
    if access_key is not None and not secret:
        raise ConfigurationError("iam_access_key= needs iam_secret_key= (or QIANFAN_SECRET_KEY).")
    return (key, secret) if key and secret else None


def _classic_auth(
    url: str,
    api_key: str | Secret | None,
    secret_key: str | Secret | None,
    access_token: str | Secret | None,
    iam: tuple[Secret, Secret] | None,
) -> Auth:
    from lmagent.providers.wenxin import AccessTokenAuth, BceSignatureAuth, KeyPairAuth

    given_pair = api_key is not None or secret_key is not None
    token = find_secret(access_token, () if given_pair else _TOKENS)
    if access_token is not None and token:
        return AccessTokenAuth(token)
    pair = _key_pair(api_key, secret_key)
    if pair:
        return KeyPairAuth(*pair, base_url=url)
    if token:
        return AccessTokenAuth(token)
    if iam:
        return BceSignatureAuth(*iam)
    raise ConfigurationError(
        "No keys for 'wenxin' (classic API): pass api_key=... and secret_key=..., or set WENXIN_API_KEY and "
        "WENXIN_SECRET_KEY (or QIANFAN_AK and QIANFAN_SK). A Qianfan v2 key goes with names such as "
        "'ernie-4.5-turbo-128k', or with api='v2'."
    )


def _v2_auth(api_key: str | Secret | None, iam: tuple[Secret, Secret] | None) -> Auth:
    key = find_secret(api_key, _V2_KEYS)
    if key is None and iam:
        from lmagent.providers.wenxin import IamBearerAuth

        return IamBearerAuth(*iam)
    key = key or find_secret(None, ("WENXIN_API_KEY",))
    if key is None:
        raise ConfigurationError(
            "No API key for 'wenxin' (Qianfan v2): pass api_key=... or set QIANFAN_API_KEY. A key pair of the classic "
            "API goes with names such as 'ERNIE-Bot', or with api='classic'."
        )
    return BearerAuth(key)
