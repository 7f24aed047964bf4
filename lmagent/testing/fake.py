"""A transport without a network: a function answers each request. Both colours, streamed or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lmagent.errors import ResponseTooLarge
from lmagent.http.base import Timeouts
from lmagent.providers.base import Request

__all__ = ["FakeAnswer", "FakeTransport"]


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
