"""Base URLs as people write them: with or without the version in the path."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["host_of", "with_default_path"]


def host_of(url: str, version: str = "/v1") -> str:
    """Return `url` without a trailing version, for dialects whose paths begin with it."""
    return url.rstrip("/").removesuffix(version)


def with_default_path(url: str | None, default: str) -> str:
    """Return `url`, with the path of `default` when it has none of its own; `default` when there is no `url`."""
    url = (url or default).rstrip("/")
    return url if urlsplit(url).path else url + urlsplit(default).path
