"""Tests without a network: a transport that answers from a function, and a block against real requests."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

from lmagent.http.base import AsyncStoredBody, StoredBody, Timeouts
from lmagent.providers.base import Request

__all__ = ["FakeAnswer", "FakeTransport", "RealRequest", "block_requests"]


class RealRequest(AssertionError, OSError):
    """A test tried to connect to another machine.

    It is an `OSError` as well, because asyncio expects one from a failed connection.
    """


@contextmanager
def block_requests(*, allow_loopback: bool = True) -> Generator[None]:
    """Make every connection to another machine, and every name look-up, raise `RealRequest`.

    Use it as an autouse fixture:

        @pytest.fixture(autouse=True)
        def no_network():
            with block_requests():
                yield

    Args:
        allow_loopback: Whether connections to this machine are allowed.
    """
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(address: Any) -> None:
        host = cast("tuple[Any, ...]", address)[0] if isinstance(address, tuple) else address
        if not (allow_loopback and _is_local(host)):
            raise RealRequest(f"A request to {host!r} was blocked. Use a scripted model or a loopback server.")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeAnswer:
    """The answer of the fake server."""

    body: bytes | Iterable[bytes] = b""
    """The body, or its chunks as they arrive."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


class FakeTransport:
    """Passes every request to `answer` instead of a network.

        FakeTransport(lambda request: FakeAnswer(body=b'{"choices": []}'))

    Args:
        answer: Called with each request; may raise an error of `lmagent.errors` to simulate a failing network.
    """

    def __init__(self, answer: Callable[[Request], FakeAnswer]) -> None:
        self._answer = answer
        self.requests: list[Request] = []
        """All requests so far, in order."""
        self.open_answers = 0
        """Number of answers that were opened and not closed; 0 if nothing leaks."""

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> StoredBody:
        """Answer `request`."""
        self.requests.append(request)
        answer = self._answer(request)
        self.open_answers += 1
        chunks = [answer.body] if isinstance(answer.body, bytes) else answer.body
        return StoredBody(answer.status, answer.headers, chunks, self._closed)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncStoredBody:
        """`open`, asynchronous."""
        return AsyncStoredBody(self.open(request, timeouts, deadline))

    def _closed(self) -> None:
        self.open_answers -= 1

    def close(self) -> None:
        """Do nothing; there is no connection."""

    async def aclose(self) -> None:
        """Do nothing; there is no connection."""
