"""What goes wrong below HTTP, in words of our error tree."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from h11 import LocalProtocolError, RemoteProtocolError

from lmagent.errors import ConfigurationError, ConnectionFailed, InvalidResponse, LMAgentError, UnexpectedRedirect

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


def as_ours(error: Exception, *, received: bool = False) -> Exception:
    """Return the error of our tree for one of a socket, of h11 or of httpx.

    Args:
        error: What was raised.
        received: Whether part of an answer had come.
    """
    if isinstance(error, LMAgentError | AssertionError):
        return error  # an assertion is a test's guard (or a mistake of ours): it must be seen as what it is
    if isinstance(error, LocalProtocolError):  # its text may quote a header, so it is not shown
        return ConfigurationError("The request cannot be sent: a header or the URL holds characters that HTTP refuses.")
    text = str(error)[:200] or type(error).__name__
    if isinstance(error, RemoteProtocolError):
        return InvalidResponse(f"The server does not speak HTTP/1.1: {text}.")
    if "CERTIFICATE_VERIFY_FAILED" in text:  # ssl says so, and httpx in ssl's words
        return ConnectionFailed(f"{_UNTRUSTED}: {text}.", retryable=False)
    return ConnectionFailed(f"{_BROKEN if received else _NONE}: {text}.")


_BROKEN = "The connection broke in the middle of the answer"
_UNTRUSTED = (
    "The server's certificate is not trusted; name the file of your authority in SSL_CERT_FILE, "
    "or pass transport=HttpTransport(ssl_context=...)"
)
_NONE = "No answer; check base_url and the network"
