"""asyncio sockets, each operation clipped to the clocks of the request it serves.

Closing never waits and never suspends, so a cancelled task frees its socket at once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import Literal, cast

from lmagent.http.clocks import Clocks
from lmagent.http.sockets import Addresses, addresses_of, readable, shared_out

__all__ = ["AsyncSocketStream", "async_connect"]

_HIGH_WATER = 256 * 1024


class _Protocol(asyncio.Protocol):
    """Collects what arrives until it is read; stops reading when nobody does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport
        self.pieces: list[bytes] = []
        self.size = 0
        self.ended = False
        self.failure: Exception | None = None
        self.reading: asyncio.Future[None] | None = None
        self.writing: asyncio.Future[None] | None = None
        self.full = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)
        if self.size > _HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        _wake(self.reading)

    def eof_received(self) -> bool:
        self.ended = True
        _wake(self.reading)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.failure = exc
        _wake(self.reading)
        _wake(self.writing)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        _wake(self.writing)

    def take(self) -> bytes:
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces, self.size = [], 0
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return data


def _wake(future: asyncio.Future[None] | None) -> None:
    if future and not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class AsyncSocketStream:
    """One connected socket of one event loop. Raises `RequestTimeout` and `OSError`."""

    __slots__ = ("_clocks", "_protocol")

    def __init__(self, protocol: _Protocol, clocks: Clocks) -> None:
        self._protocol = protocol
        self._clocks = clocks

    async def _wait(self, name: Literal["reading", "writing"], seconds: float) -> None:
        protocol = self._protocol
        future: asyncio.Future[None] = protocol.loop.create_future()
        setattr(protocol, name, future)
        timer = protocol.loop.call_later(seconds, _fail, future)
        try:
            await future
        except TimeoutError as error:
            raise self._clocks.too_long(error) from error
        finally:
            timer.cancel()
            setattr(protocol, name, None)

    async def read(self) -> bytes:
        """Return what there is, waiting for it; empty at the end."""
        clocks, protocol = self._clocks, self._protocol
        left = clocks.left(clocks.idle)
        if not protocol.pieces and not protocol.ended:
            await self._wait("reading", left)
        if protocol.pieces:
            clocks.received = True
            return protocol.take()
        if protocol.failure:
            raise protocol.failure
        return b""

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        clocks, protocol = self._clocks, self._protocol
        left = clocks.left(clocks.idle)
        if protocol.ended or protocol.transport.is_closing():
            raise protocol.failure or ConnectionResetError("the connection is closed")
        protocol.transport.write(data)
        del data  # it holds the key: a traceback that shows locals must not
        while protocol.full and not protocol.ended:
            await self._wait("writing", left)
            left = clocks.left(clocks.idle)
        if protocol.failure:
            raise protocol.failure

    def alive(self) -> bool:
        """Whether the peer has kept the resting connection open."""
        protocol = self._protocol
        if protocol.ended or protocol.pieces or protocol.transport.is_closing():
            return False
        return not readable(protocol.transport.get_extra_info("socket"))

    def close(self) -> None:
        """Close now, without waiting."""
        with suppress(RuntimeError):  # the loop is closed: the socket goes with the transport
            self._protocol.transport.abort()


async def async_connect(host: str, port: int, clocks: Clocks, context: ssl.SSLContext | None) -> AsyncSocketStream:
    """Return a new connection, as `sockets.connect`."""
    loop = asyncio.get_running_loop()
    until = monotonic() + clocks.connect
    try:
        async with asyncio.timeout(clocks.left(clocks.connect)):
            found = addresses_of(host, port)
            addresses = found.result() if found.done() else await asyncio.wrap_future(found)
            sock = await _reached(loop, addresses, until)
            _, protocol = await loop.create_connection(
                lambda: _Protocol(loop), sock=sock, ssl=context, server_hostname=host if context else None
            )
    except TimeoutError as error:
        raise clocks.too_long(error, "connect") from error
    return AsyncSocketStream(protocol, clocks)


async def _reached(loop: asyncio.AbstractEventLoop, addresses: Addresses, until: float) -> socket.socket:
    # Not create_connection's own race of addresses (happy eyeballs): when it is cancelled it loses a socket.
    failure = OSError("the name has no address")
    for kind, address, share in shared_out(addresses, until):
        sock = socket.socket(*kind)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(share):
                await loop.sock_connect(sock, address)
            return sock
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            failure = error
    raise failure
