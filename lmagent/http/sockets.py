"""Blocking sockets, each operation clipped to the clocks of the request it serves."""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from lmagent.core.async_bridge import POLL_INTERVAL
from lmagent.errors import RequestTimeout
from lmagent.http.clocks import Clocks, in_naps, is_done

__all__ = ["Addresses", "SocketStream", "addresses_of", "connect", "readable", "shared_out"]

PIECE = 64 * 1024
T = TypeVar("T")
Addresses: TypeAlias = "list[tuple[Any, ...]]"
"""As `socket.getaddrinfo` gives them."""


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
        data = self._in_time(self._socket.recv, PIECE)
        self._clocks.received = self._clocks.received or bool(data)
        return data

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        rest = memoryview(data)
        del data  # it holds the key: a traceback that shows locals must not
        while rest:
            rest = rest[self._in_time(self._socket.send, rest) :]

    def _in_time(self, operation: Callable[[Any], T], argument: Any) -> T:
        """Do one thing to the socket, as often asleep as a Ctrl-C needs to be heard."""
        clocks = self._clocks
        wait = clocks.idle
        while True:
            nap = min(clocks.left(wait), POLL_INTERVAL)
            self._socket.settimeout(nap)
            try:
                return operation(argument)
            except TimeoutError as error:
                wait -= nap
                if wait <= 0:
                    raise clocks.too_long(error) from error

    def alive(self) -> bool:
        """Whether the peer has kept the resting connection open."""
        return not readable(self._socket)

    def close(self) -> None:
        """Close at once."""
        self._socket.close()


def connect(host: str, port: int, clocks: Clocks, context: ssl.SSLContext | None) -> SocketStream:
    """Return a new connection; one connect clock covers the name, all its addresses and the TLS handshake.

    Raises:
        RequestTimeout: Which `connect`, or `total`.
        OSError: Refused, unreachable, unknown name, TLS failed.
    """
    until = monotonic() + clocks.connect
    try:
        found = addresses_of(host, port)
        if not in_naps(lambda seconds: is_done(found, seconds), clocks.left(clocks.connect)):
            raise TimeoutError
        sock = _reached(found.result(), clocks, until)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock.settimeout(clocks.left_until(until))
                sock = context.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
        return SocketStream(sock, clocks)
    except TimeoutError as error:
        raise clocks.too_long(error, "connect") from error


_NUMERIC = re.compile(r"[0-9.]+|.*:.*")


def addresses_of(host: str, port: int) -> Future[Addresses]:
    """Return what will be the addresses of `host`: there at once for a numeric one.

    A name is looked up in a thread: the system gives no hold on a slow name server, and a thread of the event loop's
    own pool would hold up the end of the loop.
    """
    found: Future[Addresses] = Future()
    found.set_running_or_notify_cancel()  # a caller who gives up must not keep the thread from setting its result

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            found.set_exception(error)

    if _NUMERIC.fullmatch(host):
        look_up()
    else:
        threading.Thread(target=look_up, name="lmagent-name", daemon=True).start()
    return found


def shared_out(addresses: Addresses, until: float) -> Iterator[tuple[tuple[Any, ...], Any, float]]:
    """Yield family, kind and protocol of each address, the address, and its part of the time that is left.

    A part each: behind an address that swallows everything (a broken IPv6) there may be one that answers.
    """
    for place, (*kind, _, address) in enumerate(addresses):
        yield tuple(kind), address, (until - monotonic()) / (len(addresses) - place)


def _reached(addresses: Addresses, clocks: Clocks, until: float) -> socket.socket:
    failure = OSError("the name has no address")
    for kind, address, share in shared_out(addresses, until):
        sock = socket.socket(*kind)
        try:
            sock.settimeout(clocks.left(max(share, 0.001)))
            sock.connect(address)
            return sock
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or isinstance(error, RequestTimeout):
                raise
            failure = error
    raise failure
