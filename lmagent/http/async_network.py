"""The asyncio network below httpcore2: `network.py`, asynchronous.

Closing never waits and never suspends, so a cancelled task frees its socket at once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal, cast

import aiohappyeyeballs
from httpcore2 import SOCKET_OPTION, AsyncNetworkBackend, AsyncNetworkStream

from lmagent.http.base import Clocks
from lmagent.http.network import STAGGER, ResponseSplitter, addresses_of, readable

__all__ = ["AsyncNetwork", "AsyncSocketStream"]

_HIGH_WATER = 256 * 1024


class _Protocol(asyncio.Protocol):
    """Collects what arrives until it is read; stops receiving while too much is unread."""

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


class AsyncSocketStream(AsyncNetworkStream):
    """One connected socket of one event loop. Raises `RequestTimeout` and `OSError`."""

    def __init__(self, protocol: _Protocol, clocks: Clocks) -> None:
        self.splitter = ResponseSplitter()
        self._protocol = protocol
        self._clocks = clocks
        self._unsent: list[bytes] = []

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

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Send what is to be sent; return what there is, waiting for it. Empty at the end."""
        if self._unsent:
            await self._send()
        clocks, protocol, splitter = self._clocks, self._protocol, self.splitter
        while True:
            data = splitter.held
            if data:
                splitter.held = b""
            else:
                left = clocks.left(clocks.idle)
                if not protocol.pieces and not protocol.ended:
                    await self._wait("reading", left)
                if not protocol.pieces:
                    if protocol.failure:
                        raise protocol.failure
                    clocks.ended = True
                    return splitter.close()
                clocks.received = True
                data = protocol.take()
            data = splitter.feed(data)
            if data:
                return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Keep `buffer` until the next read, so that head and body leave together."""
        if buffer:
            self._unsent.append(buffer)

    async def _send(self) -> None:
        clocks, protocol = self._clocks, self._protocol
        left = clocks.left(clocks.idle)
        if not protocol.ended and not protocol.transport.is_closing():
            protocol.transport.write(b"".join(self._unsent))  # no name for it: it holds the key
        elif clocks.reused:
            raise protocol.failure or ConnectionResetError("the connection is closed")
        self._unsent.clear()
        while protocol.full and not protocol.ended:
            await self._wait("writing", left)
            left = clocks.left(clocks.idle)
        if protocol.failure and clocks.reused:
            raise protocol.failure
        # Else a server may have refused the request before it read all of it: then its response is there to be read.

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncSocketStream:
        """Return the stream inside TLS."""
        clocks, protocol = self._clocks, self._protocol
        try:
            async with asyncio.timeout(clocks.left_to_connect()):
                transport = await protocol.loop.start_tls(
                    protocol.transport, protocol, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            raise clocks.too_long(error, "connect") from error
        if transport is None:
            raise protocol.failure or ConnectionResetError("the connection was closed in the TLS handshake")
        protocol.transport = transport
        self.splitter = ResponseSplitter()
        if self.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            self.splitter.pass_through()
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return the TLS object, from which httpcore2 reads what protocol was agreed on."""
        return self._protocol.transport.get_extra_info("ssl_object") if info == "ssl_object" else None

    def alive(self) -> bool:
        """Whether the peer has kept the idle connection open."""
        protocol = self._protocol
        if protocol.ended or protocol.pieces or protocol.transport.is_closing():
            return False
        return not readable(protocol.transport.get_extra_info("socket"))

    def close(self) -> None:
        """Close now, without waiting."""
        with suppress(RuntimeError):  # the loop is closed: the socket goes with the transport
            self._protocol.transport.abort()

    async def aclose(self) -> None:
        """Close now, without waiting."""
        self.close()


class AsyncNetwork(AsyncNetworkBackend):
    """The backend of one connection: it opens one stream and keeps it at hand."""

    def __init__(self, *, handshake: bool = False) -> None:
        self.clocks = Clocks()
        self.stream: AsyncSocketStream | None = None
        self._handshake = handshake

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncSocketStream:
        """Return a new connection, as `Network.connect_tcp`."""
        loop = asyncio.get_running_loop()
        clocks = self.clocks
        clocks.start_connecting()
        try:
            async with asyncio.timeout(clocks.left_to_connect()):
                found = addresses_of(host, port)
                addresses: Any = found.result() if found.done() else await asyncio.wrap_future(found)
                race = cast("Any", aiohappyeyeballs).start_connection  # its types are known in part
                sock = await race(addresses, happy_eyeballs_delay=STAGGER, loop=loop)
                try:
                    _, protocol = await loop.create_connection(lambda: _Protocol(loop), sock=sock)
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError as error:
            raise clocks.too_long(error, "connect") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = AsyncSocketStream(protocol, clocks)
        if self._handshake:
            self.stream.splitter.pass_handshake()
        return self.stream
