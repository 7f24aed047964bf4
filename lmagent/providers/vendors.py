"""The vendor table: one row per provider, with everything that is a fact about the provider and not about its dialect.

A row has the model class, the addresses, the names of the environment variables, the usual models with the date they
were checked, and the `Profile` of each API that speaks OpenAI's language. `load_from_model_id`, the model classes,
`lmagent models`, `lmagent doctor` and the tables of the documentation all read it, so that a fact is written once.

The table only holds names: it reads no environment and imports neither models nor codecs, which load with the first
model that needs them. What an API can do (function calls, images, ...) is not here either: it is read off its codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from lmagent.core.fast_dataclass import fast_dataclass

__all__ = ["BAILIAN_HOSTS", "VENDORS", "ProviderAPI", "ProviderEntry"]


@fast_dataclass(frozen=True, kw_only=True)
class ProviderAPI:
    """One API of a provider: where it is, and which model it usually serves."""

    name: str = ""
    """Value of the argument `api=` that chooses it; empty where the provider has one API only."""
    note: str = ""
    """What the tables call it."""
    address: str = ""
    """Base URL; empty where only the user knows it."""
    model: str = ""
    """Model used when none is named; empty: there is no usual one."""
    example: str = "my-model"
    """Stands in the tables where there is no usual model."""
    profile: str = ""
    """`module:NAME` of the OpenAI-shaped `Profile`; empty for a dialect of its own."""
    needs: tuple[str, ...] = ("api_key",)
    """Arguments of the model class without which no model can be built, unless the environment has them."""


@fast_dataclass(frozen=True, kw_only=True)
class ProviderEntry:
    """One provider as `load_from_model_id`, `lmagent models` and `lmagent doctor` know it."""

    prefix: str
    """The first part of the model id."""
    home: str | Callable[..., Any]
    """`module:Class`, or anything callable as `home(model, **options)`."""
    keys: tuple[tuple[str, ...], ...] = ()
    """What must be in the environment: one variable of each group. Empty: needs no key."""
    settings: tuple[str, ...] = ()
    """Other variables that are read: second halves of keys, addresses, regions."""
    options: tuple[tuple[str, Any], ...] = ()
    """Keywords that this prefix adds."""
    title: str = ""
    env: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]], compare=False)
    """Setting -> its environment variables; the first that is set wins. Most settings are arguments of the class."""
    apis: tuple[ProviderAPI, ...] = ()
    """The first is the default."""
    checked: str = ""
    """Day on which addresses and usual models were last compared with the provider's pages, as `2026-11-23`."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Every environment variable that the provider reads, each once."""
        return tuple(dict.fromkeys((*(name for group in self.keys for name in group), *self.settings)))

    @property
    def default_model(self) -> str:
        """The model used when none is named; empty where one must be."""
        return self.apis[0].model if self.apis else ""

    def api(self, name: str = "") -> ProviderAPI:
        """Return the API of this name, or the default one. Raises `KeyError` for a name that is not in the row."""
        for api in self.apis:
            if name in ("", api.name):
                return api
        raise KeyError(name)


_CHECKED = "2026-11-23"
_OF_VENDORS = "lmagent.providers.openai.vendor_profiles:"


def _api(
    name: str = "",
    note: str = "",
    address: str = "",
    model: str = "",
    profile: str = "",
    *,
    needs: str = "api_key",
    example: str = "my-model",
) -> ProviderAPI:
    """Return one API; `profile` is a name of `vendor_profiles` or a whole `module:NAME`, `needs` is split at blanks."""
    if profile and ":" not in profile:
        profile = _OF_VENDORS + profile
    return ProviderAPI(
        name=name, note=note, address=address, model=model, example=example, profile=profile, needs=tuple(needs.split())
    )


def _row(
    prefix: str,
    title: str,
    home: str,
    *apis: ProviderAPI,
    env: Mapping[str, str],
    needs: str = "api_key",
    options: tuple[tuple[str, Any], ...] = (),
    checked: str = _CHECKED,
) -> ProviderEntry:
    """Return a row.

    Args:
        prefix: The first part of the model id.
        title: For people.
        home: `module:Class` inside `lmagent.models`.
        *apis: The first is the default.
        env: Setting -> its environment variables, separated by blanks; the first that is set wins.
        needs: Settings that the environment must have, separated by blanks; of `this|that` one is enough.
        options: Keywords that the prefix adds.
        checked: The day on which the facts were checked.
    """
    variables = {setting: tuple(names.split()) for setting, names in env.items()}
    keys = tuple(tuple(v for setting in group.split("|") for v in variables[setting]) for group in needs.split())
    needed = {name for group in keys for name in group}
    return ProviderEntry(
        prefix=prefix,
        title=title,
        home=f"lmagent.models.{home}",
        keys=keys,
        settings=tuple(dict.fromkeys(name for names in variables.values() for name in names if name not in needed)),
        options=options,
        env=variables,
        apis=apis,
        checked=checked,
    )


def _compatible(
    prefix: str, title: str, profile: str, address: str, model: str, key: str, base_url: str, *, needs: str = "api_key"
) -> ProviderEntry:
    """Return the row of a vendor without a model class of its own. `needs` is empty for servers without keys."""
    return _row(
        prefix,
        title,
        "openai:OpenAICompatibleChat",
        _api(address=address, model=model, profile=profile, needs=needs),
        env={"api_key": key, "base_url": base_url},
        needs=needs,
        options=(("vendor", prefix),),
    )


BAILIAN_HOSTS: Mapping[str, str] = {
    "cn-beijing": "https://dashscope.aliyuncs.com",
    "ap-southeast-1": "https://dashscope-intl.aliyuncs.com",
    "us-east-1": "https://dashscope-us.aliyuncs.com",
}
"""Regions of Alibaba's service with their own host; in others each workspace has one."""

_BEIJING = BAILIAN_HOSTS["cn-beijing"]
_DASHSCOPE_KEY, _DASHSCOPE_URL = "DASHSCOPE_API_KEY", "DASHSCOPE_COMPATIBLE_BASE_URL"

_OPENAI_URL = "https://api.openai.com/v1"
_OPENAI = {
    "api_key": "OPENAI_API_KEY",
    "base_url": "OPENAI_BASE_URL OPENAI_API_BASE",
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
}

_MINIMAX_URL = "https://api.minimax.chat"
_MINIMAX = {
    "api_key": "MINIMAX_API_KEY",
    "group_id": "MINIMAX_GROUP_ID",
    "base_url": "MINIMAX_API_HOST MINIMAX_BASE_URL",
}

_ZHIPU_V3 = "https://open.bigmodel.cn/api/paas/v3/model-api"
_ZHIPU_V4 = "https://open.bigmodel.cn/api/paas/v4"
_ZHIPU = {"api_key": "ZHIPU_API_KEY ZHIPUAI_API_KEY ZAI_API_KEY", "base_url": "ZHIPUAI_BASE_URL ZAI_BASE_URL"}

_HUNYUAN_URL = "https://api.hunyuan.cloud.tencent.com/v1"
_HUNYUAN_TC3_URL = "https://hunyuan.tencentcloudapi.com"
_HYLLM_URL = "https://hunyuan.cloud.tencent.com/hyllm/v1"

_ROWS = (
    _row(
        "openai", "OpenAI Chat Completions", "openai:OpenAIChat",
        _api("", "", _OPENAI_URL, "gpt-5.4-mini", "lmagent.providers.openai.profile:OPENAI"),
        env=_OPENAI,
    ),
    _row(
        "openai-responses", "OpenAI Responses", "openai:OpenAIResponsesChat",
        _api("", "", _OPENAI_URL, "gpt-5.4-mini"),
        env=_OPENAI,
    ),
    _row(
        "anthropic", "Anthropic", "anthropic:AnthropicChat",
        _api("", "", "https://api.anthropic.com", "claude-sonnet-4-6"),
        env={
            "api_key": "ANTHROPIC_API_KEY",
            "auth_token": "ANTHROPIC_AUTH_TOKEN",
            "base_url": "ANTHROPIC_BASE_URL",
        },
        needs="api_key|auth_token",
    ),
    _row(
        "gemini", "Google Gemini", "gemini:GeminiChat",
        _api("", "", "https://generativelanguage.googleapis.com", "gemini-3.5-flash"),
        env={
            "api_key": "GOOGLE_API_KEY GEMINI_API_KEY",
            "base_url": "GOOGLE_GEMINI_BASE_URL",
            "version": "GOOGLE_GENAI_API_VERSION",
            "location": "GOOGLE_CLOUD_LOCATION",
        },
    ),
    _row(
        "azure", "Azure OpenAI", "openai:AzureChat",
        _api(profile="lmagent.providers.openai.chat:AZURE", needs="endpoint api_key", example="my-deployment"),
        env={
            "api_key": "AZURE_OPENAI_API_KEY AZURE_API_KEY",
            "ad_token": "AZURE_OPENAI_AD_TOKEN",
            "endpoint": "AZURE_OPENAI_ENDPOINT AZURE_API_BASE",
            "model": "AZURE_CHAT_API_ENGINE AZURE_CHAT_MODEL_NAME AZURE_OPENAI_DEPLOYMENT",
            "api_version": "OPENAI_API_VERSION AZURE_API_VERSION",
        },
        needs="api_key|ad_token endpoint",
    ),
    _row(
        "minimax", "MiniMax", "minimax_baichuan:MinimaxChat",
        _api("current", "current API", "https://api.minimax.io/v1", "MiniMax-M2.7", "MINIMAX"),
        _api("v2", "chatcompletion_v2, 2024", f"{_MINIMAX_URL}/v1", "MiniMax-Text-01", "MINIMAX_V2"),
        _api("classic", "chatcompletion, 2023", _MINIMAX_URL, "abab5.5-chat", needs="api_key group_id"),
        env=_MINIMAX,
    ),
    _row(
        "minimax_pro", "MiniMax Pro", "minimax_baichuan:MinimaxProChat",
        _api("", "chatcompletion_pro, 2023", _MINIMAX_URL, "abab5.5-chat", needs="api_key group_id"),
        env=_MINIMAX,
        needs="api_key group_id",
    ),
    _row(
        "wenxin", "Baidu Wenxin (Qianfan)", "wenxin:WenxinChat",
        _api("v2", "Qianfan v2", "https://qianfan.baidubce.com/v2", "ernie-4.5-turbo-128k", "WENXIN"),
        _api("classic", "classic API, 2023", "https://aip.baidubce.com", "ERNIE-Bot", needs="api_key secret_key"),
        env={
            "api_key": "QIANFAN_API_KEY QIANFAN_BEARER_TOKEN",
            # Pairs: each key goes with the secret at the same place. Qianfan v2 takes the first key alone as well.
            "classic_key": "WENXIN_API_KEY QIANFAN_AK EB_AK",
            "secret_key": "WENXIN_SECRET_KEY QIANFAN_SK EB_SK",
            "access_token": "QIANFAN_ACCESS_TOKEN EB_ACCESS_TOKEN",
            "iam_access_key": "QIANFAN_ACCESS_KEY",
            "iam_secret_key": "QIANFAN_SECRET_KEY",
            "base_url": "WENXIN_BASE_URL",
            "classic_base_url": "WENXIN_BASE_URL QIANFAN_BASE_URL",
        },
        needs="classic_key|api_key|access_token",
    ),
    _row(
        "baichuan", "Baichuan", "minimax_baichuan:BaichuanChat",
        _api("current", "current API", "https://api.baichuan-ai.com/v1", "Baichuan4-Turbo", "BAICHUAN"),
        _api("classic", "signed API, 2023", "https://api.baichuan-ai.com", "Baichuan2-53B", needs="api_key secret_key"),
        env={"api_key": "BAICHUAN_API_KEY", "secret_key": "BAICHUAN_SECRET_KEY", "base_url": "BAICHUAN_BASE_URL"},
    ),
    _row(
        "zhipu", "Zhipu (BigModel, Z.ai)", "zhipu:ZhiPuChat",
        _api("v4", "v4", _ZHIPU_V4, "glm-4.6", "ZHIPU"),
        _api("v3", "v3, 2023", _ZHIPU_V3, "chatglm_turbo"),
        env=_ZHIPU,
    ),
    _row(
        "zhipu-character", "Zhipu CharacterGLM", "zhipu:ZhiPuCharacterChat",
        _api("v4", "v4", _ZHIPU_V4, "charglm-4"),
        _api("v3", "v3, 2023", _ZHIPU_V3, "characterglm"),
        env=_ZHIPU,
    ),
    _row(
        "hunyuan", "Tencent Hunyuan", "hunyuan:HunyuanChat",
        _api("compatible", "compatible", _HUNYUAN_URL, "hunyuan-turbos-latest", "HUNYUAN"),
        _api("tokenhub", "compatible, on TokenHub", "https://tokenhub.tencentmaas.com/v1", "hy3-preview", "HUNYUAN"),
        _api("tc3", "cloud API (TC3)", _HUNYUAN_TC3_URL, "hunyuan-turbos-latest", needs="secret_id secret_key"),
        _api("hyllm", "signed API, 2023", _HYLLM_URL, "v1", needs="app_id secret_id secret_key"),
        env={
            "api_key": "HUNYUAN_API_KEY",
            "secret_id": "HUNYUAN_SECRET_ID TENCENTCLOUD_SECRET_ID",
            "secret_key": "HUNYUAN_SECRET_KEY TENCENTCLOUD_SECRET_KEY",
            "token": "TENCENTCLOUD_TOKEN",
            "tokenhub_key": "TOKENHUB_API_KEY",
            "app_id": "HUNYUAN_APP_ID",
            "base_url": "HUNYUAN_BASE_URL",
        },
        needs="api_key|secret_id",
    ),
    _row(
        "bailian", "Alibaba Bailian (DashScope)", "bailian:BailianChat",
        _api("native", "native", f"{_BEIJING}/api/v1", "qwen-plus"),
        _api("compatible", "compatible mode", f"{_BEIJING}/compatible-mode/v1", "qwen-plus", "BAILIAN"),
        _api("app", "apps, 2023", "https://bailian.aliyuncs.com", example="my-app"),
        env={
            "api_key": _DASHSCOPE_KEY,
            "access_key_id": "BAILIAN_ACCESS_KEY_ID",
            "access_key_secret": "BAILIAN_ACCESS_KEY_SECRET",
            "agent_key": "BAILIAN_AGENT_KEY",
            "app_id": "BAILIAN_APP_ID",
            "workspace": "DASHSCOPE_WORKSPACE_ID",
            "region": "DASHSCOPE_API_REGION",
            "base_url": "DASHSCOPE_HTTP_BASE_URL",
            "compatible_base_url": _DASHSCOPE_URL,
        },
        needs="api_key|access_key_id",
    ),
    _compatible("deepseek", "DeepSeek", "DEEPSEEK", "https://api.deepseek.com", "deepseek-chat", "DEEPSEEK_API_KEY",
                "DEEPSEEK_BASE_URL"),
    _compatible("moonshot", "Moonshot (Kimi)", "MOONSHOT", "https://api.moonshot.ai/v1", "kimi-k2.6",
                "MOONSHOT_API_KEY", "MOONSHOT_BASE_URL"),
    _compatible("qwen", "Qwen (DashScope compatible mode)", "QWEN", f"{_BEIJING}/compatible-mode/v1", "qwen-plus",
                f"{_DASHSCOPE_KEY} ALIBABA_API_KEY", _DASHSCOPE_URL),
    _compatible("mistral", "Mistral", "MISTRAL", "https://api.mistral.ai/v1", "mistral-large-latest",
                "MISTRAL_API_KEY", "MISTRAL_BASE_URL"),
    _compatible("groq", "Groq", "GROQ", "https://api.groq.com/openai/v1", "openai/gpt-oss-20b", "GROQ_API_KEY",
                "GROQ_BASE_URL"),
    _compatible("openrouter", "OpenRouter", "OPENROUTER", "https://openrouter.ai/api/v1", "openai/gpt-5.4-mini",
                "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
    _compatible("together", "Together", "TOGETHER", "https://api.together.xyz/v1", "openai/gpt-oss-20b",
                "TOGETHER_API_KEY TOGETHERAI_API_KEY TOGETHER_AI_TOKEN", "TOGETHER_BASE_URL"),
    _compatible("xai", "xAI", "XAI", "https://api.x.ai/v1", "grok-4", "XAI_API_KEY", "XAI_BASE_URL"),
    _compatible("stepfun", "StepFun", "STEPFUN", "https://api.stepfun.com/v1", "step-3.5-flash",
                "STEP_API_KEY STEPFUN_API_KEY", "STEP_BASE_URL"),
    _compatible("yi", "Yi (01.AI)", "YI", "https://api.lingyiwanwu.com/v1", "yi-lightning",
                "YI_API_KEY LINGYI_API_KEY", "YI_BASE_URL"),
    _compatible("siliconflow", "SiliconFlow", "SILICONFLOW", "https://api.siliconflow.cn/v1", "Qwen/Qwen3-8B",
                "SILICONFLOW_API_KEY", "SILICONFLOW_BASE_URL"),
    _compatible("volcengine", "Volcengine Ark (Doubao)", "VOLCENGINE", "https://ark.cn-beijing.volces.com/api/v3",
                "doubao-seed-1-6", "ARK_API_KEY VOLCENGINE_API_KEY", "ARK_BASE_URL"),
    _compatible("ollama", "Ollama on this machine", "OLLAMA", "http://localhost:11434/v1", "qwen3", "OLLAMA_API_KEY",
                "OLLAMA_BASE_URL OLLAMA_HOST", needs=""),
    _compatible("vllm", "vLLM server", "VLLM", "http://localhost:8000/v1", "", "VLLM_API_KEY", "VLLM_BASE_URL",
                needs=""),
    _compatible("llamacpp", "llama.cpp server", "LLAMA_CPP", "http://localhost:8080/v1", "", "LLAMA_API_KEY",
                "LLAMA_CPP_BASE_URL", needs=""),
    _compatible("lmstudio", "LM Studio on this machine", "LM_STUDIO", "http://localhost:1234/v1", "",
                "LM_STUDIO_API_KEY", "LM_STUDIO_BASE_URL", needs=""),
    _compatible("compatible", "Any other OpenAI-compatible server", "GENERIC", "", "", "OPENAI_COMPATIBLE_API_KEY",
                "OPENAI_COMPATIBLE_BASE_URL", needs="base_url"),
    _row(
        "local", "llama.cpp in this process", "local:LocalChat",
        _api(note="llama.cpp in the process", needs="", example=""),
        env={},
        needs="",
    ),
)  # fmt: skip

VENDORS: Mapping[str, ProviderEntry] = {row.prefix: row for row in _ROWS}
"""Prefix of the model id -> its row, in order of preference: the default model is the first one configured."""
