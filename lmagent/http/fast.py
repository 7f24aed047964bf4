"""Asynchronous requests through a proxy on aiohttp, where the extra `lmagent[fast]` is installed.

httpx's own pool walks all its connections for each request: nine tenths of the work when 256 run at once. This is a
transport of an httpx client and knows nothing of our requests.
"""

from __future__ import annotations

import ssl
from base64 import b64encode

import httpx
from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from httpx_aiohttp import AiohttpTransport

__all__ = ["ProxyTransport"]


class ProxyTransport(AiohttpTransport):
    """For one event loop.

    Args:
        proxy: One that is spoken to in plain HTTP; what is https goes through it in a tunnel.
        context: TLS of the servers behind the proxy.
        max_connections: Most requests in flight.
    """

    def __init__(self, proxy: httpx.Proxy, context: ssl.SSLContext, max_connections: int) -> None:
        def session() -> ClientSession:
            connector = TCPConnector(limit=max_connections, ssl=context)
            # aiohttp has cookies of its own, beneath httpx's: nothing is carried from one call to the next.
            return ClientSession(connector=connector, cookie_jar=DummyCookieJar())

        super().__init__(verify=context, trust_env=False, proxy=_with_credentials_in_headers(proxy), client=session)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`. Raises httpx's errors."""
        try:
            return await super().handle_async_request(request)
        except httpx.ConnectTimeout as error:
            # httpx-aiohttp 0.2 says so of every connection that fails, also of one that was refused or broke.
            if isinstance(error.__cause__, TimeoutError):
                raise
            raise httpx.ConnectError(str(error)) from error


def _with_credentials_in_headers(proxy: httpx.Proxy) -> httpx.Proxy:
    """Spare aiohttp its deprecated `BasicAuth`; it makes `Proxy-Authorization` of this header."""
    if proxy.auth is None:
        return proxy
    credentials = b64encode(":".join(proxy.auth).encode()).decode()
    return httpx.Proxy(proxy.url, headers={"Authorization": f"Basic {credentials}"})
