"""What goes wrong below HTTP, in words of our error tree."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from lmagent.errors import ConfigurationError, ConnectionFailed, InvalidResponse, ProviderError, UnexpectedRedirect

__all__ = ["as_ours", "refuse_redirect"]


def refuse_redirect(status: int, headers: Mapping[str, str]) -> None:
    """Raise for a redirect.

    Raises:
        UnexpectedRedirect: It names the host only: a location may carry secrets.
    """
    if 300 <= status < 400:
        try:
            host = urlsplit(headers.get("location", "")).hostname or "another path of the same host"
        except ValueError:
            host = "an unreadable address"
        raise UnexpectedRedirect(
            f"The server redirects to {host[:100]}; redirects of model calls are not followed. Check base_url.",
            status=status,
        )


def as_ours(error: Exception, received: bool = False) -> ProviderError | ConfigurationError:
    """Return the error of our tree for one of httpcore's, httpx's or the operating system's.

    Args:
        error: What was raised.
        received: Whether part of an answer had come.
    """
    if isinstance(error, ProviderError | ConfigurationError):
        return error
    name, text = type(error).__name__, str(error)[:300]
    if name == "LocalProtocolError":  # its text may quote a header
        return ConfigurationError("The request cannot be sent: a header or the URL holds characters HTTP refuses.")
    if name == "RemoteProtocolError" and not received and "disconnected" not in text:
        return InvalidResponse(f"The server does not speak HTTP/1.1: {text}.")
    what = "The connection broke in the middle of the answer" if received else "No answer"
    return ConnectionFailed(f"{what}: {text or name}.")
