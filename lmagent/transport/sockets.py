"""Blocking sockets for httpcore, each operation clipped to the clocks of the request it serves."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterable
from time import monotonic
from typing import Any

import httpcore

from lmagent.transport.clocks import Clocks

__all__ = ["SocketBackend", "SocketStream", "readable"]


def readable(sock: socket.socket | None) -> bool:
    """Whether an idle connection has something to read: then the peer has closed it (or it is no longer ours)."""
    if sock is None or sock.fileno() < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


class SocketStream(httpcore.NetworkStream):
    """One connected socket."""

    def __init__(self, sock: socket.socket, clocks: Clocks) -> None:
        self._socket = sock
        self._clocks = clocks

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        clocks = self._clocks
        try:
            self._socket.settimeout(clocks.left(clocks.idle))
            data = self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise clocks.idle_too_long() from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        clocks.received = clocks.received or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        clocks = self._clocks
        rest = memoryview(buffer)
        try:
            while rest:
                self._socket.settimeout(clocks.left(clocks.idle))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError as error:
            raise clocks.idle_too_long() from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> SocketStream:
        clocks = self._clocks
        try:
            self._socket.settimeout(clocks.left(clocks.connect))
            return SocketStream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), clocks)
        except TimeoutError as error:
            self.close()
            raise clocks.connect_too_long() from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return readable(self._socket)
        return self._socket if info == "socket" else None


class SocketBackend(httpcore.NetworkBackend):
    """Connects sockets that obey `clocks`."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> SocketStream:
        clocks = self._clocks
        until = monotonic() + clocks.connect
        failure: OSError | None = None
        try:
            # One connect clock for all addresses of the name, where socket.create_connection has one for each.
            for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                try:
                    return SocketStream(self._connect(family, kind, protocol, address, until), clocks)
                except TimeoutError:
                    raise
                except OSError as error:
                    failure = error
        except TimeoutError as error:
            raise clocks.connect_too_long() from error
        except (OSError, UnicodeError) as error:
            failure = failure or OSError(str(error))
        raise httpcore.ConnectError(str(failure)) from failure

    def _connect(self, family: int, kind: int, protocol: int, address: Any, until: float) -> socket.socket:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(self._clocks.left(max(until - monotonic(), 0.001)))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock
