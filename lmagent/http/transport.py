"""HTTP behind the transport seam: `HttpTransport`, which opens connections lazily and keeps them by origin.

It speaks HTTP/1.1 by h11, which httpx is built on too, over connections from pools of its own: they do not slow down
under concurrency, and every wait ends with its clock. Proxies, and a client that is handed in, go through httpx's
public API; a client of the user's is never closed. Nothing heavy is imported before the first request.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lmagent.http.address import address_of
from lmagent.http.base import AsyncIncoming, Incoming, Timeouts
from lmagent.providers.base import Request

if TYPE_CHECKING:
    import ssl
    from asyncio import AbstractEventLoop

    import httpx

    from lmagent.http.async_pool import AsyncPool
    from lmagent.http.client import KeptClients
    from lmagent.http.pool import Pool

__all__ = ["HttpTransport"]

MAX_RESPONSE = 16 * 1024 * 1024
MAX_CONNECTIONS = 1000


class HttpTransport:
    """Sends requests over HTTP/1.1.

    Args:
        client: An `httpx.Client` for the sync verbs. It stays yours: it is never closed here.
        async_client: An `httpx.AsyncClient` for the async verbs, yours as well.
        proxy: URL of a proxy (http, https; socks5 when `socksio` is installed). None: `HTTP_PROXY`, `HTTPS_PROXY`,
            `ALL_PROXY` and `NO_PROXY` of the environment decide; `""`: no proxy whatever the environment says.
            Many async requests at once through an http proxy are a thirteenth of the work with `lmagent[fast]`.
        ssl_context: Instead of the process's own, which trusts certifi's roots (or `SSL_CERT_FILE`, `SSL_CERT_DIR`).
        max_connections: Most requests in flight, for the sync verbs and for each event loop; further ones wait.
        max_response_bytes: Longest answer, counted after decoding.
    """

    def __init__(
        self,
        *,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_response_bytes: int = MAX_RESPONSE,
    ) -> None:
        self.max_response_bytes = max_response_bytes
        self._client = client
        self._async_client = async_client
        self._proxy = proxy
        self._ssl = ssl_context
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._clients: dict[tuple[int, str], httpx.Client] = {}
        """By process, because after a fork the connections stay the parent's, and proxy."""
        self._pools: WeakKeyDictionary[AbstractEventLoop, AsyncPool] = WeakKeyDictionary()
        self._async_clients: WeakKeyDictionary[AbstractEventLoop, KeptClients] = WeakKeyDictionary()

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> Incoming:
        """Send `request` and return once status and headers are there. See `Transport.open`."""
        client = self._client or self._proxied(request.url)
        if client is not None:
            from lmagent.http.client import open_with  # httpx, for those who need it: 130 ms

            return open_with(client, request, timeouts, deadline, self.max_response_bytes)
        from lmagent.http.wire import open_wire  # sockets, TLS and h11: loaded with the first request

        pool = self._pool
        if pool is None or pool.process != os.getpid():
            pool = self._make_pool()
        return open_wire(pool, request, timeouts, deadline, self.max_response_bytes)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncIncoming:
        """Send `request` and return once status and headers are there. See `Transport.async_open`."""
        client = self._async_client or await self._async_proxied(request.url)
        if client is not None:
            from lmagent.http.client import async_open_with

            return await async_open_with(client, request, timeouts, deadline, self.max_response_bytes)
        from asyncio import get_running_loop  # there already: someone runs a loop

        from lmagent.http.async_wire import async_open_wire

        pool = self._pools.get(get_running_loop()) or await self._make_async_pool()
        return await async_open_wire(pool, request, timeouts, deadline, self.max_response_bytes)

    def _make_pool(self) -> Pool:
        from lmagent.http.pool import Pool

        with self._lock:
            if self._pool is None or self._pool.process != os.getpid():
                self._pool = Pool(self._ssl, self._max_connections)
            return self._pool

    async def _make_async_pool(self) -> AsyncPool:
        from asyncio import get_running_loop

        from lmagent.http.async_pool import AsyncPool

        pool = await AsyncPool.open(self._ssl, self._max_connections)
        # Another task may have been faster; the pool made in vain holds nothing yet.
        return self._pools.setdefault(get_running_loop(), pool)

    def _proxied(self, url: str) -> httpx.Client | None:
        """Return the client for the proxy that `url` needs, if it needs one."""
        proxy = self._proxy_for(url)
        if not proxy:
            return None
        from lmagent.http.client import client_for

        with self._lock:
            key = (os.getpid(), proxy)
            if key not in self._clients:
                self._clients[key] = client_for(proxy, self._ssl, self._max_connections)
            return self._clients[key]

    async def _async_proxied(self, url: str) -> httpx.AsyncClient | None:
        proxy = self._proxy_for(url)
        if not proxy:
            return None
        from asyncio import get_running_loop

        from lmagent.http.client import KeptClients

        kept = self._async_clients.get(get_running_loop())
        if kept is None:
            kept = self._async_clients.setdefault(get_running_loop(), await KeptClients.open())
        return kept.client_for(proxy, self._ssl, self._max_connections)

    def _proxy_for(self, url: str) -> str | None:
        return _environment_proxy(url) if self._proxy is None else self._proxy

    def close(self) -> None:
        """Close the connections of the sync verbs. The transport stays usable."""
        if self._pool is not None:
            self._pool.close()
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop and of the sync verbs. The transport stays usable."""
        from asyncio import get_running_loop

        pool = self._pools.get(get_running_loop())
        if pool is not None:
            pool.close()
        kept = self._async_clients.pop(get_running_loop(), None)
        if kept is not None:
            await kept.aclose()
        self.close()


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def _environment_proxy(url: str) -> str:
    """Return the proxy that the environment names for `url`, or nothing."""
    everywhere = _environment("all_proxy")
    proxies = {scheme: _environment(f"{scheme}_proxy") or everywhere for scheme in ("http", "https")}
    if "REQUEST_METHOD" in os.environ:  # a CGI script: there HTTP_PROXY is a header of the visitor's
        proxies["http"] = os.environ.get("http_proxy") or everywhere
    if not any(proxies.values()):
        return ""
    address = address_of(url)
    for entry in _environment("no_proxy").lower().split(","):
        name = entry.strip().removeprefix("*.").lstrip(".")
        name, _, port = name.partition(":") if name.count(":") == 1 else (name, "", "")
        fits = name == "*" or (bool(name) and (address.host == name or address.host.endswith(f".{name}")))
        if fits and port in ("", str(address.port)):
            return ""
    return proxies[address.scheme]
