"""lmagent: tool-using assistants whose tools work on every model. Start with `@function`, a model and `Agent`.

Importing the package loads nothing else: each name is found on first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmagent.agent import Agent
    from lmagent.chat_engine import ChatEngine
    from lmagent.chat_models.anthropic import AnthropicChat
    from lmagent.chat_models.azure import AzureChat
    from lmagent.chat_models.baichuan import BaichuanChat
    from lmagent.chat_models.bailian import BailianChat
    from lmagent.chat_models.compatible import OpenAICompatibleChat
    from lmagent.chat_models.gemini import GeminiChat
    from lmagent.chat_models.hunyuan import HunyuanChat
    from lmagent.chat_models.local import LocalChat
    from lmagent.chat_models.minimax import MinimaxChat, MinimaxProChat
    from lmagent.chat_models.openai import OpenAIChat
    from lmagent.chat_models.responses import OpenAIResponsesChat
    from lmagent.chat_models.wenxin import WenxinChat
    from lmagent.chat_models.zhipu import ZhiPuCharacterChat, ZhiPuChat
    from lmagent.completion_engine import CompletionEngine
    from lmagent.core.budget import Budget
    from lmagent.core.history import History
    from lmagent.core.messages import AssistantMessage, ImagePart, SystemMessage, ToolMessage, UserMessage
    from lmagent.errors import LMAgentError, ToolError
    from lmagent.fallback import FallbackModel
    from lmagent.flow import Limits
    from lmagent.hooks import Hooks
    from lmagent.loading import load_from_model_id, register_provider
    from lmagent.model import ChatModel
    from lmagent.parameters.anthropic import AnthropicChatParameters
    from lmagent.parameters.azure import AzureChatParameters
    from lmagent.parameters.baichuan import BaichuanChatParameters
    from lmagent.parameters.bailian import BailianChatParameters
    from lmagent.parameters.base import ChatParameters
    from lmagent.parameters.compatible import OpenAICompatibleChatParameters
    from lmagent.parameters.gemini import GeminiChatParameters
    from lmagent.parameters.hunyuan import HunyuanChatParameters
    from lmagent.parameters.local import LocalChatParameters
    from lmagent.parameters.minimax import MinimaxChatParameters, MinimaxProChatParameters
    from lmagent.parameters.openai import OpenAIChatParameters
    from lmagent.parameters.responses import OpenAIResponsesChatParameters
    from lmagent.parameters.wenxin import WenxinChatParameters
    from lmagent.parameters.zhipu import ZhiPuCharacterChatParameters, ZhiPuChatParameters
    from lmagent.result import RunResult
    from lmagent.toolkit.context import Inject, RunContext
    from lmagent.toolkit.registry import ToolRegistry
    from lmagent.toolkit.tool import Tool, function

__version__ = "0.1.0"

_HOME = {
    "Agent": "agent",
    "AnthropicChat": "chat_models.anthropic",
    "AnthropicChatParameters": "parameters.anthropic",
    "AssistantMessage": "core.messages",
    "AzureChat": "chat_models.azure",
    "AzureChatParameters": "parameters.azure",
    "BaichuanChat": "chat_models.baichuan",
    "BaichuanChatParameters": "parameters.baichuan",
    "BailianChat": "chat_models.bailian",
    "BailianChatParameters": "parameters.bailian",
    "Budget": "core.budget",
    "ChatEngine": "chat_engine",
    "ChatModel": "model",
    "ChatParameters": "parameters.base",
    "CompletionEngine": "completion_engine",
    "FallbackModel": "fallback",
    "GeminiChat": "chat_models.gemini",
    "GeminiChatParameters": "parameters.gemini",
    "History": "core.history",
    "Hooks": "hooks",
    "HunyuanChat": "chat_models.hunyuan",
    "HunyuanChatParameters": "parameters.hunyuan",
    "ImagePart": "core.messages",
    "Inject": "toolkit.context",
    "LMAgentError": "errors",
    "Limits": "flow",
    "LocalChat": "chat_models.local",
    "LocalChatParameters": "parameters.local",
    "MinimaxChat": "chat_models.minimax",
    "MinimaxChatParameters": "parameters.minimax",
    "MinimaxProChat": "chat_models.minimax",
    "MinimaxProChatParameters": "parameters.minimax",
    "OpenAIChat": "chat_models.openai",
    "OpenAIChatParameters": "parameters.openai",
    "OpenAICompatibleChat": "chat_models.compatible",
    "OpenAICompatibleChatParameters": "parameters.compatible",
    "OpenAIResponsesChat": "chat_models.responses",
    "OpenAIResponsesChatParameters": "parameters.responses",
    "RunContext": "toolkit.context",
    "RunResult": "result",
    "SystemMessage": "core.messages",
    "Tool": "toolkit.tool",
    "ToolError": "errors",
    "ToolMessage": "core.messages",
    "ToolRegistry": "toolkit.registry",
    "UserMessage": "core.messages",
    "WenxinChat": "chat_models.wenxin",
    "WenxinChatParameters": "parameters.wenxin",
    "ZhiPuCharacterChat": "chat_models.zhipu",
    "ZhiPuCharacterChatParameters": "parameters.zhipu",
    "ZhiPuChat": "chat_models.zhipu",
    "ZhiPuChatParameters": "parameters.zhipu",
    "function": "toolkit.tool",
    "load_from_model_id": "loading",
    "register_provider": "loading",
}

__all__ = [
    "Agent",
    "AnthropicChat",
    "AnthropicChatParameters",
    "AssistantMessage",
    "AzureChat",
    "AzureChatParameters",
    "BaichuanChat",
    "BaichuanChatParameters",
    "BailianChat",
    "BailianChatParameters",
    "Budget",
    "ChatEngine",
    "ChatModel",
    "ChatParameters",
    "CompletionEngine",
    "FallbackModel",
    "GeminiChat",
    "GeminiChatParameters",
    "History",
    "Hooks",
    "HunyuanChat",
    "HunyuanChatParameters",
    "ImagePart",
    "Inject",
    "LMAgentError",
    "Limits",
    "LocalChat",
    "LocalChatParameters",
    "MinimaxChat",
    "MinimaxChatParameters",
    "MinimaxProChat",
    "MinimaxProChatParameters",
    "OpenAIChat",
    "OpenAIChatParameters",
    "OpenAICompatibleChat",
    "OpenAICompatibleChatParameters",
    "OpenAIResponsesChat",
    "OpenAIResponsesChatParameters",
    "RunContext",
    "RunResult",
    "SystemMessage",
    "Tool",
    "ToolError",
    "ToolMessage",
    "ToolRegistry",
    "UserMessage",
    "WenxinChat",
    "WenxinChatParameters",
    "ZhiPuCharacterChat",
    "ZhiPuCharacterChatParameters",
    "ZhiPuChat",
    "ZhiPuChatParameters",
    "function",
    "load_from_model_id",
    "register_provider",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lmagent' has no attribute {name!r}")
    value = getattr(import_module(f"lmagent.{home}"), name)
    globals()[name] = value
    return value


_MOVED: dict[str, str] = {
    "budget": "core.budget",
    "context": "toolkit.context",
    "definitions": "toolkit.definitions",
    "events": "core.events",
    "framing": "core.framing",
    "function": "toolkit.tool",
    "history": "core.history",
    "jsontext": "core.json_text",
    "logs": "core.redaction",
    "messages": "core.messages",
    "portal": "core.async_bridge",
    "prompting.coerce": "toolkit.coercion",
    "prompting.loose_json": "toolkit.loose_json",
    "prompting.python_reader": "toolkit.python_literals",
    "prompts": "core.prompts",
    "providers.azure": "providers.openai.azure",
    "providers.bailian_errors": "providers.bailian",
    "providers.bailian_token": "providers.bailian_app",
    "providers.compatible": "providers.vendors",
    "providers.failures": "providers.base",
    "providers.history": "providers.conversation",
    "providers.hunyuan_auth": "providers.hunyuan",
    "providers.hyllm": "providers.hunyuan_hyllm",
    "providers.openai_calls": "providers.openai.calls",
    "providers.openai_errors": "providers.openai.errors",
    "providers.openai_flagged": "providers.openai.flagged",
    "providers.openai_profile": "providers.openai.profile",
    "providers.openai_quick": "providers.openai.reply",
    "providers.openai_reply": "providers.openai.reply",
    "providers.openai_request": "providers.openai.request",
    "providers.openai_think": "providers.openai.calls",
    "providers.parameter_rules": "providers.fields",
    "providers.responses": "providers.openai.responses",
    "providers.responses_reply": "providers.openai.responses_reply",
    "providers.schema_dialects": "toolkit.schema_dialects",
    "providers.text_only": "providers.conversation",
    "redaction": "core.redaction",
    "registry": "toolkit.registry",
    "running": "toolkit.execution",
    "schema": "toolkit.schema",
    "tool_sources": "toolkit.sources",
    "values": "core.fast_dataclass",
}
"""Import paths of version 0.1 -> where the module is now. They stay importable; a test imports every one."""


class _MovedModules:
    """Import finder for the old paths: `lmagent.events` is the very module `lmagent.core.events`."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "lmagent" and name in _MOVED else None  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"lmagent.{_MOVED[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back; the import system has put that of the old path in its place."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


class _Package(ModuleType):
    """This package, where a submodule never takes the place of the public name that is spelled like it.

    Importing `lmagent.function` would otherwise make `lmagent.function` that module, for everyone and for good.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
sys.meta_path.insert(0, _MovedModules())  # pyright: ignore[reportArgumentType]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
