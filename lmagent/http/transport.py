"""HTTP behind the transport seam: `HttpTransport`.

How it works. httpcore2 writes, reads and judges HTTP: each connection here is one of its connection classes (direct,
through an http proxy, through a tunnel, or SOCKS; HTTP/1.1 or HTTP/2), without its pool, which walks all its
connections for each request. Around them are four parts, all ours:

- `network.py` and `async_network.py`, below httpcore2: its network backends. Every wait ends with the clocks of the
  call, and many small chunks that came together are read as one.
- `pool.py`: idle connections on a stack by route, one pool for the threads of the process and one for each event loop,
  shared by all transports, and a bound on connections that respects the file descriptors that the process may open.
- `calls.py`: one request and its response. A kept connection that the peer has closed meanwhile is replaced once,
  silently. Errors of the network, of TLS and of HTTP become errors of lmagent there; any other leaves as it is.
- `wire.py`: header lines, decoding of bodies with a limit, and the table of errors. No I/O.

A request goes: `open` finds the route (proxy or not) and calls `open_call`, which waits for a slot, takes a connection
from the stack, starts its clocks and hands the request to httpcore2. The response holds the connection until its body
is read to the end (then the connection is idle) or the response is closed (then the connection is closed). So
cancelling a task closes its socket at once.

A client of the user's goes another way: `open_with` uses what httpx and httpx2 have in common, and never closes it.

Nothing heavy is imported before the first request: httpcore2 takes 45 ms, and asyncio's part another 20.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from lmagent.errors import ConfigurationError
from lmagent.http.base import AsyncIncoming, Incoming, Timeouts
from lmagent.http.wire import OUT_OF_DESCRIPTORS, Address, address_of, out_of_descriptors
from lmagent.providers.base import Request

if TYPE_CHECKING:
    import ssl

    from lmagent.http.pool import Pool, Route, Slots

__all__ = ["HttpTransport"]

MAX_RESPONSE = 16 * 1024 * 1024
MAX_CONNECTIONS = 1000


class HttpTransport:
    """Sends requests over HTTP.

    Args:
        client: An `httpx2.Client` or `httpx.Client` for the sync verbs. It stays yours: it is never closed here.
        async_client: An `AsyncClient` of httpx2 or httpx for the async verbs, yours as well.
        proxy: URL of a proxy (http, https; socks5 with `lmagent[socks]`). None: `HTTP_PROXY`, `HTTPS_PROXY`,
            `ALL_PROXY` and `NO_PROXY` of the environment decide; `""`: no proxy whatever the environment says.
        http2: Offer HTTP/2 to https servers (with `lmagent[http2]`); one request at a time on a connection.
        ssl_context: Instead of the process's own, which trusts the system's authorities (or those of `SSL_CERT_FILE`
            or `SSL_CERT_DIR`).
        max_connections: Most requests in flight, for the sync verbs and for each event loop; further ones wait. All
            transports together have no more than the file descriptors of the process allow.
        max_response_bytes: Longest answer, counted after decoding.
    """

    def __init__(
        self,
        *,
        client: Any = None,
        async_client: Any = None,
        proxy: str | None = None,
        http2: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_response_bytes: int = MAX_RESPONSE,
    ) -> None:
        if http2 and find_spec("h2") is None:
            raise ConfigurationError("http2=True needs one more package: pip install 'lmagent[http2]'.")
        self.max_response_bytes = max_response_bytes
        self._client = client
        self._async_client = async_client
        self._proxy = proxy
        self._http2 = http2
        self._ssl = ssl_context
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._uses: WeakKeyDictionary[Pool, _Use] = WeakKeyDictionary()

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> Incoming:
        """Send `request` and return once status and headers are there. See `Transport.open`."""
        calls = _calls or _loaded()
        address = address_of(request.url)
        if self._client is not None:
            return calls.open_with(self._client, address, request, timeouts, deadline, self.max_response_bytes)
        pool = calls.SHARED.threads
        slots, route = self._way(pool, request.url, address)
        return calls.open_call(pool, slots, route, address, request, timeouts, deadline, self.max_response_bytes)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncIncoming:
        """Send `request` and return once status and headers are there. See `Transport.async_open`."""
        calls = _async_calls or _loaded(asynchronous=True)
        address = address_of(request.url)
        limit = self.max_response_bytes
        if self._async_client is not None:
            return await calls.async_open_with(self._async_client, address, request, timeouts, deadline, limit)
        pool = calls.SHARED.running_pool() or await calls.SHARED.pool_of_loop()
        slots, route = self._way(pool, request.url, address)
        return await calls.async_open_call(pool, slots, route, address, request, timeouts, deadline, limit)

    def _way(self, pool: Pool, url: str, address: Address) -> tuple[tuple[Slots, ...], Route]:
        """Return the bounds that a request must pass and the route it takes."""
        use = self._uses.get(pool) or self._begin_use(pool)
        proxy = _environment_proxy(address) if self._proxy is None else self._proxy
        return use.slots, use.routes.get((url, proxy)) or self._add_route(pool, use, url, address, proxy)

    def _begin_use(self, pool: Pool) -> _Use:
        from lmagent.http.pool import SHARED, Slots

        own = (Slots(self._max_connections),) if self._max_connections < SHARED.slots.limit else ()
        with self._lock:
            return self._uses.setdefault(pool, _Use((*own, SHARED.slots), {}))

    def _add_route(self, pool: Pool, use: _Use, url: str, address: Address, proxy: str) -> Route:
        from lmagent.http.pool import Route

        secure = address.scheme == "https"
        context = self._ssl if secure or proxy.startswith("https:") else None
        route = Route(*address[:3], proxy, context, self._http2 and secure)
        with self._lock:
            if route not in use.routes.values():
                pool.use(route)
            use.routes[url, proxy] = route
        return route

    def close(self) -> None:
        """Close the idle connections of the sync verbs that no other transport uses. The transport stays usable."""
        self._leave(loop=False)

    async def aclose(self) -> None:
        """Close the idle connections of this event loop and of the sync verbs that no other transport uses. The
        transport stays usable."""
        self._leave(loop=True)

    def _leave(self, *, loop: bool) -> None:
        if not self._uses:
            return
        from lmagent.http.pool import SHARED

        here = SHARED.running_pool() if loop else None
        for pool in list(self._uses):
            if pool in (SHARED.threads, here):
                self._end_use(pool)

    def _end_use(self, pool: Pool) -> None:
        with self._lock:
            use = self._uses.pop(pool, None)
        for route in set(use.routes.values()) if use else ():
            pool.leave(route)

    def __del__(self) -> None:
        if not sys.is_finalizing():
            for pool in list(getattr(self, "_uses", ())):
                self._end_use(pool)


class _Use(NamedTuple):
    """What a transport uses of one pool."""

    slots: tuple[Slots, ...]
    routes: dict[tuple[str, str], Route]
    """By URL and proxy."""


_calls: Any = None
_async_calls: Any = None


def _loaded(*, asynchronous: bool = False) -> Any:
    """Return `lmagent.http.calls`, imported with the first request: httpcore2, sockets, TLS and h11."""
    global _calls, _async_calls
    try:
        from lmagent.http import calls

        if asynchronous:
            import_module("lmagent.http.async_network")
            _async_calls = calls
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            raise out_of_descriptors() from error
        raise
    _calls = calls
    return calls


def _environment(name: str) -> str:
    value = os.environ.get(name)
    return os.environ.get(name.upper(), "") if value is None else value


def _environment_proxy(address: Address) -> str:
    """Return the proxy that the environment names for `address`, or nothing. Read as httpx2 reads it."""
    proxy = _environment(f"{address.scheme}_proxy")
    if proxy and address.scheme == "http" and "REQUEST_METHOD" in os.environ:
        proxy = os.environ.get("http_proxy") or ""  # a CGI script: HTTP_PROXY is a visitor's header
    proxy = proxy or _environment("all_proxy")
    if proxy:
        excepted = _environment("no_proxy").lower().split(",")
        if any(_excepts(entry.strip(), address) for entry in excepted):
            return ""
    return proxy


def _excepts(entry: str, address: Address) -> bool:
    """Whether an entry of `NO_PROXY` is meant for `address`: a name, `.name` or `*.name` (only below it), an IPv4 or
    IPv6 address, a network in CIDR notation, each perhaps with a scheme or a port; `*` for all."""
    if not entry or entry == "*":
        return entry == "*"
    import ipaddress  # only where a proxy and its exceptions are in use

    scheme, mark, rest = entry.rpartition("://")
    if mark and scheme not in ("all", address.scheme):
        return False
    if not rest.startswith("["):
        try:
            return ipaddress.ip_address(address.host) in ipaddress.ip_network(rest, strict=False)
        except ValueError:
            pass  # one of them is a name
    name, _, port = rest.rpartition(":") if rest.rpartition(":")[2].isdecimal() else (rest, "", "")
    name = name.removeprefix("[").removesuffix("]")
    if port and int(port) != address.port:
        return False
    below = name.removeprefix("*").removeprefix(".")
    if name != below:
        return address.host.endswith(f".{below}")
    return address.host == name or (not mark and name != "localhost" and address.host.endswith(f".{name}"))
