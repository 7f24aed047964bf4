"""HTTP behind the transport seam: `HttpTransport`, which opens connections lazily and keeps them by origin.

Without a client of the user's own it drives httpcore's connections directly (httpx's engine) from pools of ours, which
do not slow down under concurrency; a client that is handed in is used through httpx's public API and never closed.
Nothing heavy is imported before the first request.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from lmagent.providers.base import Request
from lmagent.transport.address import address_of
from lmagent.transport.base import AsyncIncoming, Incoming, Timeouts

if TYPE_CHECKING:
    import asyncio
    import ssl

    import httpx

    from lmagent.transport.async_pool import AsyncPool
    from lmagent.transport.pool import Pool

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
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPool] = weakref.WeakKeyDictionary()

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> Incoming:
        """Send `request` and return once status and headers are there. See `Transport.open`."""
        if self._client is not None:
            from lmagent.transport.client import open_with

            return open_with(self._client, request, timeouts, deadline, self.max_response_bytes)
        from lmagent.transport.wire import open_wire  # httpcore: 55 ms when the first request needs it

        pool = self._pool or self._make_pool()
        return open_wire(pool, request, self._proxy_for(request.url), timeouts, deadline, self.max_response_bytes)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncIncoming:
        """Send `request` and return once status and headers are there. See `Transport.async_open`."""
        if self._async_client is not None:
            from lmagent.transport.client import async_open_with

            return await async_open_with(self._async_client, request, timeouts, deadline, self.max_response_bytes)
        import asyncio  # loaded with the first async request

        from lmagent.transport.async_wire import async_open_wire

        pool = self._pools.get(asyncio.get_running_loop()) or await self._make_async_pool()
        return await async_open_wire(
            pool, request, self._proxy_for(request.url), timeouts, deadline, self.max_response_bytes
        )

    def _make_pool(self) -> Pool:
        from lmagent.transport.pool import Pool

        with self._lock:
            if self._pool is None:
                self._pool = Pool(self._ssl, self._max_connections)
            return self._pool

    async def _make_async_pool(self) -> AsyncPool:
        import asyncio

        from lmagent.transport.async_pool import AsyncPool

        pool = await AsyncPool.open(self._ssl, self._max_connections)
        # Another task may have been faster; the pool made in vain holds nothing yet.
        return self._pools.setdefault(asyncio.get_running_loop(), pool)

    def _proxy_for(self, url: str) -> str | None:
        if self._proxy is not None:
            return self._proxy or None
        return _environment_proxy(url)

    def close(self) -> None:
        """Close the connections of the sync verbs. The transport stays usable."""
        if self._pool is not None:
            self._pool.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop. The transport stays usable."""
        import asyncio

        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()
        self.close()


_PROXY_NAMES = frozenset({"http_proxy", "https_proxy", "all_proxy"})


def _environment_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for `url`."""
    if not any(name in os.environ or name.upper() in os.environ for name in _PROXY_NAMES):
        return None
    from urllib.request import getproxies_environment, proxy_bypass_environment  # 15 ms, for those who have a proxy

    proxies: dict[str, str] = getproxies_environment()
    address = address_of(url)
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(f"{address.host}:{address.port}", proxies):
        return None
    return proxy
