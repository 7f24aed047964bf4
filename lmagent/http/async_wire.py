"""One request over a connection of `AsyncPool`: `wire.py`, asynchronous."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import monotonic

from lmagent.errors import ResponseTooLarge
from lmagent.http.address import address_of, refuse_odd_headers
from lmagent.http.async_pool import AsyncPool
from lmagent.http.async_sockets import AsyncSocketStream
from lmagent.http.base import Timeouts
from lmagent.http.bodies import Body
from lmagent.http.failures import as_ours, refuse_redirect
from lmagent.http.pool import Lane
from lmagent.providers.base import Request

__all__ = ["AsyncWire", "async_open_wire"]


async def async_open_wire(
    pool: AsyncPool, request: Request, timeouts: Timeouts, deadline: float, limit: int
) -> AsyncWire:
    """Send `request`; return once status and headers are there."""
    address = address_of(request.url)
    refuse_odd_headers(request)
    fresh = False
    while True:
        lane = await pool.take(address, deadline, fresh=fresh)
        try:
            lane.clocks.start(timeouts, deadline)
            stream = await pool.connected(lane, address)
            try:
                # No name for the bytes: they hold the key, and a traceback may show what names hold.
                await stream.write(lane.dialogue.request(address, request))
            except ConnectionError:
                if lane.used:
                    raise
                # A server may refuse a request before it has read all of it: then its answer is there to be read.
            head = None
            while head is None:
                head = lane.dialogue.head(await stream.read())
            return AsyncWire(pool, lane, stream, head, limit)
        except BaseException as error:
            pool.give_back(lane)
            # The peer closed a kept connection while the request was under way: it cannot have been answered.
            if lane.used and not lane.clocks.received and isinstance(error, ConnectionError):
                fresh = True
                continue
            if isinstance(error, Exception):
                raise as_ours(error, received=lane.clocks.received) from error
            raise


class AsyncWire:
    """An answer whose body has not been read."""

    __slots__ = ("_body", "_lane", "_open", "_pool", "_stream", "headers", "status")

    def __init__(
        self,
        pool: AsyncPool,
        lane: Lane[AsyncSocketStream],
        stream: AsyncSocketStream,
        head: tuple[int, Mapping[str, str]],
        limit: int,
    ) -> None:
        self.status, self.headers = head
        self._pool = pool
        self._lane = lane
        self._stream = stream
        refuse_redirect(self.status, self.headers)
        self._body = Body(self.headers, limit)
        self._open = True

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the decoded body as it arrives."""
        body, dialogue = self._body, self._lane.dialogue
        try:
            ended = not self._open
            while not ended:
                data, ended = dialogue.body()
                if body.plain:
                    if data:
                        yield body.count(data)
                else:
                    for piece in body.feed(data):
                        yield piece
                if not self._open:  # closed by the reader meanwhile
                    return
                if not ended:
                    dialogue.receive(await self._stream.read())
        except Exception as error:
            raise as_ours(error, received=True) from error
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
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end_soon(self, seconds: float) -> None:
        """Let what is still read of the body take at most `seconds`."""
        clocks = self._lane.clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)

    async def aclose(self) -> None:
        """Free the connection: kept if the body was read to its end, closed otherwise."""
        if self._open:
            self._open = False
            self._pool.give_back(self._lane)
