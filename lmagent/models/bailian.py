"""Alibaba's Bailian (DashScope, Model Studio): the Qwen models, natively or in compatible mode, and the old apps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.credentials import find_secret, find_setting, require_secret, require_setting, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec

__all__ = ["BailianApi", "BailianChat"]

BailianApi = Literal["native", "compatible", "app"]
"""DashScope's own language, OpenAI's, and the app completions of 2023."""

_KEY = ("DASHSCOPE_API_KEY",)
_ACCESS_KEY_ID = ("BAILIAN_ACCESS_KEY_ID",)
_ACCESS_KEY_SECRET = ("BAILIAN_ACCESS_KEY_SECRET",)
_AGENT_KEY = ("BAILIAN_AGENT_KEY",)
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
        api: `"native"`, `"compatible"` or `"app"`; None: `"native"`, or `"app"` when there is an access key only.
        api_key: Default: `DASHSCOPE_API_KEY`. For apps a ready-made token, in place of the access key.
        access_key_id: Apps: id of the cloud key that buys tokens. Default: `BAILIAN_ACCESS_KEY_ID`.
        access_key_secret: Apps: the key itself. Default: `BAILIAN_ACCESS_KEY_SECRET`.
        agent_key: Apps: the workspace of the app. Default: `BAILIAN_AGENT_KEY`.
        base_url: Default: `DASHSCOPE_HTTP_BASE_URL` (native) or `DASHSCOPE_COMPATIBLE_BASE_URL`, else by region.
        region: Such as `"ap-southeast-1"`; keys belong to one. Default: `DASHSCOPE_API_REGION`, else Beijing.
        workspace: Id of a workspace. Default: `DASHSCOPE_WORKSPACE_ID`.
        incremental: Native: whether streams come in pieces; False is what the oldest models know.
        multimodal: Native: whether the model lives on the path for pictures; None: by its name.
        session_id: Apps: names the session on the server; the history is sent all the same.
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
        door = api or _door(api_key, access_key_id)
        space = find_setting(workspace, _WORKSPACE)
        codec: Codec
        auth: Auth | None = None
        match door:
            case "native":
                from lmagent.providers.bailian import BailianCodec

                codec = BailianCodec(
                    model or "qwen-plus",
                    base_url=_url(door, base_url, region, space),
                    incremental=incremental,
                    multimodal=multimodal,
                    workspace=space,
                )
            case "compatible":
                from lmagent.providers.openai.chat import OpenAICodec
                from lmagent.providers.vendors import BAILIAN

                url = _url(door, base_url, region, space)
                codec = OpenAICodec(model or "qwen-plus", base_url=url, profile=BAILIAN)
            case "app":
                from lmagent.providers.bailian_app import BASE_URL, BailianAppCodec

                app_id = require_setting("bailian", "app id", "model", model, _APP_ID)
                codec = BailianAppCodec(app_id, base_url=base_url or BASE_URL, session_id=session_id)
                if api_key is None:
                    from lmagent.providers.bailian_app import BailianTokenAuth

                    auth = BailianTokenAuth(
                        require_secret("bailian", access_key_id, _ACCESS_KEY_ID, "access_key_id"),
                        require_secret("bailian", access_key_secret, _ACCESS_KEY_SECRET, "access_key_secret"),
                        require_secret("bailian", agent_key, _AGENT_KEY, "agent_key"),
                    )
            case _:
                raise ConfigurationError(f"api is 'native', 'compatible' or 'app', not {door!r}.")
        super().__init__(codec, auth=auth or BearerAuth(require_secret("bailian", api_key, _KEY)), **options)


def _door(api_key: str | Secret | None, access_key_id: str | Secret | None) -> BailianApi:
    if api_key is not None:
        return "native"
    if access_key_id is not None:
        return "app"
    return "native" if find_secret(None, _KEY) or not find_secret(None, _ACCESS_KEY_ID) else "app"


def _url(api: str, base_url: str | None, region: str | None, workspace: str | None) -> str:
    found = find_setting(base_url, _URL_NAMES[api])
    if found:
        return with_default_path(found, _HOSTS["cn-beijing"] + _PATHS[api])
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
