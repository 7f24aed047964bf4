"""Where keys come from: what the caller gives, else the environment under the names each provider is known by.

The environment is read when a model is built and never kept; values are wrapped in `Secret` at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError

__all__ = ["find_secret", "find_setting", "host_of", "require_secret", "require_setting", "with_default_path"]


def host_of(url: str, version: str = "/v1") -> str:
    """Return `url` without a trailing version, for dialects whose paths begin with it."""
    return url.rstrip("/").removesuffix(version)


def with_default_path(url: str | None, default: str) -> str:
    """Return `url`, with the path of `default` when it has none of its own; `default` when there is no `url`."""
    url = (url or default).rstrip("/")
    return url if urlsplit(url).path else url + urlsplit(default).path


def find_setting(given: str | None, names: Sequence[str], default: str | None = None) -> str | None:
    """Return `given`, else the first environment variable of `names` that is set and not blank, else `default`."""
    if given is not None:
        return given
    return next((value for name in names if (value := os.environ.get(name, "").strip())), default)


def require_setting(provider: str, what: str, argument: str, given: str | None, names: Sequence[str]) -> str:
    """Return a setting that must be there.

    Raises:
        ConfigurationError: It is missing; the message names the argument and the variables.
    """
    value = find_setting(given, names)
    if not value:
        raise ConfigurationError(f"No {what} for {provider!r}: {_ways(argument, names)}.")
    return value


def find_secret(given: str | Secret | None, names: Sequence[str]) -> Secret | None:
    """Return the key that was given or the first one the environment has, or None."""
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
            f"No API key for {provider!r}: {_ways(argument, names)}; `lmagent doctor` shows what is set. "
            "LocalChat needs no key."
        )
    return secret


def _ways(argument: str, names: Sequence[str]) -> str:
    return f"pass {argument}=..." + (f" or set {' or '.join(names)}" if names else "")
