"""Requests through an httpx client of the user's own. It is never closed here, and its pool is its own affair.

Its clocks are httpx's, set for each request to what the deadline leaves; the deadline itself is checked between pieces
and, in the async colour, bounds every wait. (A blocking client gives no hold on a server that drips its header bytes:
there each byte has the whole idle time.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from time import monotonic

import httpx

from lmagent.errors import ConnectionFailed, RequestTimeout, ResponseTooLarge
from lmagent.providers.base import Request
from lmagent.redaction import SecretFilter
from lmagent.transport.address import address_of, header_lines, target_of
from lmagent.transport.base import AsyncIncoming, Incoming, Timeouts
from lmagent.transport.bodies import Body
from lmagent.transport.clocks import Clocks, out_of_time
from lmagent.transport.failures import as_ours, refuse_redirect

__all__ = ["async_open_with", "open_with"]


def _clean_logs() -> None:
    """httpx logs each URL with its query, in which some providers want the token."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(each, SecretFilter) for each in logger.filters):
        logger.addFilter(SecretFilter())


def _built(client: httpx.Client | httpx.AsyncClient, request: Request, clocks: Clocks) -> httpx.Request:
    _clean_logs()
    address = address_of(request.url)
    idle = clocks.left(clocks.idle)
    return client.build_request(
        request.method,
        f"{address.scheme}://{address.host_header}{target_of(address, request)}",
        content=request.content,
        headers=[(name, value) for name, value in header_lines(address, request) if name != b"Host"],
        timeout=httpx.Timeout(idle, connect=clocks.left(clocks.connect)),
    )


def _as_ours(error: Exception, clocks: Clocks, *, received: bool = False) -> Exception:
    if isinstance(error, httpx.ConnectTimeout):
        return clocks.connect_too_long()
    if isinstance(error, httpx.TimeoutException | TimeoutError) and not isinstance(error, RequestTimeout):
        return clocks.idle_too_long()
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return ConnectionFailed("The client that was handed in is closed.", retryable=False)
    return as_ours(error, received)


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


class _ClientAnswer:
    def __init__(self, response: httpx.Response, clocks: Clocks, limit: int) -> None:
        self.status = response.status_code
        self.headers = _headers_of(response)
        self._response = response
        self._clocks = clocks
        refuse_redirect(self.status, self.headers)
        self._body = Body(self.headers, limit)

    def chunks(self) -> Iterator[bytes]:
        body = self._body
        try:
            for data in self._response.iter_raw():
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
        self.headers = _headers_of(response)
        self._response = response
        self._clocks = clocks
        refuse_redirect(self.status, self.headers)
        self._body = Body(self.headers, limit)

    async def chunks(self) -> AsyncGenerator[bytes]:
        body, clocks = self._body, self._clocks
        try:
            async with aclosing(self._response.aiter_raw()) as pieces:
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

    async def aclose(self) -> None:
        await self._response.aclose()
