"""A transport without a network: a function answers each request. Both colours, streamed or not."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

from lmagent.errors import ResponseTooLarge
from lmagent.http.base import Timeouts
from lmagent.providers.base import Request

__all__ = ["FakeAnswer", "FakeTransport", "RealRequest", "block_requests"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeAnswer:
    """What the fake server sends back."""

    body: bytes | Iterable[bytes] = b""
    """The body, or its pieces as they arrive."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


class FakeTransport:
    """Hands every request to `answer` instead of a network.

        FakeTransport(lambda request: FakeAnswer(body=b'{"choices": []}'))

    Args:
        answer: Called with each request; may raise an error of `lmagent.errors` to play a failing network.
    """

    def __init__(self, answer: Callable[[Request], FakeAnswer]) -> None:
        self._answer = answer
        self.requests: list[Request] = []
        """Every request so far, in order."""
        self.open_answers = 0
        """Answers that were opened and not closed: 0 when nothing leaks."""

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> _FakeIncoming:
        """Answer `request`."""
        self.requests.append(request)
        return _FakeIncoming(self._answer(request), self)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> _AsyncFakeIncoming:
        """`open`, asynchronous."""
        self.requests.append(request)
        return _AsyncFakeIncoming(self._answer(request), self)

    def close(self) -> None:
        """Nothing to free."""

    async def aclose(self) -> None:
        """Nothing to free."""


class _Body:
    def __init__(self, answer: FakeAnswer, owner: FakeTransport) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._pieces = [answer.body] if isinstance(answer.body, bytes) else answer.body
        self._owner = owner
        self._is_open = True
        owner.open_answers += 1

    def _whole(self, limit: int) -> bytes:
        body = b"".join(self._pieces)
        self._free()
        if len(body) > limit:
            raise ResponseTooLarge(f"The answer is longer than {limit} bytes.")
        return body

    def _free(self) -> None:
        if self._is_open:
            self._is_open = False
            self._owner.open_answers -= 1


class _FakeIncoming(_Body):
    def read(self, limit: int) -> bytes:
        return self._whole(limit)

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces

    def close(self) -> None:
        self._free()


class _AsyncFakeIncoming(_Body):
    async def read(self, limit: int) -> bytes:
        return self._whole(limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        self._free()
