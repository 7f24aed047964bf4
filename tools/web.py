"""Fetch public web pages as text, safely even if a page makes the model request any address.

`web_fetch(hosts=["example.com"])` allows these hosts, `web_fetch(allow_public=True)` the public internet. A name is
resolved once, and all its addresses must be public. The connection uses a checked address, with the name in Host and
SNI, so a later answer of the name server has no effect. Redirects are checked like the first address. One deadline
covers resolving, connecting, the handshake and every byte.

The tool sends no cookies, credentials or referrer, ignores proxies and .netrc, runs no scripts, and reads only text.
The text comes from strangers: it is data, but the model may still follow instructions in it. No tool can prevent that.

Over 400 lines because a ready-made tool is one file that a user can copy.
"""

from __future__ import annotations

import codecs
import html
import io
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urljoin, urlsplit

from lmagent import ToolError, function

if TYPE_CHECKING:
    from lmagent import Tool

__all__ = ["FACTORIES", "is_public", "web_fetch"]

FACTORIES = {"web_fetch": 'web_fetch(hosts=["example.com"]) or web_fetch(allow_public=True)'}
"""How to create the tool of this module: it needs the hosts that are allowed."""

MAX_URL = 2048
MAX_REDIRECTS = 5
MAX_ADDRESSES = 4
MAX_CONNECT_SECONDS = 5.0
MAX_TEXT = 1_000_000
"""Most characters of text from one page: relative links of a short page can become very long."""
_CHUNK = 64 * 1024
_PORTS = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


def web_fetch(
    *,
    hosts: Collection[str] | None = None,
    allow_public: bool = False,
    max_bytes: int = 5 * 1024 * 1024,
    timeout: float = 20.0,
    name: str = "web_fetch",
    resolve: Resolve | None = None,
    allow_address: Callable[[Address], bool] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Tool[..., str]:
    """Return a tool that fetches a page or text file from the allowed hosts.

    Args:
        hosts: Names such as `"example.com"` (exactly this host), `"*.example.com"` (its subdomains) or
            `"example.com:8080"` (with a port other than 80 and 443).
        allow_public: Whether every public host is allowed, on ports 80 and 443.
        max_bytes: Largest body, after decompression.
        timeout: Seconds for the whole fetch with its redirects.
        name: Name of the tool.
        resolve: `(host, port) -> addresses` instead of the system's resolver.
        allow_address: Returns whether an address may be connected to; default `is_public`. A host on an intranet needs
            both this and its name in `hosts`.
        ssl_context: Used instead of the default context to verify certificates.

    Raises:
        ValueError: Neither `hosts` nor `allow_public` is given, or an entry of `hosts` is not a host name.
    """
    if isinstance(hosts, str):
        raise TypeError("web_fetch: hosts= must be a list of names, not a string.")
    if not hosts and not allow_public:
        raise ValueError("web_fetch needs hosts=[...] or allow_public=True: nothing is allowed by default.")
    fetcher = _Fetcher(
        rules=tuple(_rule(host) for host in hosts or ()),
        allow_public=allow_public,
        max_bytes=max_bytes,
        timeout=timeout,
        resolve=resolve or _system_resolve,
        allow_address=allow_address or is_public,
        ssl_context=ssl_context,
    )
    where = "" if allow_public else f" Only from {', '.join(sorted(hosts or ()))}."

    def fetch(url: str) -> str:
        return fetcher.fetch(url)

    fetch.__doc__ = f"""Fetch a web page or text file and return its text.{where}

    Args:
        url: Begins with https:// or http://.
    """
    # The timeout of the fetch comes first: its error names the host.
    return function(fetch, name=name, effects="network", timeout=timeout + 5)


_NOT_PUBLIC = tuple(
    ip_network(network)
    # The special-purpose registries of IANA (`ipaddress` has them, too, but its results depend on the Python version),
    # and 168.63.129.16, a public number that answers inside Azure. All public IPv6 addresses are inside 2000::/3; its
    # special ranges are listed: protocol assignments with Teredo, documentation, 6to4.
    for network in """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
    2001::/23 2001:db8::/32 2002::/16 3fff::/20 2620:4f:8000::/48
    """.split()
)
_PUBLIC_V6 = ip_network("2000::/3")


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet; IPv4 addresses written as IPv6 are not."""
    if isinstance(address, IPv6Address) and address not in _PUBLIC_V6:
        return False
    return not any(address.version == network.version and address in network for network in _NOT_PUBLIC)


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str
    below: bool
    port: int | None

    def allows(self, target: _Target) -> bool:
        named = target.host.endswith("." + self.host) if self.below else target.host == self.host
        return named and (target.port in _PORTS.values() if self.port is None else target.port == self.port)


@dataclass(frozen=True, slots=True)
class _Target:
    """One checked URL: `host` is canonical ASCII without brackets or trailing dot."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def _rule(entry: str) -> _Rule:
    below = entry.startswith("*.")
    try:
        parts = urlsplit("//" + entry.removeprefix("*."))
        host, port = _canonical_host(parts.hostname or ""), parts.port
    except (ValueError, ToolError):
        host, port, parts = "", None, urlsplit("")
    if not host or parts.path or parts.query or parts.fragment or "@" in entry:
        raise ValueError(
            f"web_fetch: {entry!r} is not a host name; write 'example.com', '*.example.com' or 'example.com:8080'."
        )
    return _Rule(host, below, port)


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)


def _canonical_host(host: str) -> str:
    """Return a host as lower-case ASCII; reject names that a resolver could read as another host.

    `127.1`, `0x7f.1`, `2130706433` and `0177.0.0.1` are addresses for the C library, but not for `ipaddress`. So a name
    whose last label begins with a digit must be a plain IPv4 address.
    """
    if ":" in host:
        return str(IPv6Address(host)) if "%" not in host else ""
    try:
        # Also maps wide digits and dots, so it comes before the check for numbers.
        host = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        return ""
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return ""
    if labels[-1][0].isdigit():
        return str(IPv4Address(host))
    return host


def _target(url: str) -> _Target:
    if len(url) > MAX_URL:
        raise ToolError(f"The address has {len(url)} characters; at most {MAX_URL} are allowed.")
    # `urlsplit` drops some control characters, and browsers read a backslash as a slash: reject both.
    if any(not c.isprintable() or c in ' \\"<>' for c in url):
        raise ToolError(
            "The address contains characters that are not allowed: spaces, control characters, quotes, \\, < or >."
        )
    if url.partition("://")[0].lower() not in _PORTS:
        raise ToolError("Only addresses that begin with https:// or http:// can be fetched.")
    try:
        parts = urlsplit(url)
        host, port = _canonical_host(parts.hostname or ""), parts.port
    except ValueError:
        host = port = parts = None
    if parts is not None and "@" in parts.netloc:
        raise ToolError("Addresses with a user name or password are not fetched.")
    if parts is None or not host or port == 0:
        raise ToolError(f"{url!r} does not name a host.")
    path = quote(parts.path or "/", safe="%/:=&~+!$,;'@()*") + (f"?{_quoted(parts.query)}" if parts.query else "")
    return _Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def _quoted(query: str) -> str:
    return quote(query, safe="%/:=&?~+!$,;'@()*[]")


class _Deadline:
    """The deadline of a whole fetch."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True, slots=True)
class _Fetcher:
    rules: tuple[_Rule, ...]
    allow_public: bool
    max_bytes: int
    timeout: float
    resolve: Resolve
    allow_address: Callable[[Address], bool]
    ssl_context: ssl.SSLContext | None

    def fetch(self, url: str) -> str:
        deadline = _Deadline(self.timeout)
        target = _target(url.strip())
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._get(target, deadline)
            except TimeoutError:
                raise ToolError(f"{target.host} did not answer within {self.timeout:g} seconds.") from None
            except (OSError, HTTPException, EOFError) as error:
                raise ToolError(f"Fetching from {target.host} failed: {type(error).__name__}.") from error
            if isinstance(answer, str):
                return answer
            target = answer
        raise ToolError(f"Stopped after {MAX_REDIRECTS} redirects.")

    def _get(self, target: _Target, deadline: _Deadline) -> str | _Target:
        """Fetch one URL. Return the page as text, or the target of a redirect."""
        self._check(target)
        headers = {
            "Host": target.authority,
            "User-Agent": "lmagent-web-fetch",
            "Accept": "text/html, text/*;q=0.9, application/json;q=0.9, application/xml;q=0.8",
            "Accept-Encoding": "gzip",
            "Connection": "close",
        }
        with closing(self._connect(target, deadline)) as wire, closing(HTTPConnection("unused.invalid")) as connection:
            connection.auto_open = 0  # prevents a connection by name to an unchecked address
            connection.sock = _Wire(wire, deadline, self.max_bytes + 1024 * 1024)
            connection.putrequest("GET", target.path, skip_host=True, skip_accept_encoding=True)
            for field, value in headers.items():
                connection.putheader(field, value)
            connection.endheaders()
            with connection.getresponse() as response:
                return self._answer(target, response)

    def _check(self, target: _Target) -> None:
        if any(rule.allows(target) for rule in self.rules):
            return
        if not self.allow_public:
            allowed = ", ".join(
                f"{'*.' * rule.below}{rule.host}{f':{rule.port}' if rule.port else ''}" for rule in self.rules
            )
            raise ToolError(f"{target.authority} is not allowed. Allowed are: {allowed}.")
        if target.port not in _PORTS.values():
            raise ToolError(f"Port {target.port} is not allowed, only 80 and 443.")

    def _connect(self, target: _Target, deadline: _Deadline) -> socket.socket:
        """Resolve once, check every address, and connect to one of the checked addresses."""
        addresses = _resolved(self.resolve, target, deadline)
        if not addresses:
            raise ToolError(f"{target.host} has no address.")
        if not all(self.allow_address(address) for address in addresses):
            raise ToolError(f"{target.host} is not on the public internet; it cannot be fetched.")
        failure = OSError()
        for address in addresses[:MAX_ADDRESSES]:
            wire = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
            try:
                wire.settimeout(min(deadline.left(), MAX_CONNECT_SECONDS))
                wire.connect((str(address), target.port))
                if target.scheme == "https":
                    context = self.ssl_context or ssl.create_default_context()
                    wire.settimeout(deadline.left())
                    wire = context.wrap_socket(wire, server_hostname=target.host)
            except OSError as error:
                wire.close()
                failure = error
            except BaseException:
                wire.close()
                raise
            else:
                return wire
        raise failure

    def _answer(self, target: _Target, response: HTTPResponse) -> str | _Target:
        if response.status in (301, 302, 303, 307, 308):
            location = response.headers.get("Location", "")
            if not location:
                raise ToolError(f"{target.host} redirects to an invalid address.")
            # `http.client` decodes headers as latin-1; browsers read them as UTF-8.
            location = location.encode("latin-1", "replace").decode("utf-8", "replace").strip().replace(" ", "%20")
            try:
                return _target(urljoin(target.url, location))
            except ValueError:
                raise ToolError(f"{target.host} redirects to an invalid address.") from None
        if response.status != 200:
            reason = "".join(c for c in response.reason if c.isprintable())[:80]
            raise ToolError(f"{target.url} answered {response.status} {reason}.".replace(" .", "."))
        kind, charset = _content_type(response.headers)
        if not _TEXT.fullmatch(kind):
            raise ToolError(f"{target.url} is {kind[:80]}, not text.")
        text = _decode(_body(response, self.max_bytes), charset, kind)
        if "html" in kind or (
            kind == "text/plain" and text.lstrip()[:15].lower().startswith(("<!doctype html", "<html"))
        ):
            text = html_to_text(text, target.url)
        return f"{target.url}\n\n{text.strip()}"


def _system_resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _resolved(resolve: Resolve, target: _Target, deadline: _Deadline) -> list[Address]:
    """Resolve in a thread, because the system's resolver has no timeout; a late result is dropped."""
    if target.host[-1].isdigit() or ":" in target.host:
        return [ip_address(target.host)]
    outcome: list[Sequence[str] | Exception] = []

    def ask() -> None:
        try:
            outcome.append(resolve(target.host, target.port))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, name="lmagent-resolve", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not outcome:
        raise TimeoutError
    if isinstance(outcome[0], (OSError, UnicodeError)):
        raise ToolError(f"The host {target.host} is not known.") from outcome[0]
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return [ip_address(text.partition("%")[0]) for text in dict.fromkeys(outcome[0])]


class _Wire:
    """A socket for `http.client` that applies the deadline to every byte and limits the number of bytes."""

    def __init__(self, wire: socket.socket, deadline: _Deadline, limit: int) -> None:
        self._wire = wire
        self._deadline = deadline
        self._limit = limit

    def sendall(self, data: Any) -> None:
        self._wire.settimeout(self._deadline.left())
        self._wire.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._wire, self._deadline, self._limit), _CHUNK)

    def close(self) -> None:
        """Do nothing: `http.client` closes its socket before the body is read; `_get` closes the real one."""


class _Incoming(io.RawIOBase):
    def __init__(self, wire: socket.socket, deadline: _Deadline, limit: int) -> None:
        self._wire = wire
        self._deadline = deadline
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._wire.settimeout(self._deadline.left())
        count = self._wire.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise ToolError("The answer is too large.")
        return count


_TEXT = re.compile(
    r"text/[\w.+-]+|application/(?:[\w.-]+\+)?(?:json|xml|yaml)|application/(?:x-ndjson|javascript)", re.ASCII
)
_CHARSETS = frozenset(
    codecs.lookup(name).name
    for name in """
    utf-8 ascii utf-16 utf-16-le utf-16-be gb2312 gbk gb18030 big5 shift_jis euc_jp euc_kr koi8-r
    cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258
    iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-15
    """.split()
)
"""An allow-list: Python would also decode `punycode` or `unicode_escape`, slowly or with surprising results."""
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


def _content_type(headers: HTTPMessage) -> tuple[str, str]:
    kind, _, parameters = headers.get("Content-Type", "text/plain").partition(";")
    charset = re.search(r"charset=[\"']?([A-Za-z0-9_:-]{1,40})", parameters, re.IGNORECASE)
    return kind.strip().lower(), charset[1] if charset else ""


def _body(response: HTTPResponse, limit: int) -> bytes:
    """Read and decompress the whole body; stop as soon as it is larger than `limit`."""
    too_large = ToolError(f"The answer is larger than {limit} bytes.")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise ToolError(f"The answer is compressed in a way that cannot be read ({encoding[:40]!r}).")
    declared = response.headers.get("Content-Length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    inflate = None if encoding in ("identity", "") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    data = bytearray()
    while not (inflate and inflate.eof) and (chunk := response.read(_CHUNK)):
        for piece in _inflated(inflate, chunk) if inflate else (chunk,):
            data += piece
            if len(data) > limit:
                raise too_large
    if not inflate.eof if inflate else response.length:
        raise EOFError
    return bytes(data)


class _Inflate(Protocol):
    """Type of `zlib.decompressobj()`, whose class has no public name."""

    @property
    def eof(self) -> bool: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _inflated(inflate: _Inflate, chunk: bytes) -> Iterator[bytes]:
    """Decompress in pieces of limited size, so that a decompression bomb is rejected before it is in memory."""
    while not inflate.eof:
        try:
            piece = inflate.decompress(chunk, _CHUNK)
        except zlib.error:
            raise ToolError("The answer is compressed in a way that cannot be read.") from None
        yield piece
        chunk = inflate.unconsumed_tail
        if not chunk and len(piece) < _CHUNK:
            return


def _decode(data: bytes, charset: str, kind: str) -> str:
    if not charset and "html" in kind and (meta := _META_CHARSET.search(data[:2048])):
        charset = meta[1].decode()
    try:
        known = codecs.lookup(charset or "utf-8").name
    except LookupError:
        known = "utf-8"
    # Pages that declare gb2312 really contain GBK.
    known = {"gb2312": "gb18030", "gbk": "gb18030", "ascii": "utf-8"}.get(known, known)
    text = data.decode(known if known in _CHARSETS else "utf-8", "replace").removeprefix("\ufeff")
    if "\0" in text:
        raise ToolError("The answer is not text.")
    return text


def html_to_text(source: str, base: str = "") -> str:
    """Return the visible text of a page, with `# ` before headings, `- ` before items, and links as `[text](address)`.

    It has its own scanner, because `html.parser` takes quadratic time on unfinished comments and tags. Here, each
    branch either moves forward or ends the page.
    """
    page = _Page(base)
    for tag, attributes, text in _markup(source):
        page.add(tag, attributes, text)
        if page.size > MAX_TEXT:
            return page.text()[:MAX_TEXT] + "\n… the page is longer."
    return page.text()


_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)")
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s=>/"']+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]*)))?|[\s/]*(["'=])""")
_TAG_END = re.compile(r"[\s/]*>")
_RAW = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "noscript", "template", "svg")
}


def _markup(source: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Split HTML into `(tag, attributes, "")` and `("", {}, text)`; an end tag is `/tag`. Scripts are left out."""
    position = 0
    while position < len(source):
        start = source.find("<", position)
        if start != position:
            yield "", {}, source[position : start if start >= 0 else None]
        if start < 0:
            return
        if source.startswith(("<!", "<?"), start):
            comment = source.startswith("<!--", start)
            end = source.find("-->" if comment else ">", start + 2)
            if end < 0:
                return
            position = end + (3 if comment else 1)
            continue
        tag = _TAG.match(source, start)
        if not tag:
            yield "", {}, "<"
            position = start + 1
            continue
        attributes: dict[str, str] = {}
        position = tag.end()
        while not (end_of_tag := _TAG_END.match(source, position)):
            found = _ATTRIBUTE.match(source, position)
            if not found:
                return
            if found[1]:
                attributes.setdefault(found[1].lower(), _unescape(found[2] or found[3] or found[4] or ""))
            position = found.end()
        position = end_of_tag.end()
        name = tag[2].lower()
        yield tag[1] + name, attributes, ""
        if not tag[1] and name in _RAW:
            closing = _RAW[name].search(source, position)
            if not closing:
                return
            position = closing.start()


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a numeric entity of more than 4300 digits
        return text


_BLOCKS = frozenset(
    """
    address article aside blockquote body br dd div dl dt fieldset figcaption figure footer form header hr li main nav
    ol option p pre section table title tr ul h1 h2 h3 h4 h5 h6
    """.split()
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_PARAGRAPHS = frozenset(("p", "pre", "title", *_HEADINGS))
_SPACE = re.compile(r"\s+")


class _Page:
    """Builds the text of a page; preformatted text is kept as it is."""

    def __init__(self, base: str) -> None:
        self.size = 0
        self._base = base
        self._lines: list[str] = []
        self._line: list[str] = []
        self._preformatted = 0
        self._link: tuple[str, int] | None = None

    def add(self, tag: str, attributes: dict[str, str], text: str) -> None:
        name = tag.removeprefix("/")
        if not tag:
            self.size += len(text)
            self._add_text(_unescape(text))
        elif name == "a":
            self._close_link()
            if tag == "a" and attributes.get("href"):
                self._link = (attributes["href"], len(self._line))
        elif name in ("td", "th"):
            self._line.append(" | " if tag == name and self._line else " ")
        elif name in _BLOCKS:
            self._end_line(blank=name in _PARAGRAPHS)
            if name == "pre":
                self._preformatted = max(0, self._preformatted + (1 if tag == name else -1))
            if tag == "li":
                self._line.append("- ")
            elif tag in _HEADINGS:
                self._line.append(_HEADINGS[tag])

    def text(self) -> str:
        self._end_line()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip()

    def _add_text(self, text: str) -> None:
        if not self._preformatted:
            self._line.append(text)
            return
        first, *others = text.split("\n")
        self._line.append(first)
        for line in others:
            self._end_line()
            self._line.append(line)

    def _close_link(self) -> None:
        if self._link is None:
            return
        (address, start), self._link = self._link, None
        words = _SPACE.sub(" ", "".join(self._line[start:])).strip()
        try:
            address = urljoin(self._base, address) if words else ""
        except ValueError:
            return
        if len(address) <= MAX_URL and address.startswith(("http://", "https://")):
            self._line[start:] = [f" [{words}]({address}) "]
            self.size += len(address)

    def _end_line(self, *, blank: bool = False) -> None:
        self._close_link()
        line = "".join(self._line)
        self._line.clear()
        line = line.rstrip() if self._preformatted else _SPACE.sub(" ", line).strip()
        if line or self._preformatted:
            self._lines.append(line)
        if blank:
            self._lines.append("")
