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
    from lmagent.agent.agent import Agent
    from lmagent.agent.result import RunResult
    from lmagent.agent.run import Limits
    from lmagent.core.budget import Budget
    from lmagent.core.history import History
    from lmagent.core.messages import AssistantMessage, ImagePart, SystemMessage, ToolMessage, UserMessage
    from lmagent.engines.chat import ChatEngine
    from lmagent.engines.completion import CompletionEngine
    from lmagent.errors import LMAgentError, ToolError
    from lmagent.models.anthropic import AnthropicChat
    from lmagent.models.bailian import BailianChat
    from lmagent.models.fallback import FallbackModel
    from lmagent.models.gemini import GeminiChat
    from lmagent.models.hunyuan import HunyuanChat
    from lmagent.models.loading import load_from_model_id, register_provider
    from lmagent.models.local import LocalChat
    from lmagent.models.minimax_baichuan import BaichuanChat, MinimaxChat, MinimaxProChat
    from lmagent.models.model import ChatModel
    from lmagent.models.openai import AzureChat, OpenAIChat, OpenAICompatibleChat, OpenAIResponsesChat
    from lmagent.models.parameters import (
        AnthropicChatParameters,
        AzureChatParameters,
        BaichuanChatParameters,
        BailianChatParameters,
        ChatParameters,
        GeminiChatParameters,
        HunyuanChatParameters,
        LocalChatParameters,
        MinimaxChatParameters,
        MinimaxProChatParameters,
        OpenAIChatParameters,
        OpenAICompatibleChatParameters,
        OpenAIResponsesChatParameters,
        WenxinChatParameters,
        ZhiPuCharacterChatParameters,
        ZhiPuChatParameters,
    )
    from lmagent.models.wenxin import WenxinChat
    from lmagent.models.zhipu import ZhiPuCharacterChat, ZhiPuChat
    from lmagent.observe.hooks import Hooks
    from lmagent.toolkit.context import Inject, RunContext
    from lmagent.toolkit.registry import ToolRegistry
    from lmagent.toolkit.tool import Tool, function

__version__ = "0.1.0"

_NAMES_OF = {
    "agent.agent": "Agent",
    "agent.result": "RunResult",
    "agent.run": "Limits",
    "core.budget": "Budget",
    "core.history": "History",
    "core.messages": "AssistantMessage ImagePart SystemMessage ToolMessage UserMessage",
    "engines.chat": "ChatEngine",
    "engines.completion": "CompletionEngine",
    "errors": "LMAgentError ToolError",
    "models.anthropic": "AnthropicChat",
    "models.bailian": "BailianChat",
    "models.fallback": "FallbackModel",
    "models.gemini": "GeminiChat",
    "models.hunyuan": "HunyuanChat",
    "models.loading": "load_from_model_id register_provider",
    "models.local": "LocalChat",
    "models.minimax_baichuan": "BaichuanChat MinimaxChat MinimaxProChat",
    "models.model": "ChatModel",
    "models.openai": "AzureChat OpenAIChat OpenAICompatibleChat OpenAIResponsesChat",
    "models.parameters": (
        "AnthropicChatParameters AzureChatParameters BaichuanChatParameters BailianChatParameters "
        "ChatParameters GeminiChatParameters HunyuanChatParameters LocalChatParameters MinimaxChatParameters "
        "MinimaxProChatParameters OpenAIChatParameters OpenAICompatibleChatParameters "
        "OpenAIResponsesChatParameters WenxinChatParameters ZhiPuCharacterChatParameters ZhiPuChatParameters"
    ),
    "models.wenxin": "WenxinChat",
    "models.zhipu": "ZhiPuCharacterChat ZhiPuChat",
    "observe.hooks": "Hooks",
    "toolkit.context": "Inject RunContext",
    "toolkit.registry": "ToolRegistry",
    "toolkit.tool": "Tool function",
}
"""Module -> the public names that it has."""

_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = [
    "Agent", "AnthropicChat", "AnthropicChatParameters", "AssistantMessage", "AzureChat", "AzureChatParameters",
    "BaichuanChat", "BaichuanChatParameters", "BailianChat", "BailianChatParameters", "Budget", "ChatEngine",
    "ChatModel", "ChatParameters", "CompletionEngine", "FallbackModel", "GeminiChat", "GeminiChatParameters",
    "History", "Hooks", "HunyuanChat", "HunyuanChatParameters", "ImagePart", "Inject", "LMAgentError", "Limits",
    "LocalChat", "LocalChatParameters", "MinimaxChat", "MinimaxChatParameters", "MinimaxProChat",
    "MinimaxProChatParameters", "OpenAIChat", "OpenAIChatParameters", "OpenAICompatibleChat",
    "OpenAICompatibleChatParameters", "OpenAIResponsesChat", "OpenAIResponsesChatParameters", "RunContext",
    "RunResult", "SystemMessage", "Tool", "ToolError", "ToolMessage", "ToolRegistry", "UserMessage", "WenxinChat",
    "WenxinChatParameters", "ZhiPuCharacterChat", "ZhiPuCharacterChatParameters", "ZhiPuChat", "ZhiPuChatParameters",
    "function", "load_from_model_id", "register_provider",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lmagent' has no attribute {name!r}")
    value = getattr(import_module(f"lmagent.{home}"), name)
    globals()[name] = value
    return value


_OLD_PATHS = {
    "agent.drivers": "drivers",
    "agent.output": "output",
    "agent.result": "approval result",
    "agent.run": "flow",
    "agent.sessions": "sessions",
    "agent.trimming": "trimming",
    "asking.cache": "caching",
    "asking.exchange": "transport.exchange transport.steps transport.turns",
    "asking.limits": "transport.limits",
    "asking.reading": "transport.reading",
    "asking.retry": "transport.retry transport.room",
    "core.async_bridge": "portal",
    "core.budget": "budget",
    "core.fast_dataclass": "values",
    "core.history": "history",
    "core.json_text": "framing jsontext",
    "core.messages": "prompts",
    "core.redaction": "logs redaction",
    "engines.bulk": "bulk",
    "engines.bulk.gate": "bulk.gate",
    "engines.bulk.journal": "bulk.journal bulk.lock",
    "engines.bulk.results": "bulk.completion bulk.progress",
    "engines.bulk.run": "bulk.run",
    "engines.bulk.target": "bulk.target",
    "engines.bulk.work": "bulk.in_thread bulk.parts bulk.work",
    "engines.chat": "chat_engine",
    "engines.completion": "bulk.blocking completion_engine",
    "engines.printer": "printer",
    "http": "transport",
    "http.async_network": "transport.async_sockets",
    "http.base": "transport.base transport.clocks",
    "http.calls": "transport.async_wire transport.client transport.wire",
    "http.local": "transport.local",
    "http.network": "transport.dialogue transport.sockets",
    "http.pool": "transport.async_pool transport.pool",
    "http.transport": "transport.http",
    "http.wire": "transport.address transport.bodies transport.failures",
    "models": "chat_models",
    "models.anthropic": "chat_models.anthropic",
    "models.bailian": "chat_models.bailian",
    "models.fallback": "fallback",
    "models.gemini": "chat_models.gemini",
    "models.hunyuan": "chat_models.hunyuan",
    "models.loading": "chat_models.addresses credentials loading",
    "models.local": "chat_models.local",
    "models.minimax_baichuan": "chat_models.baichuan chat_models.minimax",
    "models.model": "model",
    "models.openai": "chat_models.azure chat_models.compatible chat_models.openai chat_models.responses",
    "models.wenxin": "chat_models.wenxin",
    "models.zhipu": "chat_models.zhipu",
    "observe.hooks": "hooks watching",
    "observe.otel": "otel",
    "observe.probing": "probing",
    "observe.trace_file": "tracing",
    "prompting.buffer": "prompting.source",
    "prompting.leaked_calls": "prompting.leaks prompting.lifting",
    "prompting.markers": "prompting.neutralise",
    "prompting.prompted": "prompting.bounds",
    "prompting.retry_prompts": "prompting.reasks",
    "prompting.scanner_events": "prompting.pieces",
    "prompting.whole_reply": "prompting.objects prompting.reading",
    "providers.bailian": "providers.bailian_errors",
    "providers.bailian_app": "providers.bailian_token",
    "providers.base": "providers.auth",
    "providers.conversation": "providers.calls providers.history providers.text_only",
    "providers.fields": "providers.failures providers.parameter_rules",
    "providers.hunyuan": "providers.hunyuan_auth providers.hyllm",
    "providers.openai.calls": "providers.openai_calls providers.openai_think",
    "providers.openai.chat": "providers.azure",
    "providers.openai.errors": "providers.openai_errors",
    "providers.openai.profile": "providers.openai_profile",
    "providers.openai.reply": "providers.openai_quick providers.openai_reply",
    "providers.openai.request": "providers.openai_request",
    "providers.openai.responses": "providers.responses providers.responses_reply",
    "providers.openai.variants": "providers.hunyuan_compatible providers.openai_flagged providers.zhipu_v4",
    "providers.openai.vendor_profiles": "providers.compatible",
    "providers.wenxin": "providers.wenxin_auth",
    "testing.fake": "testing.guard",
    "toolkit.context": "context",
    "toolkit.definitions": "definitions",
    "toolkit.execution": "running",
    "toolkit.loose_json": "prompting.loose_json prompting.python_reader",
    "toolkit.registry": "registry",
    "toolkit.repair": "prompting.coerce",
    "toolkit.schema": "schema",
    "toolkit.schema_dialects": "providers.schema_dialects",
    "toolkit.sources": "tool_sources",
    "toolkit.tool": "function",
}
"""Module -> its import paths in version 0.1. They stay importable; a test imports every one."""

_MOVED = {old: new for new, paths in _OLD_PATHS.items() for old in paths.split()}


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
