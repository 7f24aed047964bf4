"""`Pool` for one event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from time import monotonic

from lmagent.http.address import Address
from lmagent.http.async_sockets import AsyncSocketStream, async_connect
from lmagent.http.clocks import out_of_time
from lmagent.http.pool import IdleStacks, Lane, tls_context

__all__ = ["AsyncPool"]


class AsyncPool:
    """Connections of one event loop. Make it with `await AsyncPool.open(...)`."""

    def __init__(self, ssl_context: ssl.SSLContext | None, max_connections: int) -> None:
        self._ssl = ssl_context
        self._idle: IdleStacks[AsyncSocketStream] = IdleStacks()
        self._permits = asyncio.Semaphore(max_connections)
        self._keeper = _closing_with_the_loop(self._idle)

    @classmethod
    async def open(cls, ssl_context: ssl.SSLContext | None, max_connections: int) -> AsyncPool:
        """Return a pool of the running loop that closes with the loop, or when it is dropped."""
        pool = cls(ssl_context, max_connections)
        await anext(pool._keeper)
        return pool

    async def take(self, address: Address, deadline: float, *, fresh: bool = False) -> Lane[AsyncSocketStream]:
        """Return a lane to `address`, as `Pool.take`."""
        if self._permits.locked():
            try:
                async with asyncio.timeout(max(deadline - monotonic(), 0)):
                    await self._permits.acquire()
            except TimeoutError as error:
                raise out_of_time() from error
        else:
            await self._permits.acquire()
        return Lane(address.origin) if fresh else self._idle.take(address.origin)

    async def connected(self, lane: Lane[AsyncSocketStream], address: Address) -> AsyncSocketStream:
        """Return the lane's connection, made now if it has none. The lane's clocks must run."""
        if lane.stream is None:
            context = (self._ssl or tls_context()) if address.scheme == "https" else None
            lane.stream = await async_connect(address.host, address.port, lane.clocks, context)
        return lane.stream

    def give_back(self, lane: Lane[AsyncSocketStream]) -> None:
        """Take a lane back, as `Pool.give_back`."""
        self._permits.release()
        self._idle.put(lane)

    def close(self) -> None:
        """Close the resting connections; busy ones are kept or closed as they come back."""
        self._idle.close()


async def _closing_with_the_loop(idle: IdleStacks[AsyncSocketStream]) -> AsyncGenerator[None]:
    # asyncio closes every async generator that is still open when a loop ends (asyncio.run, Runner), and any that is
    # dropped: the one hook by which resting sockets close without the user's having to say so.
    try:
        yield
    finally:
        idle.close()
