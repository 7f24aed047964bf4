"""From our `Request` to what goes on the wire: origin, target, header lines. Knows no sockets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from lmagent.errors import ConfigurationError
from lmagent.providers.base import Request

__all__ = ["Address", "address_of", "header_lines", "refuse_odd_headers", "target_of"]

_PORTS = {"http": 80, "https": 443}
_SAFE = "%/:;=@?!$&'()*+,~[]"
_ODD_NAME = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_ODD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class Address(NamedTuple):
    """Where a request goes."""

    scheme: str
    host: str
    """ASCII."""
    port: int
    target: str
    """Path and query of the URL, ASCII."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a connection belongs to."""
        return self[:3]

    @property
    def host_header(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@lru_cache(maxsize=256)
def address_of(url: str) -> Address:
    """Take a URL apart. URLs hold no secrets: those travel in `Request.params`.

    Raises:
        ConfigurationError: Not a URL of a web server.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        ascii_host = host if host.isascii() else host.encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise ConfigurationError(f"{_shown(url)!r} is not a URL: {error}. Check base_url.") from error
    if parts.scheme not in _PORTS or not host or " " in host:
        raise ConfigurationError(f"{_shown(url)!r} is not a URL that begins with http:// or https://. Check base_url.")
    if parts.username is not None:
        raise ConfigurationError(f"The URL of {host!r} carries a user name; pass credentials as api_key=... instead.")
    path = quote(parts.path or "/", safe=_SAFE)
    query = quote(parts.query, safe=_SAFE)
    return Address(parts.scheme, ascii_host, port or _PORTS[parts.scheme], f"{path}?{query}" if query else path)


def _shown(url: str) -> str:
    return url.partition("?")[0].rpartition("@")[2][:100]


def target_of(address: Address, request: Request) -> str:
    """Return path and query with the request's own parameters."""
    if not request.params:
        return address.target
    return f"{address.target}{'&' if '?' in address.target else '?'}{urlencode(request.params)}"


def header_lines(address: Address, request: Request) -> list[tuple[bytes, bytes]]:
    """Return the header lines of `request`, ours first where it has none of its own; they have been checked."""
    lines = [(b"Host", address.host_header.encode())]
    given = {name.lower(): value for name, value in request.headers.items()}
    for name, value in _DEFAULTS.items():
        if name not in given:
            lines.append((name.encode(), value))
    if request.content or request.method not in ("GET", "HEAD", "DELETE"):
        lines.append((b"content-length", str(len(request.content)).encode()))
    for name, value in given.items():
        if name == "host":
            lines[0] = (b"Host", value.strip().encode("latin-1", "replace"))
        elif name not in ("content-length", "transfer-encoding"):
            lines.append((name.encode(), value.strip().encode()))
    return lines


def refuse_odd_headers(request: Request) -> None:
    """Raise `ConfigurationError` for a header that cannot be sent."""
    odd = _odd_header(request.headers)
    if odd is not None:  # raised from here, where no name holds a value that a traceback could show
        raise ConfigurationError(f"The header {odd!r} holds characters that HTTP does not allow; check its value.")


def _odd_header(headers: Mapping[str, str]) -> str | None:
    for name, value in headers.items():
        if not name or _ODD_NAME.search(name) or _ODD_VALUE.search(value.strip()):
            return name.lower()
    return None


_DEFAULTS = {"accept": b"*/*", "accept-encoding": b"gzip, deflate", "user-agent": b"lmagent"}
