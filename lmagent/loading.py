"""From a model id such as `openai/gpt-5.4-mini` to a model, and which model is the default."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from lmagent.errors import ConfigurationError
from lmagent.model import ChatModel

__all__ = ["ProviderEntry", "default_model_id", "load_from_model_id", "provider_table", "register_provider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEntry:
    """One provider as `load_from_model_id`, `lmagent models` and `lmagent doctor` know it."""

    prefix: str
    """The first part of the model id."""
    home: str | Callable[..., ChatModel]
    """`module:Class`, or anything callable as `home(model, **options)`."""
    keys: tuple[tuple[str, ...], ...] = ()
    """What must be in the environment: one variable of each group. Empty: needs no key."""
    options: tuple[tuple[str, Any], ...] = ()
    """Keywords that this prefix adds."""
    title: str = ""


def _vendor(prefix: str, title: str, *keys: str) -> ProviderEntry:
    return ProviderEntry(
        prefix=prefix,
        home="lmagent.chat_models.compatible:OpenAICompatibleChat",
        keys=(keys,) if keys else (),
        options=(("vendor", prefix),),
        title=title,
    )


def _own(prefix: str, home: str, title: str, *keys: tuple[str, ...]) -> ProviderEntry:
    return ProviderEntry(prefix=prefix, home=f"lmagent.chat_models.{home}", keys=keys, title=title)


_TABLE: dict[str, ProviderEntry] = {
    entry.prefix: entry
    for entry in (
        _own("openai", "openai:OpenAIChat", "OpenAI", ("OPENAI_API_KEY",)),
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
    wanted = model_id or default_model_id()
    prefix, _, name = wanted.partition("/")
    entry = _TABLE.get(prefix)
    if entry is None:
        raise ConfigurationError(
            f"No provider {prefix!r} (model id {wanted!r}). A model id is 'provider/model' with one of "
            f"{', '.join(sorted(_TABLE))}. For a server of your own use OpenAIChat(base_url=...)."
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
