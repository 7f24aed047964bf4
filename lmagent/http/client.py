"""Requests through an httpx client: the user's own, which is never closed here, or one for a proxy.

Its clocks are httpx's, set for each request to what the deadline leaves; the deadline itself is checked between pieces
and, in the async colour, bounds every wait. (A blocking client gives no hold on a server that drips its header bytes:
there each byte has the whole idle time.)
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Any

import httpx
from h11 import LocalProtocolError

from lmagent.core.redaction import SecretFilter
from lmagent.errors import ConfigurationError, ConnectionFailed, RequestTimeout, ResponseTooLarge
from lmagent.http.address import address_of, header_lines, refuse_odd_headers, target_of
from lmagent.http.base import AsyncIncoming, Incoming, Timeouts
from lmagent.http.bodies import Body
from lmagent.http.clocks import Clocks, out_of_time
from lmagent.http.failures import as_ours, refuse_redirect
from lmagent.http.pool import tls_context
from lmagent.providers.base import Request

__all__ = ["KeptClients", "async_open_with", "client_for", "open_with"]


def _options(proxy: str, context: ssl.SSLContext | None, max_connections: int) -> dict[str, Any]:
    try:
        return {
            "proxy": httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}"),
            "verify": context or tls_context(),
            "trust_env": False,
            "limits": httpx.Limits(max_connections=max_connections, max_keepalive_connections=None),
            # No domain may set a cookie: nothing is carried from one call to the next.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        }
    except ValueError as error:
        raise ConfigurationError(
            "The proxy is not a URL of the form http://host:port or socks5://host:port."
        ) from error


def client_for(proxy: str, context: ssl.SSLContext | None, max_connections: int) -> httpx.Client:
    """Return a client that goes through `proxy`.

    Raises:
        ConfigurationError: Not a proxy URL, or one that needs a package which is not installed.
    """
    options = _options(proxy, context, max_connections)
    try:
        return httpx.Client(**options)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"No way to this proxy: {error}") from error


def _fast_transport(
    proxy: httpx.Proxy, context: ssl.SSLContext, max_connections: int
) -> httpx.AsyncBaseTransport | None:
    """Return the transport of `lmagent[fast]`, if it is installed and speaks to such a proxy."""
    if proxy.url.scheme != "http":
        return None
    try:
        from lmagent.http.fast import ProxyTransport  # aiohttp: 180 ms
    except ImportError:
        return None
    return ProxyTransport(proxy, context, max_connections)


class KeptClients:
    """The proxied clients of one event loop. Make it with `await KeptClients.open()`."""

    def __init__(self) -> None:
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._keeper = _closing_with_the_loop(self._clients)

    @classmethod
    async def open(cls) -> KeptClients:
        """Return an empty one that closes with the running loop, or when it is dropped."""
        kept = cls()
        await anext(kept._keeper)
        return kept

    def client_for(self, proxy: str, context: ssl.SSLContext | None, max_connections: int) -> httpx.AsyncClient:
        """Return the client that goes through `proxy`. Raises as the function of this name."""
        if proxy not in self._clients:
            options = _options(proxy, context, max_connections)
            fast = _fast_transport(options["proxy"], options["verify"], max_connections)
            if fast is not None:
                options |= {"proxy": None, "transport": fast}
            try:
                self._clients[proxy] = httpx.AsyncClient(**options)
            except (ImportError, ValueError) as error:
                raise ConfigurationError(f"No way to this proxy: {error}") from error
        return self._clients[proxy]

    async def aclose(self) -> None:
        """Close them."""
        await self._keeper.aclose()


async def _closing_with_the_loop(clients: dict[str, httpx.AsyncClient]) -> AsyncGenerator[None]:
    # As in `async_pool`: asyncio closes open async generators when a loop ends.
    try:
        yield
    finally:
        while clients:
            await clients.popitem()[1].aclose()


def _clean_logs() -> None:
    """httpx logs each URL with its query, in which some providers want the token."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(each, SecretFilter) for each in logger.filters):
        logger.addFilter(SecretFilter())


def _built(client: httpx.Client | httpx.AsyncClient, request: Request, clocks: Clocks) -> httpx.Request:
    _clean_logs()
    address = address_of(request.url)
    refuse_odd_headers(request)
    idle = clocks.left(clocks.idle)
    return client.build_request(
        request.method,
        f"{address.scheme}://{address.host_header}{target_of(address, request)}",
        content=request.content,
        headers=[(name, value) for name, value in header_lines(address, request) if name != b"Host"],
        timeout=httpx.Timeout(idle, connect=clocks.left(clocks.connect)),
    )


def _as_ours(error: Exception, clocks: Clocks, *, received: bool = False) -> Exception:
    if isinstance(error, httpx.TimeoutException | TimeoutError) and not isinstance(error, RequestTimeout):
        return clocks.too_long(TimeoutError(), "connect" if isinstance(error, httpx.ConnectTimeout) else "read")
    if isinstance(error, httpx.LocalProtocolError):
        return as_ours(LocalProtocolError("refused"))
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return ConnectionFailed("The client that was handed in is closed.", retryable=False)
    return as_ours(error, received=received)


def open_with(client: httpx.Client, request: Request, timeouts: Timeouts, deadline: float, limit: int) -> Incoming:
    """Send `request` by `client`; return once status and headers are there."""
    clocks = Clocks()
    clocks.start(timeouts, deadline)
    try:
        response = client.send(_built(client, request, clocks), stream=True, auth=None, follow_redirects=False)
    except Exception as error:
        raise _as_ours(error, clocks) from error
    try:
        return _ClientAnswer(response, clocks, limit)
    except BaseException:
        response.close()
        raise


async def async_open_with(
    client: httpx.AsyncClient, request: Request, timeouts: Timeouts, deadline: float, limit: int
) -> AsyncIncoming:
    """Send `request` by `client`; return once status and headers are there."""
    clocks = Clocks()
    clocks.start(timeouts, deadline)
    try:
        async with asyncio.timeout(deadline - monotonic()):
            response = await client.send(
                _built(client, request, clocks), stream=True, auth=None, follow_redirects=False
            )
    except Exception as error:
        raise _as_ours(error, clocks) from error
    try:
        return _AsyncClientAnswer(response, clocks, limit)
    except BaseException:
        await response.aclose()
        raise


def _headers_of(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _coding_left(response: httpx.Response, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that say how the body is still coded: none when httpx has read and decoded it."""
    return {} if response.is_stream_consumed else headers


class _ClientAnswer:
    def __init__(self, response: httpx.Response, clocks: Clocks, limit: int) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = _headers_of(response)
        self._response = response
        self._clocks = clocks
        refuse_redirect(self.status, self.headers)
        self._body = Body(_coding_left(response, self.headers), limit)

    def chunks(self) -> Iterator[bytes]:
        body = self._body
        try:
            # A client's own transport may hand out answers that were read and decoded already (httpx.MockTransport).
            response = self._response
            for data in response.iter_bytes() if response.is_stream_consumed else response.iter_raw():
                yield from body.feed(data)
                if monotonic() >= self._clocks.deadline:
                    raise out_of_time()
        except Exception as error:
            raise _as_ours(error, self._clocks, received=True) from error
        finally:
            self.close()

    def read(self, limit: int) -> bytes:
        return b"".join(_bounded(piece, limit, total) for total, piece in _counted(self.chunks()))

    def close(self) -> None:
        self._response.close()


def _counted(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    total = 0
    for piece in pieces:
        total += len(piece)
        yield total, piece


def _bounded(piece: bytes, limit: int, total: int) -> bytes:
    if total > limit:
        raise ResponseTooLarge(f"The answer is longer than {limit} bytes.")
    return piece


class _AsyncClientAnswer:
    def __init__(self, response: httpx.Response, clocks: Clocks, limit: int) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = _headers_of(response)
        self._response = response
        self._clocks = clocks
        refuse_redirect(self.status, self.headers)
        self._body = Body(_coding_left(response, self.headers), limit)

    async def chunks(self) -> AsyncGenerator[bytes]:
        body, clocks = self._body, self._clocks
        try:
            response = self._response
            pieces = response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()
            while True:
                async with asyncio.timeout(clocks.deadline - monotonic()):
                    data = await anext(pieces, None)
                if data is None:
                    return
                for piece in body.feed(data):
                    yield piece
        except Exception as error:
            raise _as_ours(error, clocks, received=True) from error
        finally:
            await self.aclose()

    async def read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        total = 0
        async with aclosing(self.chunks()) as chunks:
            async for piece in chunks:
                total += len(piece)
                pieces.append(_bounded(piece, limit, total))
        return b"".join(pieces)

    def end_soon(self, seconds: float) -> None:
        clocks = self._clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)

    async def aclose(self) -> None:
        await self._response.aclose()
