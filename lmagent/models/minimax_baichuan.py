"""MiniMax and Baichuan: the APIs of 2023 that LMClient's users know, and the current ones.

Two makers in one module because both work alike: which API a model is asked through follows from its name.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.loading import find_setting, host_of, require_secret, require_setting, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import Auth, BearerAuth, Codec
from lmagent.providers.vendors import VENDORS

__all__ = ["APIS", "CLASSIC_MODELS", "BaichuanChat", "MinimaxChat", "MinimaxProChat"]

MinimaxAPI: TypeAlias = Literal["classic", "v2", "current"]
BaichuanAPI: TypeAlias = Literal["classic", "current"]

APIS: tuple[tuple[str, MinimaxAPI], ...] = (
    ("abab5*", "classic"),
    ("abab*", "v2"),
    ("MiniMax-Text-*", "v2"),
    ("MiniMax-M1*", "v2"),
)
"""Shell pattern of a MiniMax model name -> the API it is asked through; all others: the current one."""

CLASSIC_MODELS = ("Baichuan2-53B",)
"""Shell patterns of the Baichuan models that only the API of 2023 has."""

_MINIMAX = VENDORS["minimax"]
_MINIMAX_PRO = VENDORS["minimax_pro"]
_BAICHUAN = VENDORS["baichuan"]


class MinimaxChat(ChatModel):
    """MiniMax. The API follows from the model's name unless you pass `api`.

        MinimaxChat()                   # current API: tools and reasoning
        MinimaxChat("abab5.5-chat")     # API of 2023: needs a group id; tools through the prompt

    Args:
        model: Any name; none is checked against a list.
        api: `classic` (chatcompletion), `v2` (chatcompletion_v2) or `current`; None: by the table `APIS`.
        api_key: Default: `MINIMAX_API_KEY`.
        group_id: Classic only. Default: `MINIMAX_GROUP_ID`.
        base_url: Default: `MINIMAX_API_HOST` or `MINIMAX_BASE_URL`, else MiniMax's host. Keys from China
            need `https://api.minimaxi.com/v1` for current models.
        user_name: Classic only: name of the user in a system prompt.
        bot_name: Classic only: name of the model in a system prompt.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key, or no group id where it is needed.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:MinimaxChatParameters"

    def __init__(
        self,
        model: str | None = None,
        *,
        api: MinimaxAPI | None = None,
        api_key: str | Secret | None = None,
        group_id: str | None = None,
        base_url: str | None = None,
        user_name: str | None = None,
        bot_name: str | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        key = require_secret("minimax", api_key, _MINIMAX.env["api_key"])
        url = find_setting(base_url, _MINIMAX.env["base_url"])
        if api is None:
            api = next((each for pattern, each in APIS if fnmatchcase(model or "", pattern)), None) or "current"
        codec: Codec
        if api == "classic":
            from lmagent.providers.minimax import BOT_NAME, USER_NAME, MinimaxCodec

            classic = _MINIMAX.api("classic")
            codec = MinimaxCodec(
                model or classic.model,
                group_id=require_setting("minimax", "group id", "group_id", group_id, _MINIMAX.env["group_id"]),
                base_url=host_of(url or classic.address),
                user_name=user_name or USER_NAME,
                bot_name=bot_name or BOT_NAME,
            )
        elif api in ("v2", "current"):
            from lmagent.providers.openai.variants import MinimaxV2Codec
            from lmagent.providers.openai.vendor_profiles import MINIMAX, MINIMAX_V2

            profile = MINIMAX_V2 if api == "v2" else MINIMAX
            codec = MinimaxV2Codec(
                model or profile.default_model, profile=profile, base_url=with_default_path(url, profile.base_url)
            )
        else:
            raise ConfigurationError(f"api is 'classic', 'v2' or 'current', not {api!r}.")
        super().__init__(codec, auth=BearerAuth(key), **options)


class MinimaxProChat(ChatModel):
    """MiniMax's `chatcompletion_pro`: bots with names, native function calls.

    The system prompt describes the bot; several bots are the parameter `bot_setting`.

    Args:
        model: For example `abab5.5-chat`.
        api_key: Default: `MINIMAX_API_KEY`.
        group_id: Default: `MINIMAX_GROUP_ID`.
        base_url: Default: `MINIMAX_API_HOST` or `MINIMAX_BASE_URL`, else MiniMax's host.
        user_name: Name on user messages.
        bot_name: Name of the bot that answers.
        function_sender: Whose name a tool result carries, the function's or the bot's. Sources differ on it.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key or no group id.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:MinimaxProChatParameters"

    def __init__(
        self,
        model: str = _MINIMAX_PRO.default_model,
        *,
        api_key: str | Secret | None = None,
        group_id: str | None = None,
        base_url: str | None = None,
        user_name: str | None = None,
        bot_name: str | None = None,
        function_sender: Literal["function", "bot"] = "function",
        **options: Unpack[ModelOptions],
    ) -> None:
        from lmagent.providers.minimax import BOT_NAME, USER_NAME, MinimaxProCodec

        env = _MINIMAX_PRO.env
        default_url = _MINIMAX_PRO.api().address
        key = require_secret("minimax_pro", api_key, env["api_key"])
        codec = MinimaxProCodec(
            model,
            group_id=require_setting("minimax_pro", "group id", "group_id", group_id, env["group_id"]),
            base_url=host_of(find_setting(base_url, env["base_url"]) or default_url),
            user_name=user_name or USER_NAME,
            bot_name=bot_name or BOT_NAME,
            function_sender=function_sender,
        )
        super().__init__(codec, auth=BearerAuth(key), **options)


class BaichuanChat(ChatModel):
    """Baichuan. The API follows from the model's name unless you pass `api`.

        BaichuanChat()                      # current API, with tools
        BaichuanChat("Baichuan2-53B")       # API of 2023: needs a secret key; tools through the prompt

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
        key = require_secret("baichuan", api_key, _BAICHUAN.env["api_key"])
        url = find_setting(base_url, _BAICHUAN.env["base_url"])
        classic = any(fnmatchcase(model or "", pattern) for pattern in CLASSIC_MODELS)
        api = api or ("classic" if classic else "current")
        codec: Codec
        auth: Auth
        if api == "classic":
            from lmagent.providers.baichuan import BaichuanCodec, BaichuanSignatureAuth

            old = _BAICHUAN.api("classic")
            codec = BaichuanCodec(model or old.model, base_url=host_of(url or old.address))
            secret = require_secret("baichuan", secret_key, _BAICHUAN.env["secret_key"], "secret_key")
            auth = BaichuanSignatureAuth(key, secret)
        elif api == "current":
            from lmagent.providers.openai.chat import OpenAICodec
            from lmagent.providers.openai.vendor_profiles import BAICHUAN

            codec = OpenAICodec(
                model or BAICHUAN.default_model, profile=BAICHUAN, base_url=with_default_path(url, BAICHUAN.base_url)
            )
            auth = BearerAuth(key)
        else:
            raise ConfigurationError(f"api is 'classic' or 'current', not {api!r}.")
        super().__init__(codec, auth=auth, **options)
