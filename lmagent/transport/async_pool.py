"""`Pool` for one event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from time import monotonic
from typing import Any

import httpcore

from lmagent.transport.address import Address
from lmagent.transport.async_sockets import AsyncSocketBackend, AsyncSocketStream
from lmagent.transport.clocks import out_of_time
from lmagent.transport.pool import IdleStacks, Lane, proxy_of, resting, tls_context

__all__ = ["AsyncPool"]


class AsyncPool:
    """Connections of one event loop. Make it with `await AsyncPool.open(...)`."""

    def __init__(self, ssl_context: ssl.SSLContext | None, max_connections: int) -> None:
        self._ssl = ssl_context
        self._idle: IdleStacks[Any] = IdleStacks()
        self._permits = asyncio.Semaphore(max_connections)
        self._keeper = _closing_with_the_loop(self._idle)

    @classmethod
    async def open(cls, ssl_context: ssl.SSLContext | None, max_connections: int) -> AsyncPool:
        """Return a pool of the running loop that closes with the loop, or when it is dropped."""
        pool = cls(ssl_context, max_connections)
        await anext(pool._keeper)
        return pool

    async def take(self, address: Address, proxy: str | None, deadline: float) -> Lane[Any]:
        """Return a lane to `address`, as `Pool.take`."""
        if self._permits.locked():
            try:
                async with asyncio.timeout(max(deadline - monotonic(), 0)):
                    await self._permits.acquire()
            except TimeoutError as error:
                raise out_of_time() from error
        else:
            await self._permits.acquire()
        key = (address.scheme, address.host, address.port, proxy)
        lane, dead = self._idle.take(key)
        for connection in dead:
            await connection.aclose()
        return lane or Lane(key)

    async def connect(self, lane: Lane[Any], address: Address) -> Any:
        """Return the lane's connection, made anew if it has none."""
        if lane.connection is None:
            backend = AsyncSocketBackend(lane.clocks)
            context = (self._ssl or tls_context()) if address.scheme == "https" else None
            proxy: str | None = lane.key[3]
            if proxy:
                lane.connection = httpcore.AsyncConnectionPool(
                    ssl_context=context, max_connections=1, proxy=proxy_of(proxy), network_backend=backend
                )
            else:
                stream: AsyncSocketStream = await backend.connect_tcp(address.host, address.port)
                if context:
                    stream = await stream.start_tls(context, address.host)
                origin = httpcore.Origin(address.scheme.encode(), address.host.encode(), address.port)
                lane.connection = httpcore.AsyncHTTP11Connection(origin, stream)
        return lane.connection

    async def give_back(self, lane: Lane[Any]) -> None:
        """Take a lane back, as `Pool.give_back`."""
        self._permits.release()
        if lane.connection is None:
            return
        for each in self._idle.put(lane) if resting(lane.connection) else [lane.connection]:
            await each.aclose()

    async def aclose(self) -> None:
        """Close the idle connections; busy ones are closed as they come back."""
        await _close_all(self._idle)


async def _close_all(idle: IdleStacks[Any]) -> None:
    for connection in idle.clear():
        await connection.aclose()


async def _closing_with_the_loop(idle: IdleStacks[Any]) -> AsyncGenerator[None]:
    # asyncio closes every async generator that is still open when a loop ends (asyncio.run, Runner) and any that is
    # dropped: the one hook by which idle sockets close without the user's having to say so.
    try:
        yield
    finally:
        with suppress(RuntimeError):
            await _close_all(idle)
