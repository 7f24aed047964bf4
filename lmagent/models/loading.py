"""From a model id such as `openai/gpt-5.4-mini` to a model, and which model is the default."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from lmagent.errors import ConfigurationError
from lmagent.models.model import ChatModel

__all__ = [
    "ProviderEntry",
    "configured",
    "default_model_id",
    "load_from_model_id",
    "provider_table",
    "register_provider",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEntry:
    """One provider as `load_from_model_id`, `lmagent models` and `lmagent doctor` know it."""

    prefix: str
    """The first part of the model id."""
    home: str | Callable[..., ChatModel]
    """`module:Class`, or anything callable as `home(model, **options)`."""
    keys: tuple[tuple[str, ...], ...] = ()
    """What must be in the environment: one variable of each group. Empty: needs no key."""
    settings: tuple[str, ...] = ()
    """Other variables that are read: second halves of keys, addresses, regions."""
    options: tuple[tuple[str, Any], ...] = ()
    """Keywords that this prefix adds."""
    title: str = ""

    @property
    def variables(self) -> tuple[str, ...]:
        """Every environment variable that the provider reads, each once."""
        return tuple(dict.fromkeys((*(name for group in self.keys for name in group), *self.settings)))


def _own(prefix: str, home: str, title: str, *keys: tuple[str, ...], settings: tuple[str, ...] = ()) -> ProviderEntry:
    return ProviderEntry(prefix=prefix, home=f"lmagent.models.{home}", title=title, keys=keys, settings=settings)


def _vendor(prefix: str, title: str, *keys: tuple[str, ...], settings: tuple[str, ...]) -> ProviderEntry:
    """A row for a vendor of the table in `providers/compatible.py`."""
    entry = _own(prefix, "compatible:OpenAICompatibleChat", title, *keys, settings=settings)
    return replace(entry, options=(("vendor", prefix),))


_OPENAI = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
_MINIMAX = ("MINIMAX_API_HOST", "MINIMAX_BASE_URL")
_ZHIPU_KEY = ("ZHIPU_API_KEY", "ZHIPUAI_API_KEY", "ZAI_API_KEY")
_ZHIPU = ("ZHIPUAI_BASE_URL", "ZAI_BASE_URL")

_TABLE: dict[str, ProviderEntry] = {
    entry.prefix: entry
    for entry in (
        _own("openai", "openai:OpenAIChat", "OpenAI Chat Completions", ("OPENAI_API_KEY",), settings=_OPENAI),
        _own(
            "openai-responses",
            "openai:OpenAIResponsesChat",
            "OpenAI Responses",
            ("OPENAI_API_KEY",),
            settings=_OPENAI,
        ),
        _own(
            "anthropic",
            "anthropic:AnthropicChat",
            "Anthropic",
            ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
            settings=("ANTHROPIC_BASE_URL",),
        ),
        _own(
            "gemini",
            "gemini:GeminiChat",
            "Google Gemini",
            ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
            settings=("GOOGLE_GEMINI_BASE_URL", "GOOGLE_GENAI_API_VERSION", "GOOGLE_CLOUD_LOCATION"),
        ),
        _own(
            "azure",
            "openai:AzureChat",
            "Azure OpenAI",
            ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_API_KEY"),
            ("AZURE_OPENAI_ENDPOINT", "AZURE_API_BASE"),
            settings=(
                "AZURE_CHAT_API_ENGINE",
                "AZURE_CHAT_MODEL_NAME",
                "AZURE_OPENAI_DEPLOYMENT",
                "OPENAI_API_VERSION",
                "AZURE_API_VERSION",
            ),
        ),
        _own(
            "minimax",
            "minimax:MinimaxChat",
            "MiniMax",
            ("MINIMAX_API_KEY",),
            settings=("MINIMAX_GROUP_ID", *_MINIMAX),
        ),
        _own(
            "minimax_pro",
            "minimax:MinimaxProChat",
            "MiniMax Pro",
            ("MINIMAX_API_KEY",),
            ("MINIMAX_GROUP_ID",),
            settings=_MINIMAX,
        ),
        _own(
            "wenxin",
            "wenxin:WenxinChat",
            "Baidu Wenxin (Qianfan)",
            ("WENXIN_API_KEY", "QIANFAN_API_KEY", "QIANFAN_AK", "QIANFAN_ACCESS_TOKEN"),
            settings=(
                "WENXIN_SECRET_KEY",
                "QIANFAN_SK",
                "EB_AK",
                "EB_SK",
                "EB_ACCESS_TOKEN",
                "QIANFAN_BEARER_TOKEN",
                "QIANFAN_ACCESS_KEY",
                "QIANFAN_SECRET_KEY",
                "WENXIN_BASE_URL",
                "QIANFAN_BASE_URL",
            ),
        ),
        _own(
            "baichuan",
            "baichuan:BaichuanChat",
            "Baichuan",
            ("BAICHUAN_API_KEY",),
            settings=("BAICHUAN_SECRET_KEY", "BAICHUAN_BASE_URL"),
        ),
        _own("zhipu", "zhipu:ZhiPuChat", "Zhipu (BigModel, Z.ai)", _ZHIPU_KEY, settings=_ZHIPU),
        _own("zhipu-character", "zhipu:ZhiPuCharacterChat", "Zhipu CharacterGLM", _ZHIPU_KEY, settings=_ZHIPU),
        _own(
            "hunyuan",
            "hunyuan:HunyuanChat",
            "Tencent Hunyuan",
            ("HUNYUAN_API_KEY", "HUNYUAN_SECRET_ID", "TENCENTCLOUD_SECRET_ID"),
            settings=(
                "HUNYUAN_SECRET_KEY",
                "TENCENTCLOUD_SECRET_KEY",
                "TENCENTCLOUD_TOKEN",
                "TOKENHUB_API_KEY",
                "HUNYUAN_APP_ID",
                "HUNYUAN_BASE_URL",
            ),
        ),
        _own(
            "bailian",
            "bailian:BailianChat",
            "Alibaba Bailian (DashScope)",
            ("DASHSCOPE_API_KEY", "BAILIAN_ACCESS_KEY_ID"),
            settings=(
                "BAILIAN_ACCESS_KEY_SECRET",
                "BAILIAN_AGENT_KEY",
                "BAILIAN_APP_ID",
                "DASHSCOPE_WORKSPACE_ID",
                "DASHSCOPE_API_REGION",
                "DASHSCOPE_HTTP_BASE_URL",
                "DASHSCOPE_COMPATIBLE_BASE_URL",
            ),
        ),
        _vendor("deepseek", "DeepSeek", ("DEEPSEEK_API_KEY",), settings=("DEEPSEEK_BASE_URL",)),
        _vendor("moonshot", "Moonshot (Kimi)", ("MOONSHOT_API_KEY",), settings=("MOONSHOT_BASE_URL",)),
        _vendor(
            "qwen",
            "Qwen (DashScope compatible mode)",
            ("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
            settings=("DASHSCOPE_COMPATIBLE_BASE_URL",),
        ),
        _vendor("mistral", "Mistral", ("MISTRAL_API_KEY",), settings=("MISTRAL_BASE_URL",)),
        _vendor("groq", "Groq", ("GROQ_API_KEY",), settings=("GROQ_BASE_URL",)),
        _vendor("openrouter", "OpenRouter", ("OPENROUTER_API_KEY",), settings=("OPENROUTER_BASE_URL",)),
        _vendor(
            "together",
            "Together",
            ("TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
            settings=("TOGETHER_BASE_URL",),
        ),
        _vendor("xai", "xAI", ("XAI_API_KEY",), settings=("XAI_BASE_URL",)),
        _vendor("stepfun", "StepFun", ("STEP_API_KEY", "STEPFUN_API_KEY"), settings=("STEP_BASE_URL",)),
        _vendor("yi", "Yi (01.AI)", ("YI_API_KEY", "LINGYI_API_KEY"), settings=("YI_BASE_URL",)),
        _vendor("siliconflow", "SiliconFlow", ("SILICONFLOW_API_KEY",), settings=("SILICONFLOW_BASE_URL",)),
        _vendor(
            "volcengine",
            "Volcengine Ark (Doubao)",
            ("ARK_API_KEY", "VOLCENGINE_API_KEY"),
            settings=("ARK_BASE_URL",),
        ),
        _vendor(
            "ollama",
            "Ollama on this machine",
            settings=("OLLAMA_API_KEY", "OLLAMA_BASE_URL", "OLLAMA_HOST"),
        ),
        _vendor("vllm", "vLLM server", settings=("VLLM_API_KEY", "VLLM_BASE_URL")),
        _vendor("llamacpp", "llama.cpp server", settings=("LLAMA_API_KEY", "LLAMA_CPP_BASE_URL")),
        _vendor("lmstudio", "LM Studio on this machine", settings=("LM_STUDIO_API_KEY", "LM_STUDIO_BASE_URL")),
        _vendor(
            "compatible",
            "Any other OpenAI-compatible server",
            ("OPENAI_COMPATIBLE_BASE_URL",),
            settings=("OPENAI_COMPATIBLE_API_KEY",),
        ),
        _own("local", "local:LocalChat", "llama.cpp in this process"),
    )
}


def provider_table() -> dict[str, ProviderEntry]:
    """Return the known providers by prefix, in order of preference (a copy)."""
    return dict(_TABLE)


def register_provider(prefix: str, home: str | Callable[..., ChatModel], **facts: Any) -> None:
    """Make `load_from_model_id("prefix/name")` build `home("name")`.

    Args:
        prefix: The first part of the model id.
        home: `module:Class`, or anything callable as `home(model, **options)`.
        **facts: Other fields of `ProviderEntry`, e.g. `keys=(("ACME_API_KEY",),)`.

    Raises:
        ConfigurationError: The prefix is taken, or not a plain word.
    """
    if prefix in _TABLE:
        raise ConfigurationError(f"The provider {prefix!r} is registered already.")
    if not prefix or "/" in prefix:
        raise ConfigurationError(f"A provider's prefix is one word without '/', not {prefix!r}.")
    _TABLE[prefix] = ProviderEntry(prefix=prefix, home=home, **facts)


def load_from_model_id(model_id: str | None = None, **options: Any) -> ChatModel:
    """Return the model that `model_id` names.

    Args:
        model_id: `provider/model`, or `provider` alone for its default model. None: `LMAGENT_MODEL`, else the first
            provider whose key is in the environment, else the local model.
        **options: Passed to the model's class.

    Raises:
        ConfigurationError: Unknown provider, missing key, or nothing to choose from.
    """
    if model_id is not None and not isinstance(model_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"A model id is a text such as 'openai/gpt-5.4-mini', not {model_id!r:.80}.")
    wanted = model_id or default_model_id()
    prefix, _, name = wanted.partition("/")
    entry = _TABLE.get(prefix)
    if entry is None:
        close = get_close_matches(prefix.lower(), _TABLE, 1)
        raise ConfigurationError(
            f"No provider {prefix!r} (model id {wanted!r})."
            + (f" Did you mean {'/'.join(filter(None, (close[0], name)))!r}?" if close else "")
            + f" A model id is 'provider/model' with one of {', '.join(sorted(_TABLE))}."
        )
    home = entry.home
    if isinstance(home, str):
        module, _, attribute = home.partition(":")
        home = cast("Callable[..., ChatModel]", getattr(import_module(module), attribute))
    return home(*((name,) if name else ()), **(dict(entry.options) | options))


def configured(entry: ProviderEntry) -> bool:
    """Whether the environment has what the provider needs."""
    if entry.prefix == "local":
        return find_spec("llama_cpp") is not None
    return bool(entry.keys) and all(any(os.environ.get(name, "").strip() for name in group) for group in entry.keys)


def default_model_id() -> str:
    """Return the model id used when none is given.

    Raises:
        ConfigurationError: No `LMAGENT_MODEL`, no key and no local model; the message lists what was looked for.
    """
    named = os.environ.get("LMAGENT_MODEL", "").strip()
    if named:
        return named
    for entry in _TABLE.values():
        if configured(entry):
            return entry.prefix
    variables = sorted({name for entry in _TABLE.values() for group in entry.keys for name in group})
    raise ConfigurationError(
        "No model to use: give a model id, set LMAGENT_MODEL or one of "
        f"{', '.join(variables)}, or install the local model with pip install 'lmagent[local]'."
    )
