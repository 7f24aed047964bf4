"""Baidu's ERNIE models: the classic API of 2023 and Qianfan v2."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import find_secret, find_setting, host_of, ways_to_set, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec
from lmagent.providers.vendors import VENDORS

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
"""Shell patterns of model names of the classic API. Case matters: v2 has some of these names in lower case."""

_VENDOR = VENDORS["wenxin"]
_ENV = _VENDOR.env
_PAIRS = tuple(zip(_ENV["classic_key"], _ENV["secret_key"], strict=True))
_TOKENS = _ENV["access_token"]
_V2_KEYS = _ENV["api_key"]


class WenxinChat(ChatModel):
    """Baidu's ERNIE. The API follows from the model's name unless you pass `api`.

        WenxinChat("ERNIE-Bot")                 # classic: key pair; the access token is fetched
        WenxinChat("ernie-4.5-turbo-128k")      # Qianfan v2: one key

    `QIANFAN_SECRET_KEY` is read only together with `QIANFAN_ACCESS_KEY`, as the IAM secret, as in Baidu's own SDK.

    Args:
        model: Default: `ERNIE-Bot` if there is only a key pair or access token, else v2's usual model.
        api: `classic` or `v2`; None: classic for the names of `CLASSIC_MODELS`.
        api_key: v2: the key, default `QIANFAN_API_KEY`, `QIANFAN_BEARER_TOKEN` or `WENXIN_API_KEY`. Classic: of the
            application, default `WENXIN_API_KEY`, `QIANFAN_AK` or `EB_AK`.
        secret_key: Classic: of the application, default `WENXIN_SECRET_KEY`, `QIANFAN_SK` or `EB_SK`.
        access_token: Classic: a token in place of the pair, default `QIANFAN_ACCESS_TOKEN` or `EB_ACCESS_TOKEN`.
        iam_access_key: In place of all these, for both APIs; default `QIANFAN_ACCESS_KEY`.
        iam_secret_key: Its secret; default `QIANFAN_SECRET_KEY`.
        base_url: Default `WENXIN_BASE_URL` (classic also `QIANFAN_BASE_URL`), else Baidu's host.
        endpoint: Classic: last part of the URL, for models that the codec's table lacks.
        native_tools: Classic: whether the model has function calls; None: by the codec's table.
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
            api = _api_by_keys(api_key, secret_key, access_token)
            if model:
                api = "classic" if any(fnmatchcase(model, pattern) for pattern in CLASSIC_MODELS) else "v2"
        codec: Codec
        if api == "classic":
            from lmagent.providers.wenxin import WenxinCodec

            classic = _VENDOR.api("classic")
            url = find_setting(base_url, _ENV["classic_base_url"]) or classic.address
            codec = WenxinCodec(
                model or classic.model, base_url=host_of(url, "/v2"), endpoint=endpoint, tools=native_tools
            )
            auth = _classic_auth(codec.base_url, api_key, secret_key, access_token, iam)
        elif api == "v2":
            from lmagent.providers.openai.variants import WenxinV2Codec

            if endpoint is not None or native_tools is not None:
                raise ConfigurationError("endpoint= and native_tools= belong to the classic API; add api='classic'.")
            current = _VENDOR.api("v2")
            url = with_default_path(find_setting(base_url, _ENV["base_url"]), current.address)
            codec = WenxinV2Codec(model or current.model, base_url=url)
            auth = _v2_auth(api_key, iam)
        else:
            raise ConfigurationError(f"api is 'classic' or 'v2', not {api!r}.")
        super().__init__(codec, auth=auth, **options)


def _api_by_keys(
    api_key: str | Secret | None, secret_key: str | Secret | None, access_token: str | Secret | None
) -> WenxinAPI:
    """Return the API that the credentials are for; if they are good for both, the current one."""
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
    key = find_secret(access_key, _ENV["iam_access_key"])
    secret = find_secret(secret_key, _ENV["iam_secret_key"])
    if access_key is not None and not secret:
        raise ConfigurationError(
            f"iam_access_key= has no secret: {ways_to_set('iam_secret_key', _ENV['iam_secret_key'])}."
        )
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
        "No keys for 'wenxin' (classic API): pass api_key=... and secret_key=..., or set "
        f"{' or '.join(' and '.join(pair) for pair in _PAIRS)}. A Qianfan v2 key goes with names such as "
        f"{_VENDOR.api('v2').model!r}, or with api='v2'."
    )


def _v2_auth(api_key: str | Secret | None, iam: tuple[Secret, Secret] | None) -> Auth:
    key = find_secret(api_key, _V2_KEYS)
    if key is None and iam:
        from lmagent.providers.wenxin import IamBearerAuth

        return IamBearerAuth(*iam)
    key = key or find_secret(None, _ENV["classic_key"][:1])
    if key is None:
        raise ConfigurationError(
            f"No API key for 'wenxin' (Qianfan v2): {ways_to_set('api_key', _V2_KEYS[:1])}. A key pair of the classic "
            f"API goes with names such as {_VENDOR.api('classic').model!r}, or with api='classic'."
        )
    return BearerAuth(key)
