"""Alibaba's Bailian (DashScope, Model Studio): the Qwen models, natively or in compatible mode, and the old apps."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack
from urllib.parse import urlsplit

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import (
    find_secret,
    find_setting,
    require_secret,
    require_setting,
    ways_to_set,
    with_default_path,
)
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec
from lmagent.providers.vendors import BAILIAN_HOSTS, VENDORS

__all__ = ["BailianApi", "BailianChat"]

BailianApi = Literal["native", "compatible", "app"]
"""DashScope's own API, its OpenAI-compatible mode, and the app completions of 2023."""

_VENDOR = VENDORS["bailian"]
_ENV = _VENDOR.env
_ADDRESS_OF_API = {"native": "base_url", "compatible": "compatible_base_url"}
"""API -> the setting with its address."""


class BailianChat(ChatModel):
    """Alibaba's Bailian.

        BailianChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list. For apps the app's id (default: `BAILIAN_APP_ID`).
        api: `"native"`, `"compatible"` or `"app"`; None: `"native"`, or `"app"` if there is only an access key.
        api_key: Default: `DASHSCOPE_API_KEY`. For apps a finished token, in place of the access key.
        access_key_id: Apps: id of the cloud key that tokens are obtained with. Default: `BAILIAN_ACCESS_KEY_ID`.
        access_key_secret: Apps: the key itself. Default: `BAILIAN_ACCESS_KEY_SECRET`.
        agent_key: Apps: the workspace of the app. Default: `BAILIAN_AGENT_KEY`.
        base_url: Default: `DASHSCOPE_HTTP_BASE_URL` (native) or `DASHSCOPE_COMPATIBLE_BASE_URL`, else by region.
        region: Such as `"ap-southeast-1"`; keys belong to one. Default: `DASHSCOPE_API_REGION`, else Beijing.
        workspace: Id of a workspace. Default: `DASHSCOPE_WORKSPACE_ID`.
        incremental: Native: whether a stream sends only what is new; the oldest models need False.
        multimodal: Native: whether the model is on the path for images; None: by its name.
        session_id: Apps: name of the session on the server; the history is sent with every call anyway.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key, no app id, an unknown `api`, or a region that needs a workspace.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:BailianChatParameters"

    def __init__(
        self,
        model: str | None = None,
        *,
        api: BailianApi | None = None,
        api_key: str | Secret | None = None,
        access_key_id: str | Secret | None = None,
        access_key_secret: str | Secret | None = None,
        agent_key: str | Secret | None = None,
        base_url: str | None = None,
        region: str | None = None,
        workspace: str | None = None,
        incremental: bool = True,
        multimodal: bool | None = None,
        session_id: str | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        chosen = api or _api_by_keys(api_key, access_key_id)
        space = find_setting(workspace, _ENV["workspace"])
        codec: Codec
        auth: Auth | None = None
        match chosen:
            case "native":
                from lmagent.providers.bailian import BailianCodec

                codec = BailianCodec(
                    model or _VENDOR.api("native").model,
                    base_url=_url("native", base_url, region, space),
                    incremental=incremental,
                    multimodal=multimodal,
                    workspace=space,
                )
            case "compatible":
                from lmagent.providers.openai.chat import OpenAICodec
                from lmagent.providers.openai.vendor_profiles import BAILIAN

                url = _url("compatible", base_url, region, space)
                codec = OpenAICodec(model or BAILIAN.default_model, base_url=url, profile=BAILIAN)
            case "app":
                from lmagent.providers.bailian_app import BailianAppCodec, BailianTokenAuth

                app_id = require_setting("bailian", "app id", "model", model, _ENV["app_id"])
                url = base_url or _VENDOR.api("app").address
                codec = BailianAppCodec(app_id, base_url=url, session_id=session_id)
                if api_key is None:
                    auth = BailianTokenAuth(
                        require_secret("bailian", access_key_id, _ENV["access_key_id"], "access_key_id"),
                        require_secret("bailian", access_key_secret, _ENV["access_key_secret"], "access_key_secret"),
                        require_secret("bailian", agent_key, _ENV["agent_key"], "agent_key"),
                    )
            case _:
                raise ConfigurationError(f"api is 'native', 'compatible' or 'app', not {chosen!r}.")
        if auth is None:
            auth = BearerAuth(require_secret("bailian", api_key, _ENV["api_key"]))
        super().__init__(codec, auth=auth, **options)


def _api_by_keys(api_key: str | Secret | None, access_key_id: str | Secret | None) -> BailianApi:
    if api_key is not None:
        return "native"
    if access_key_id is not None:
        return "app"
    native = find_secret(None, _ENV["api_key"]) or not find_secret(None, _ENV["access_key_id"])
    return "native" if native else "app"


def _url(api: str, base_url: str | None, region: str | None, workspace: str | None) -> str:
    default = _VENDOR.api(api).address
    found = find_setting(base_url, _ENV[_ADDRESS_OF_API[api]])
    if found:
        return with_default_path(found, default)
    place = find_setting(region, _ENV["region"]) or "cn-beijing"
    host = BAILIAN_HOSTS.get(place)
    if host is None:
        if workspace is None:
            raise ConfigurationError(
                f"The region {place!r} has a host for each workspace: {ways_to_set('workspace', _ENV['workspace'])}. "
                f"Regions with one host for all: {', '.join(BAILIAN_HOSTS)}."
            )
        host = f"https://{workspace}.{place}.maas.aliyuncs.com"
    return host + urlsplit(default).path
