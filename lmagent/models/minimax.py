"""MiniMax: the two APIs of 2023, chatcompletion_v2 of 2024, and today's."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias, Unpack

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.credentials import find_setting, host_of, require_secret, require_setting, with_default_path
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.providers.base import BearerAuth, Codec

__all__ = ["APIS", "MinimaxChat", "MinimaxProChat"]

MinimaxAPI: TypeAlias = Literal["classic", "v2", "current"]

APIS: tuple[tuple[str, MinimaxAPI], ...] = (
    ("abab5*", "classic"),
    ("abab*", "v2"),
    ("MiniMax-Text-*", "v2"),
    ("MiniMax-M1*", "v2"),
)
"""Shell pattern of a model name -> the API it is asked through; what is not here goes to today's."""

_KEY = ("MINIMAX_API_KEY",)
_HOST = ("MINIMAX_API_HOST", "MINIMAX_BASE_URL")
_GROUP = ("MINIMAX_GROUP_ID",)


class MinimaxChat(ChatModel):
    """MiniMax. Which API is spoken follows from the model's name, and `api` overrules it.

        MinimaxChat()                   # today's, tools and thinking
        MinimaxChat("abab5.5-chat")     # 2023: needs a group id; tools through the prompt

    Args:
        model: Any name; none is checked against a list.
        api: `classic` (chatcompletion), `v2` (chatcompletion_v2) or `current`; None: as `APIS` says.
        api_key: Default: `MINIMAX_API_KEY`.
        group_id: Classic only. Default: `MINIMAX_GROUP_ID`.
        base_url: Default: `MINIMAX_API_HOST` or `MINIMAX_BASE_URL`, else MiniMax's host. Keys of the Chinese platform
            want `https://api.minimaxi.com/v1` for today's models.
        user_name: Classic only: what a system prompt calls the user.
        bot_name: Classic only: what a system prompt calls the model.
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
        key = require_secret("minimax", api_key, _KEY)
        url = find_setting(base_url, _HOST)
        api = api or (_api_of(model) if model else "current")
        codec: Codec
        if api == "classic":
            from lmagent.providers.minimax import BASE_URL, BOT_NAME, USER_NAME, MinimaxCodec

            codec = MinimaxCodec(
                model or "abab5.5-chat",
                group_id=require_setting("minimax", "group id", "group_id", group_id, _GROUP),
                base_url=host_of(url or BASE_URL),
                user_name=user_name or USER_NAME,
                bot_name=bot_name or BOT_NAME,
            )
        elif api in ("v2", "current"):
            from lmagent.providers.openai.variants import MinimaxV2Codec
            from lmagent.providers.vendors import MINIMAX, MINIMAX_V2

            profile = MINIMAX_V2 if api == "v2" else MINIMAX
            codec = MinimaxV2Codec(
                model or profile.default_model,
                profile=profile,
                base_url=with_default_path(url, profile.base_url),
            )
        else:
            raise ConfigurationError(f"api is 'classic', 'v2' or 'current', not {api!r}.")
        super().__init__(codec, auth=BearerAuth(key), **options)


def _api_of(model: str) -> MinimaxAPI:
    for pattern, api in APIS:
        if fnmatchcase(model, pattern):
            return api
    return "current"


class MinimaxProChat(ChatModel):
    """MiniMax's `chatcompletion_pro`: bots with names, native function calls.

    A system prompt is what the bot is told about itself; several bots are the parameter `bot_setting`.

    Args:
        model: For example `abab5.5-chat`.
        api_key: Default: `MINIMAX_API_KEY`.
        group_id: Default: `MINIMAX_GROUP_ID`.
        base_url: Default: `MINIMAX_API_HOST` or `MINIMAX_BASE_URL`, else MiniMax's host.
        user_name: Whose name stands on user messages.
        bot_name: The bot that answers.
        function_sender: Whose name stands on a tool's result: the function's or the bot's. Sources differ on it.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: No key or no group id.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:MinimaxProChatParameters"

    def __init__(
        self,
        model: str = "abab5.5-chat",
        *,
        api_key: str | Secret | None = None,
        group_id: str | None = None,
        base_url: str | None = None,
        user_name: str | None = None,
        bot_name: str | None = None,
        function_sender: Literal["function", "bot"] = "function",
        **options: Unpack[ModelOptions],
    ) -> None:
        from lmagent.providers.minimax import BASE_URL, BOT_NAME, USER_NAME, MinimaxProCodec

        key = require_secret("minimax_pro", api_key, _KEY)
        codec = MinimaxProCodec(
            model,
            group_id=require_setting("minimax_pro", "group id", "group_id", group_id, _GROUP),
            base_url=host_of(find_setting(base_url, _HOST, BASE_URL) or BASE_URL),
            user_name=user_name or USER_NAME,
            bot_name=bot_name or BOT_NAME,
            function_sender=function_sender,
        )
        super().__init__(codec, auth=BearerAuth(key), **options)
