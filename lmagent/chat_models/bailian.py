"""Alibaba's Bailian (DashScope, Model Studio): the Qwen models, natively or in compatible mode, and the old apps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Unpack

from lmagent.credentials import find_setting, require_secret, require_setting
from lmagent.errors import ConfigurationError
from lmagent.model import ChatModel, ModelOptions
from lmagent.providers.auth import BearerAuth
from lmagent.providers.base import Codec
from lmagent.redaction import Secret

__all__ = ["BailianApi", "BailianChat"]

BailianApi = Literal["native", "compatible", "app"]
"""DashScope's own language, OpenAI's, and the app completions of 2023."""

_KEY = ("DASHSCOPE_API_KEY",)
_APP_TOKEN = ("BAILIAN_TOKEN",)
_APP_ID = ("BAILIAN_APP_ID",)
_WORKSPACE = ("DASHSCOPE_WORKSPACE_ID",)
_REGION = ("DASHSCOPE_API_REGION",)
_URL_NAMES: Mapping[str, tuple[str, ...]] = {
    "native": ("DASHSCOPE_HTTP_BASE_URL",),
    "compatible": ("DASHSCOPE_COMPATIBLE_BASE_URL",),
}
_PATHS: Mapping[str, str] = {"native": "/api/v1", "compatible": "/compatible-mode/v1"}
_HOSTS: Mapping[str, str] = {
    "cn-beijing": "https://dashscope.aliyuncs.com",
    "ap-southeast-1": "https://dashscope-intl.aliyuncs.com",
    "us-east-1": "https://dashscope-us.aliyuncs.com",
}
"""Regions with a host of their own; in others each workspace has one."""


class BailianChat(ChatModel):
    """Alibaba's Bailian.

        BailianChat().chat_completion("你好").reply

    Args:
        model: Any model name; none is checked against a list. For apps the app's id (default: `BAILIAN_APP_ID`).
        api: `"native"`, `"compatible"` or `"app"`.
        api_key: Default: `DASHSCOPE_API_KEY`. For apps the ready-made token (default: `BAILIAN_TOKEN`): the cloud's
            `CreateToken` makes it from an access key, lmagent does not.
        base_url: Default: `DASHSCOPE_HTTP_BASE_URL` (native) or `DASHSCOPE_COMPATIBLE_BASE_URL`, else by region.
        region: Such as `"ap-southeast-1"`; keys belong to one. Default: `DASHSCOPE_API_REGION`, else Beijing.
        workspace: Id of a workspace. Default: `DASHSCOPE_WORKSPACE_ID`.
        incremental: Native: whether streams come in pieces; False is what the oldest models know.
        multimodal: Native: whether the model lives on the path for pictures; None: by its name.
        session_id: Apps: a session that the server keeps.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key, no app id, an unknown `api`, or a region that needs a workspace.
    """

    parameters_type: ClassVar[str] = "lmagent.parameters.bailian:BailianChatParameters"

    def __init__(
        self,
        model: str | None = None,
        *,
        api: BailianApi = "native",
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        region: str | None = None,
        workspace: str | None = None,
        incremental: bool = True,
        multimodal: bool | None = None,
        session_id: str | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        space = find_setting(workspace, _WORKSPACE)
        codec: Codec
        match api:
            case "native":
                from lmagent.providers.bailian import BailianCodec

                codec = BailianCodec(
                    model or "qwen-plus",
                    base_url=_url(api, base_url, region, space),
                    incremental=incremental,
                    multimodal=multimodal,
                    workspace=space,
                )
            case "compatible":
                from lmagent.providers.compatible import BAILIAN
                from lmagent.providers.openai import OpenAICodec

                url = _url(api, base_url, region, space)
                codec = OpenAICodec(model or "qwen-plus", base_url=url, profile=BAILIAN)
            case "app":
                from lmagent.providers.bailian_app import BASE_URL, BailianAppCodec

                app_id = require_setting("bailian", "app id", "model", model, _APP_ID)
                codec = BailianAppCodec(app_id, base_url=base_url or BASE_URL, session_id=session_id)
            case _:
                raise ConfigurationError(f"api is 'native', 'compatible' or 'app', not {api!r}.")
        key = require_secret("bailian", api_key, _APP_TOKEN if api == "app" else _KEY)
        super().__init__(codec, auth=BearerAuth(key), **options)


def _url(api: str, base_url: str | None, region: str | None, workspace: str | None) -> str:
    found = find_setting(base_url, _URL_NAMES[api])
    if found:
        return found
    place = find_setting(region, _REGION) or "cn-beijing"
    host = _HOSTS.get(place)
    if host is None:
        if workspace is None:
            raise ConfigurationError(
                f"The region {place!r} has a host for each workspace: pass workspace=... or set {_WORKSPACE[0]}. "
                f"Regions without: {', '.join(_HOSTS)}."
            )
        host = f"https://{workspace}.{place}.maas.aliyuncs.com"
    return host + _PATHS[api]
