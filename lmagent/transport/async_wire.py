"""One request over a connection of `AsyncPool`: `wire.py`, asynchronous."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Any

import httpcore

from lmagent.errors import ResponseTooLarge
from lmagent.providers.base import Request
from lmagent.transport.address import address_of
from lmagent.transport.async_pool import AsyncPool
from lmagent.transport.base import Timeouts
from lmagent.transport.bodies import Body
from lmagent.transport.failures import as_ours, refuse_redirect
from lmagent.transport.pool import Lane
from lmagent.transport.wire import header_map, wire_request

__all__ = ["AsyncWire", "async_open_wire"]


async def async_open_wire(
    pool: AsyncPool, request: Request, proxy: str | None, timeouts: Timeouts, deadline: float, limit: int
) -> AsyncWire:
    """Send `request`; return once status and headers are there."""
    address = address_of(request.url)
    while True:
        lane = await pool.take(address, proxy, deadline)
        try:
            lane.clocks.start(timeouts, deadline)
            connection = await pool.connect(lane, address)
            response = await connection.handle_async_request(wire_request(request))
            return AsyncWire(pool, lane, response, limit)
        except BaseException as error:
            await pool.give_back(lane)
            stale = lane.used and not lane.clocks.received
            if stale and isinstance(error, httpcore.NetworkError | httpcore.RemoteProtocolError):
                continue
            if isinstance(error, Exception):
                raise as_ours(error, lane.clocks.received) from error
            raise


class AsyncWire:
    """An answer whose body has not been read."""

    def __init__(self, pool: AsyncPool, lane: Lane[Any], response: httpcore.Response, limit: int) -> None:
        self.status = response.status
        self.headers = header_map(response.headers)
        self._pool = pool
        self._lane = lane
        self._response = response
        self._closed = False
        refuse_redirect(self.status, self.headers)
        self._body = Body(self.headers, limit)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the decoded body as it arrives."""
        body = self._body
        try:
            async for data in self._response.aiter_stream():
                if body.plain:
                    yield body.count(data)
                else:
                    for piece in body.feed(data):
                        yield piece
        except Exception as error:
            raise as_ours(error, True) from error
        finally:
            await self.aclose()

    async def read(self, limit: int) -> bytes:
        """Return the whole decoded body."""
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self.chunks()) as chunks:
            async for piece in chunks:
                size += len(piece)
                if size > limit:
                    raise ResponseTooLarge(f"The answer is longer than {limit} bytes.")
                pieces.append(piece)
        return b"".join(pieces)

    def end_soon(self, seconds: float) -> None:
        """Let what is still read of the body take at most `seconds`."""
        clocks = self._lane.clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)

    async def aclose(self) -> None:
        """Free the connection: kept if the body was read to its end, closed otherwise."""
        if not self._closed:
            self._closed = True
            try:
                await self._response.aclose()
            finally:
                await self._pool.give_back(self._lane)
