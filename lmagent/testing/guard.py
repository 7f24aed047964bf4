"""A guard against real requests: while it holds, a socket to anywhere but this machine raises."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

__all__ = ["RealRequest", "block_requests"]


class RealRequest(AssertionError, OSError):
    """A test tried to leave this machine.

    An `OSError` too: asyncio takes nothing else from a connection that fails.
    """


@contextmanager
def block_requests(*, allow_loopback: bool = True) -> Generator[None]:
    """Make every connection and name look-up beyond this machine raise `RealRequest`.

    Use it as an autouse fixture:

        @pytest.fixture(autouse=True)
        def no_network():
            with block_requests():
                yield

    Args:
        allow_loopback: Whether servers on this machine may be asked.
    """
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(address: Any) -> None:
        host = cast("tuple[Any, ...]", address)[0] if isinstance(address, tuple) else address
        if not (allow_loopback and _is_local(host)):
            raise RealRequest(f"A real request to {host!r} was blocked; use a scripted model or a loopback server.")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            check(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family != socket.AF_UNIX:
            check(address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        check((host,))
        return getaddrinfo(host, *args, **kwargs)

    with (
        mock.patch.object(socket.socket, "connect", guarded_connect),
        mock.patch.object(socket.socket, "connect_ex", guarded_connect_ex),
        mock.patch.object(socket, "getaddrinfo", guarded_getaddrinfo),
    ):
        yield


def _is_local(host: Any) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False
