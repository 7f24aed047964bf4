"""What each platform can do, read off the codecs: for `lmagent models --features` and the docs' table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmagent.models.loading import load_from_model_id
from lmagent.providers.base import Features

__all__ = ["COLUMNS", "DOORS", "Door", "features_of", "row_of"]

_KEY = {"api_key": "placeholder.placeholder"}
_PAIR = {"api_key": "placeholder", "secret_key": "placeholder"}
_CLOUD_PAIR = {"secret_id": "placeholder", "secret_key": "placeholder"}
_GROUP = {"api_key": "placeholder", "group_id": "placeholder"}
_AZURE = {"endpoint": "https://placeholder.invalid", "api_key": "placeholder"}
_SERVER = {"base_url": "http://localhost/v1"}


@dataclass(frozen=True, slots=True)
class Door:
    """One API of one platform."""

    model_id: str
    """As `load_from_model_id` takes it; stands for all models behind this door."""
    note: str = ""
    options: dict[str, Any] = field(default_factory=lambda: dict(_KEY))
    """What the model is built with; building asks nobody."""


DOORS: tuple[Door, ...] = (
    Door("openai/gpt-5.4-mini"),
    Door("openai-responses/gpt-5.4-mini"),
    Door("azure/my-deployment", options=_AZURE),
    Door("anthropic/claude-sonnet-4-6"),
    Door("gemini/gemini-3.5-flash"),
    Door("wenxin/ERNIE-Bot", "classic API", _PAIR),
    Door("wenxin/ernie-4.5-turbo-128k", "Qianfan v2"),
    Door("minimax/abab5.5-chat", "chatcompletion, 2023", _GROUP),
    Door("minimax_pro/abab5.5-chat", "chatcompletion_pro", _GROUP),
    Door("minimax/abab6.5s-chat", "chatcompletion_v2"),
    Door("minimax/MiniMax-M2.7", "today's"),
    Door("baichuan/Baichuan2-53B", "signed API, 2023", _PAIR),
    Door("baichuan/Baichuan4-Turbo", "today's"),
    Door("zhipu/chatglm_turbo", "v3"),
    Door("zhipu/glm-4.6", "v4"),
    Door("zhipu-character/characterglm", "v3"),
    Door("zhipu-character/charglm-4", "v4"),
    Door("hunyuan/v1", "signed API, 2023", {**_CLOUD_PAIR, "app_id": 1}),
    Door("hunyuan/hunyuan-turbos-latest", "cloud API (TC3)", {**_CLOUD_PAIR, "api": "tc3"}),
    Door("hunyuan/hunyuan-turbos-latest", "compatible"),
    Door("bailian/qwen-plus", "native", {**_KEY, "api": "native"}),
    Door("bailian/qwen-plus", "compatible mode", {**_KEY, "api": "compatible"}),
    Door("bailian/my-app", "apps, 2023", {**_KEY, "api": "app"}),
    Door("deepseek/deepseek-chat"),
    Door("moonshot/kimi-k2.6"),
    Door("qwen/qwen-plus"),
    Door("mistral/mistral-large-latest"),
    Door("groq/openai/gpt-oss-20b"),
    Door("openrouter/openai/gpt-5.4-mini"),
    Door("together/openai/gpt-oss-20b"),
    Door("xai/grok-4"),
    Door("stepfun/step-3.5-flash"),
    Door("yi/yi-lightning"),
    Door("siliconflow/Qwen/Qwen3-8B"),
    Door("volcengine/doubao-seed-1-6"),
    Door("ollama/qwen3", "", {}),
    Door("vllm/my-model", "", _SERVER),
    Door("llamacpp/my-model", "", _SERVER),
    Door("lmstudio/my-model", "", _SERVER),
    Door("compatible/my-model", "", _SERVER),
    Door("local", "llama.cpp in the process", {}),
)
"""Every platform, each of its APIs once."""

COLUMNS = (
    "Model id",
    "API",
    "Tools",
    "At once",
    "Streamed calls",
    "tool_choice",
    "Images",
    "JSON",
    "Stop",
    "Reasoning",
)


def features_of(door: Door) -> Features:
    """Return the features of the dialect itself, without what prompt mode adds."""
    model = load_from_model_id(door.model_id, **door.options)
    codec = getattr(model.codec, "inner", model.codec)
    return codec.features


def row_of(door: Door) -> tuple[str, ...]:
    """Return one row of the table, in the order of `COLUMNS`."""
    features = features_of(door)
    prompted = not features.tools
    choices = [word for word in ("required", "named", "none") if word in features.tool_choice]
    return (
        door.model_id,
        door.note,
        "prompt" if prompted else "native",
        _yes(features.parallel_calls or prompted),
        _yes(features.stream_tools or prompted),
        "in the prompt" if prompted else ", ".join(choices) or "auto only",
        _yes(features.images),
        {"schema": "schema", "object": "object", "none": "prompt"}[features.json_schema],
        _yes(features.stop),
        _yes(features.reasoning),
    )


def _yes(value: bool) -> str:
    return "yes" if value else "-"
