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

_HOME = {
    "Agent": "agent.agent",
    "AnthropicChat": "models.anthropic",
    "AnthropicChatParameters": "models.parameters",
    "AssistantMessage": "core.messages",
    "AzureChat": "models.openai",
    "AzureChatParameters": "models.parameters",
    "BaichuanChat": "models.minimax_baichuan",
    "BaichuanChatParameters": "models.parameters",
    "BailianChat": "models.bailian",
    "BailianChatParameters": "models.parameters",
    "Budget": "core.budget",
    "ChatEngine": "engines.chat",
    "ChatModel": "models.model",
    "ChatParameters": "models.parameters",
    "CompletionEngine": "engines.completion",
    "FallbackModel": "models.fallback",
    "GeminiChat": "models.gemini",
    "GeminiChatParameters": "models.parameters",
    "History": "core.history",
    "Hooks": "observe.hooks",
    "HunyuanChat": "models.hunyuan",
    "HunyuanChatParameters": "models.parameters",
    "ImagePart": "core.messages",
    "Inject": "toolkit.context",
    "LMAgentError": "errors",
    "Limits": "agent.run",
    "LocalChat": "models.local",
    "LocalChatParameters": "models.parameters",
    "MinimaxChat": "models.minimax_baichuan",
    "MinimaxChatParameters": "models.parameters",
    "MinimaxProChat": "models.minimax_baichuan",
    "MinimaxProChatParameters": "models.parameters",
    "OpenAIChat": "models.openai",
    "OpenAIChatParameters": "models.parameters",
    "OpenAICompatibleChat": "models.openai",
    "OpenAICompatibleChatParameters": "models.parameters",
    "OpenAIResponsesChat": "models.openai",
    "OpenAIResponsesChatParameters": "models.parameters",
    "RunContext": "toolkit.context",
    "RunResult": "agent.result",
    "SystemMessage": "core.messages",
    "Tool": "toolkit.tool",
    "ToolError": "errors",
    "ToolMessage": "core.messages",
    "ToolRegistry": "toolkit.registry",
    "UserMessage": "core.messages",
    "WenxinChat": "models.wenxin",
    "WenxinChatParameters": "models.parameters",
    "ZhiPuCharacterChat": "models.zhipu",
    "ZhiPuCharacterChatParameters": "models.parameters",
    "ZhiPuChat": "models.zhipu",
    "ZhiPuChatParameters": "models.parameters",
    "function": "toolkit.tool",
    "load_from_model_id": "models.loading",
    "register_provider": "models.loading",
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
    "approval": "agent.result",
    "budget": "core.budget",
    "bulk": "engines.bulk",
    "bulk.blocking": "engines.completion",
    "bulk.completion": "engines.bulk.results",
    "bulk.gate": "engines.bulk.gate",
    "bulk.in_thread": "engines.bulk.work",
    "bulk.journal": "engines.bulk.journal",
    "bulk.lock": "engines.bulk.journal",
    "bulk.parts": "engines.bulk.work",
    "bulk.progress": "engines.bulk.results",
    "bulk.run": "engines.bulk.run",
    "bulk.target": "engines.bulk.target",
    "bulk.work": "engines.bulk.work",
    "caching": "asking.cache",
    "chat_engine": "engines.chat",
    "chat_models": "models",
    "chat_models.addresses": "models.loading",
    "chat_models.anthropic": "models.anthropic",
    "chat_models.azure": "models.openai",
    "chat_models.baichuan": "models.minimax_baichuan",
    "chat_models.bailian": "models.bailian",
    "chat_models.compatible": "models.openai",
    "chat_models.gemini": "models.gemini",
    "chat_models.hunyuan": "models.hunyuan",
    "chat_models.local": "models.local",
    "chat_models.minimax": "models.minimax_baichuan",
    "chat_models.openai": "models.openai",
    "chat_models.responses": "models.openai",
    "chat_models.wenxin": "models.wenxin",
    "chat_models.zhipu": "models.zhipu",
    "completion_engine": "engines.completion",
    "context": "toolkit.context",
    "credentials": "models.loading",
    "definitions": "toolkit.definitions",
    "drivers": "agent.drivers",
    "fallback": "models.fallback",
    "flow": "agent.run",
    "framing": "core.json_text",
    "function": "toolkit.tool",
    "history": "core.history",
    "hooks": "observe.hooks",
    "jsontext": "core.json_text",
    "loading": "models.loading",
    "logs": "core.redaction",
    "model": "models.model",
    "otel": "observe.otel",
    "output": "agent.output",
    "portal": "core.async_bridge",
    "printer": "engines.printer",
    "probing": "observe.probing",
    "prompting.bounds": "prompting.prompted",
    "prompting.coerce": "toolkit.repair",
    "prompting.leaks": "prompting.leaked_calls",
    "prompting.lifting": "prompting.leaked_calls",
    "prompting.loose_json": "toolkit.loose_json",
    "prompting.neutralise": "prompting.markers",
    "prompting.objects": "prompting.whole_reply",
    "prompting.pieces": "prompting.scanner_events",
    "prompting.python_reader": "toolkit.loose_json",
    "prompting.reading": "prompting.whole_reply",
    "prompting.reasks": "prompting.retry_prompts",
    "prompting.source": "prompting.buffer",
    "prompts": "core.prompts",
    "providers.auth": "providers.base",
    "providers.azure": "providers.openai.chat",
    "providers.bailian_errors": "providers.bailian",
    "providers.bailian_token": "providers.bailian_app",
    "providers.calls": "providers.conversation",
    "providers.compatible": "providers.openai.vendor_profiles",
    "providers.failures": "providers.fields",
    "providers.history": "providers.conversation",
    "providers.hunyuan_auth": "providers.hunyuan",
    "providers.hunyuan_compatible": "providers.openai.variants",
    "providers.hyllm": "providers.hunyuan_hyllm",
    "providers.openai_calls": "providers.openai.calls",
    "providers.openai_errors": "providers.openai.errors",
    "providers.openai_flagged": "providers.openai.variants",
    "providers.openai_profile": "providers.openai.profile",
    "providers.openai_quick": "providers.openai.reply",
    "providers.openai_reply": "providers.openai.reply",
    "providers.openai_request": "providers.openai.request",
    "providers.openai_think": "providers.openai.calls",
    "providers.parameter_rules": "providers.fields",
    "providers.responses": "providers.openai.responses",
    "providers.responses_reply": "providers.openai.responses",
    "providers.schema_dialects": "toolkit.schema_dialects",
    "providers.text_only": "providers.conversation",
    "providers.wenxin_auth": "providers.wenxin",
    "providers.zhipu_v4": "providers.openai.variants",
    "redaction": "core.redaction",
    "registry": "toolkit.registry",
    "result": "agent.result",
    "running": "toolkit.execution",
    "schema": "toolkit.schema",
    "sessions": "agent.sessions",
    "testing.guard": "testing.fake",
    "tool_sources": "toolkit.sources",
    "tracing": "observe.trace_file",
    "transport": "http",
    "transport.address": "http.wire",
    "transport.async_pool": "http.pool",
    "transport.async_sockets": "http.async_network",
    "transport.async_wire": "http.calls",
    "transport.base": "http.base",
    "transport.bodies": "http.wire",
    "transport.client": "http.calls",
    "transport.clocks": "http.base",
    "transport.dialogue": "http.network",
    "transport.exchange": "asking.exchange",
    "transport.failures": "http.wire",
    "transport.http": "http.transport",
    "transport.limits": "asking.limits",
    "transport.local": "http.local",
    "transport.pool": "http.pool",
    "transport.reading": "asking.reading",
    "transport.retry": "asking.retry",
    "transport.room": "asking.retry",
    "transport.sockets": "http.network",
    "transport.steps": "asking.steps",
    "transport.turns": "asking.steps",
    "transport.wire": "http.calls",
    "trimming": "agent.trimming",
    "values": "core.fast_dataclass",
    "watching": "observe.hooks",
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
