"""asyncio sockets for httpcore, each operation clipped to the clocks of the request it serves.

Closing never waits and never suspends, so a cancelled task frees its socket at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore

from lmagent.transport.clocks import Clocks
from lmagent.transport.sockets import readable

__all__ = ["AsyncSocketBackend", "AsyncSocketStream"]

_HIGH_WATER = 256 * 1024


class _Protocol(asyncio.Protocol):
    """Collects what arrives until it is read; stops reading when nobody does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.pieces: list[bytes] = []
        self.size = 0
        self.ended = False
        self.failure: Exception | None = None
        self.reading: asyncio.Future[None] | None = None
        self.writing: asyncio.Future[None] | None = None
        self.full = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # create_connection makes a Transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)
        if self.size > _HIGH_WATER and not self._paused and self.transport:
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

    def take(self, max_bytes: int) -> bytes:
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        rest = data[max_bytes:]
        self.pieces, self.size = [rest] if rest else [], len(rest)
        if self._paused and not rest and self.transport:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return data[:max_bytes] if rest else data


def _wake(future: asyncio.Future[None] | None) -> None:
    if future and not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class AsyncSocketStream(httpcore.AsyncNetworkStream):
    """One connected socket of one event loop."""

    def __init__(self, protocol: _Protocol, clocks: Clocks) -> None:
        self._protocol = protocol
        self._clocks = clocks

    async def _wait(self, name: str, seconds: float) -> None:
        """Wait until the protocol wakes its future called `name`. Raises `TimeoutError`."""
        protocol = self._protocol
        future = protocol.loop.create_future()
        setattr(protocol, name, future)
        timer = protocol.loop.call_later(seconds, _fail, future)
        try:
            await future
        finally:
            timer.cancel()
            setattr(protocol, name, None)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        clocks, protocol = self._clocks, self._protocol
        left = clocks.left(clocks.idle)
        if not protocol.pieces and not protocol.ended:
            try:
                await self._wait("reading", left)
            except TimeoutError as error:
                raise clocks.idle_too_long() from error
        if protocol.pieces:
            clocks.received = True
            return protocol.take(max_bytes)
        if protocol.failure:
            raise httpcore.ReadError(str(protocol.failure)) from protocol.failure
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        clocks, protocol = self._clocks, self._protocol
        left = clocks.left(clocks.idle)
        if protocol.transport is None or protocol.transport.is_closing():
            raise httpcore.WriteError(str(protocol.failure or "the connection is closed"))
        protocol.transport.write(buffer)
        while protocol.full and not protocol.ended:
            try:
                await self._wait("writing", left)
            except TimeoutError as error:
                raise clocks.idle_too_long() from error
            left = clocks.left(clocks.idle)
        if protocol.failure:
            raise httpcore.WriteError(str(protocol.failure)) from protocol.failure

    def abort(self) -> None:
        """Close now, without waiting."""
        transport = self._protocol.transport
        if transport is not None:
            with suppress(RuntimeError):  # the loop is closed: the socket goes with the transport
                transport.abort()

    async def aclose(self) -> None:
        self.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncSocketStream:
        clocks, protocol = self._clocks, self._protocol
        assert protocol.transport is not None
        try:
            async with asyncio.timeout(clocks.left(clocks.connect)):
                protocol.transport = await protocol.loop.start_tls(
                    protocol.transport, protocol, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            self.abort()
            raise clocks.connect_too_long() from error
        except OSError as error:
            self.abort()
            raise httpcore.ConnectError(str(error)) from error
        except BaseException:
            self.abort()
            raise
        if protocol.transport is None:
            raise httpcore.ConnectError("the connection was lost during the TLS handshake")
        return self

    def get_extra_info(self, info: str) -> Any:
        protocol = self._protocol
        sock = protocol.transport.get_extra_info("socket") if protocol.transport else None
        if info == "is_readable":
            closing = protocol.transport is None or protocol.transport.is_closing()
            return closing or protocol.ended or bool(protocol.pieces) or readable(sock)
        return sock if info == "socket" else None


class AsyncSocketBackend(httpcore.AsyncNetworkBackend):
    """Connects sockets that obey `clocks`."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncSocketStream:
        clocks = self._clocks
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(clocks.left(clocks.connect)):
                _, protocol = await loop.create_connection(
                    lambda: _Protocol(loop), host, port, happy_eyeballs_delay=0.25
                )
        except TimeoutError as error:
            raise clocks.connect_too_long() from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        return AsyncSocketStream(protocol, clocks)
