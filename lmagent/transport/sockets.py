"""Blocking sockets, each operation clipped to the clocks of the request it serves."""

from __future__ import annotations

import select
import socket
import ssl
from time import monotonic
from typing import Any

from lmagent.transport.clocks import Clocks

__all__ = ["SocketStream", "connect", "readable"]

PIECE = 64 * 1024

NAP = 0.5
"""Longest sleep in the kernel, in seconds: a Ctrl-C that comes just before it would be heard only at its end."""


def readable(sock: socket.socket) -> bool:
    """Whether a resting connection has something to read: then the peer has closed it, or it is out of step."""
    if sock.fileno() < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


class SocketStream:
    """One connected socket. Raises `RequestTimeout` and `OSError`."""

    __slots__ = ("_clocks", "_socket")

    def __init__(self, sock: socket.socket, clocks: Clocks) -> None:
        self._socket = sock
        self._clocks = clocks

    def read(self) -> bytes:
        """Return what there is, waiting for it; empty at the end."""
        clocks = self._clocks
        try:
            data = self._received(clocks.idle)
        except TimeoutError as error:
            raise clocks.too_long(error) from error
        clocks.received = clocks.received or bool(data)
        return data

    def _received(self, wait: float) -> bytes:
        while True:
            nap = min(self._clocks.left(wait), NAP)
            self._socket.settimeout(nap)
            try:
                return self._socket.recv(PIECE)
            except TimeoutError:
                wait -= nap
                if wait <= 0:
                    raise

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        clocks = self._clocks
        rest = memoryview(data)
        try:
            while rest:
                self._socket.settimeout(clocks.left(clocks.idle))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError as error:
            raise clocks.too_long(error) from error

    def alive(self) -> bool:
        """Whether the peer has kept the resting connection open."""
        return not readable(self._socket)

    def close(self) -> None:
        """Close at once."""
        self._socket.close()


def connect(host: str, port: int, clocks: Clocks, context: ssl.SSLContext | None) -> SocketStream:
    """Return a new connection; one connect clock covers all addresses of the name and the TLS handshake.

    Raises:
        RequestTimeout: Which `connect`, or `total`.
        OSError: Refused, unreachable, unknown name, TLS failed.
    """
    until = monotonic() + clocks.connect
    failure: OSError = OSError(f"{host} has no address")
    try:
        for *kind, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                return SocketStream(_connected(kind, address, host, context, clocks, until), clocks)
            except TimeoutError:
                raise
            except OSError as error:
                failure = error
    except TimeoutError as error:
        raise clocks.too_long(error, "connect") from error
    raise failure


def _connected(
    kind: list[Any], address: Any, host: str, context: ssl.SSLContext | None, clocks: Clocks, until: float
) -> socket.socket:
    sock = socket.socket(*kind)
    try:
        sock.settimeout(clocks.left(max(until - monotonic(), 0.001)))
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock.settimeout(clocks.left(max(until - monotonic(), 0.001)))
            return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise
    return sock
