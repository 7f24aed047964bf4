"""From our `Request` to what httpcore2 sends, and from what it receives to our errors and bodies. Does no I/O.

Nothing of the URL, the parameters or the headers may end its line on the wire, and no error quotes a header: it may be
the key. Bodies are decoded as they come and counted after decoding, so that a small compressed body cannot fill the
memory.
"""

from __future__ import annotations

import errno
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from lmagent.errors import (
    ConfigurationError,
    ConnectionFailed,
    InvalidResponse,
    LMAgentError,
    ResponseTooLarge,
    UnexpectedRedirect,
)
from lmagent.providers.base import Request

__all__ = [
    "OUT_OF_DESCRIPTORS",
    "Address",
    "Body",
    "address_of",
    "as_ours",
    "header_lines",
    "out_of_descriptors",
    "refuse_redirect",
    "target_of",
]

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
    if parts.scheme not in _PORTS or not host or " " in host or host.startswith("."):
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
    """Return the header lines of `request`, ours first where it has none of its own.

    Raises:
        ConfigurationError: For a header that cannot be sent.
    """
    lines, odd = _lines(address, tuple(request.headers.items()))
    if odd is not None:  # raised from here, where no name holds a value that a traceback could show
        raise ConfigurationError(f"The header {odd!r} holds characters that HTTP does not allow; check its value.")
    if request.content or request.method not in ("GET", "HEAD", "DELETE"):
        return [*lines, (b"content-length", str(len(request.content)).encode())]
    return list(lines)


@lru_cache(maxsize=32)  # the headers of a model are the same for each request
def _lines(
    address: Address, headers: tuple[tuple[str, str], ...]
) -> tuple[tuple[tuple[bytes, bytes], ...], str | None]:
    """Return the lines without the length, and the name of a header that cannot be sent."""
    given: dict[str, str] = {}
    for name, value in headers:
        if not name or _ODD_NAME.search(name) or _ODD_VALUE.search(value.strip()):
            return (), name.lower()
        given[name.lower()] = value.strip()
    lines = [(b"Host", given.pop("host", address.host_header).encode("latin-1", "replace"))]
    lines += [(name.encode(), value) for name, value in _DEFAULTS.items() if name not in given]
    skipped = ("content-length", "transfer-encoding")  # counted by us
    lines += [(name.encode(), value.encode()) for name, value in given.items() if name not in skipped]
    return tuple(lines), None


_DEFAULTS = {"accept": b"*/*", "accept-encoding": b"gzip, deflate", "user-agent": b"lmagent"}


_PIECE = 64 * 1024
_IDENTITY = ("", "identity", "none", "utf-8")
"""`utf-8` is a mistake that servers make; it means no encoding."""


class Body:
    """What one answer may hold, and how it is coded.

    Args:
        headers: Lower-case names.
        limit: Most bytes after decoding.

    Raises:
        ResponseTooLarge: The declared length alone is over the limit.
        InvalidResponse: A content encoding that was not asked for.
    """

    __slots__ = ("_coding", "_inflate", "_left", "_limit", "_started")

    def __init__(self, headers: Mapping[str, str], limit: int) -> None:
        self._limit = self._left = limit
        declared = headers.get("content-length", "")
        # Longer than 18 digits is more than any limit, and int() of thousands of digits is refused by Python.
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
            raise self._too_large()
        self._started = False
        self._coding = headers.get("content-encoding", "").strip().lower()
        self._inflate = None
        if self._coding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(47 if "gzip" in self._coding else 15)
        elif self._coding not in _IDENTITY:
            raise InvalidResponse(f"The answer is encoded as {self._coding[:40]!r}, which was not asked for.")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield `data` decoded, in pieces.

        Raises:
            ResponseTooLarge: More than the limit in all.
            InvalidResponse: The data cannot be decoded.
        """
        if self._inflate is None:
            yield self._count(data)
            return
        while data:
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                if self._started or self._coding != "deflate":
                    raise InvalidResponse(f"The answer is not {self._coding} as it says: {error}.") from error
                self._inflate = zlib.decompressobj(-15)  # deflate without its wrapper, as some servers send it
                self._started = True
                continue
            self._started = True
            data = self._inflate.unconsumed_tail
            if piece:
                yield self._count(piece)
            if self._inflate.eof:
                data = self._inflate.unused_data
                if not data.startswith(b"\x1f\x8b"):  # anything but a further gzip member is padding
                    return
                self._inflate = zlib.decompressobj(47)

    def _count(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_large()
        return piece

    @property
    def plain(self) -> bool:
        """Whether the bytes come as they are (then `count` does instead of `feed`)."""
        return self._inflate is None

    count = _count

    def _too_large(self) -> ResponseTooLarge:
        return ResponseTooLarge(
            f"The answer is longer than {self._limit} bytes; raise max_response_bytes to allow more."
        )


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


def as_ours(error: Exception, library: Any, *, received: bool, ended: bool = False) -> Exception:
    """Return the error of our tree for one of the network, of TLS, of HTTP or of a proxy; any other error as it is.

    Args:
        error: What was raised.
        library: `httpcore2`, or the module of a client that was handed in.
        received: Whether part of a response had come.
        ended: Whether the peer had closed the connection.
    """
    if isinstance(error, LMAgentError | AssertionError):  # an assertion is a test's guard, even where it is an OSError
        return error
    text = str(error)[:200] or type(error).__name__
    if isinstance(error, library.LocalProtocolError):  # its text may quote a header, so it is not shown
        return ConfigurationError("The request cannot be sent: a header or the URL holds characters that HTTP refuses.")
    if isinstance(error, library.RemoteProtocolError) and not ended:
        return InvalidResponse(f"The server's answer is not valid HTTP: {text}.")
    if isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS:
        return out_of_descriptors()
    socks = sys.modules.get("socksio")  # there if it is in use
    network: tuple[type[Exception], ...] = (
        OSError,
        library.NetworkError,
        library.ProtocolError,
        library.ProxyError,
        library.TimeoutException,
        library.UnsupportedProtocol,
        *([socks.SOCKSError] if socks else []),
    )
    if not isinstance(error, network):
        return error
    if "CERTIFICATE_VERIFY_FAILED" in text:  # ssl says so, and the libraries in ssl's words
        return ConnectionFailed(f"{_UNTRUSTED}: {text}.", retryable=False)
    if isinstance(error, library.ProxyError):
        return ConnectionFailed(f"The proxy refused: {text}.")
    return ConnectionFailed(f"{_BROKEN if received else _NONE}: {text}.")


_BROKEN = "The connection broke in the middle of the answer"
_UNTRUSTED = (
    "The server's certificate is not trusted; name the file of your authority in SSL_CERT_FILE, "
    "or pass transport=HttpTransport(ssl_context=...)"
)
_NONE = "No answer; check base_url and the network"

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


def out_of_descriptors() -> ConnectionFailed:
    """Return the error for a process (or machine) that may open no further file."""
    return ConnectionFailed(
        "No connection: the process has as many files and sockets open as it may; raise `ulimit -n` or run fewer calls "
        "at once."
    )
