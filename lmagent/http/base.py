"""The transport seam: one request out, a status, headers and bytes back. HTTP is one implementation, a model in the
process another, a script in a test a third."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lmagent.core.async_bridge import POLL_INTERVAL
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import ConfigurationError, RequestTimeout, ResponseTooLarge
from lmagent.providers.base import Request

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "FAILURE_MODULES",
    "AsyncIncoming",
    "AsyncStoredBody",
    "Clocks",
    "Drains",
    "Incoming",
    "StoredBody",
    "Timeouts",
    "Transport",
    "interruptible_sleep",
    "is_done",
    "out_of_time",
    "poll_until",
]


@fast_dataclass(frozen=True, kw_only=True)
class Timeouts:
    """The three clocks of a call, in seconds; none may be infinite."""

    connect: float = 5.0
    idle: float = 60.0
    """Longest wait for the next useful byte."""
    total: float = 600.0
    """Covers everything: retries, waits, the whole stream."""

    def __post_init__(self) -> None:
        for name in ("connect", "idle", "total"):
            seconds: object = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
                raise ConfigurationError(f"A time-out is a number of seconds above 0, not {name}={seconds!r}.")


class Incoming(Protocol):
    """An answer whose body has not been read."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names."""

    def read(self, limit: int) -> bytes:
        """Return the whole decoded body. Raises `ResponseTooLarge` past `limit` bytes."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body as it arrives."""
        ...

    def close(self) -> None:
        """Free the connection; what was not read is given up."""
        ...


class AsyncIncoming(Protocol):
    """`Incoming`, asynchronous."""

    status: int
    headers: Mapping[str, str]

    async def read(self, limit: int) -> bytes: ...

    def chunks(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Drains(Protocol):
    """An answer whose connection can be kept if the rest of its body is at hand."""

    def end_soon(self, seconds: float) -> None:
        """Let what is still read of the body take at most `seconds`."""
        ...


class StoredBody:
    """An answer that is in memory already, as an `Incoming`.

    Args:
        status: HTTP status.
        headers: Lower-case names.
        chunks: The body; iterating over it may raise.
        on_close: Called once, when the body was read as a whole or closed.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        chunks: Iterable[bytes],
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks
        self._on_close = on_close

    def read(self, limit: int) -> bytes:
        """Return the body."""
        body = b"".join(self._chunks)
        self.close()
        if len(body) > limit:
            raise ResponseTooLarge(f"The answer has {len(body)} bytes, over the limit of {limit} (max_response_bytes).")
        return body

    def chunks(self) -> Iterator[bytes]:
        """Yield the chunks."""
        yield from self._chunks

    def close(self) -> None:
        """Free it."""
        on_close, self._on_close = self._on_close, None
        if on_close:
            on_close()


class AsyncStoredBody:
    """`StoredBody`, asynchronous."""

    def __init__(self, body: StoredBody) -> None:
        self.status = body.status
        self.headers = body.headers
        self._body = body

    async def read(self, limit: int) -> bytes:
        """Return the body."""
        return self._body.read(limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the chunks."""
        for chunk in self._body.chunks():
            yield chunk

    async def aclose(self) -> None:
        """Free it."""
        self._body.close()


class Transport(Protocol):
    """Sends requests. Raises only `ConnectionFailed`, `RequestTimeout`, `ResponseTooLarge`, `UnexpectedRedirect`."""

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> Incoming:
        """Send `request` and return once status and headers are there.

        Args:
            request: Final bytes and headers.
            timeouts: Connect and idle clocks.
            deadline: `time.monotonic()` value after which everything of this call must have ended.
        """
        ...

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncIncoming: ...

    def close(self) -> None:
        """Free what the sync side holds. The transport stays usable."""
        ...

    async def aclose(self) -> None:
        """Free what this event loop's side holds."""
        ...


FAILURE_MODULES: list[str] = []
"""Modules that the layers above import only after a failure: imported while there are still file descriptors."""
_FOREVER = 1e9


class Clocks:
    """The clocks of the requests on one connection, one after another: how long the next operation may take, and which
    error it is when it took longer. Knows no sockets."""

    __slots__ = ("_connect_until", "connect", "deadline", "ended", "idle", "received", "reused")

    def __init__(self) -> None:
        self.connect = self.idle = self.deadline = self._connect_until = _FOREVER
        self.received = self.ended = self.reused = False

    def start(self, timeouts: Timeouts, deadline: float, *, reused: bool = False) -> None:
        """Begin a request.

        Args:
            timeouts: Connect and idle clocks.
            deadline: `monotonic()` value at which the call ends.
            reused: Whether the connection served another request before, so that the peer may have closed it.
        """
        self.connect, self.idle, self.deadline = timeouts.connect, timeouts.idle, deadline
        self.reused = reused
        self.received = False
        """Whether any byte came back since `start`."""
        self.ended = False
        """Whether the peer closed the connection since `start`."""

    def start_connecting(self) -> None:
        """Begin a new connection; `left_to_connect` counts from here."""
        self._connect_until = monotonic() + self.connect

    def left_to_connect(self) -> float:
        """Return the seconds that are left for the new connection.

        Raises:
            TimeoutError: It is over. `RequestTimeout`: so is the deadline.
        """
        if self.received:  # a proxy answered: what follows is the connection to the server behind it
            return self.left(self.connect)
        left = self._connect_until - monotonic()
        if left <= 0:
            raise TimeoutError
        return self.left(left)

    def left(self, wanted: float) -> float:
        """Return the seconds an operation may take: `wanted`, or less near the deadline.

        Raises:
            RequestTimeout: The deadline has passed.
        """
        left = self.deadline - monotonic()
        if left <= 0:
            raise out_of_time()
        return min(left, wanted)

    def too_long(self, error: TimeoutError, which: Literal["connect", "read"] = "read") -> RequestTimeout:
        """Return the error for an operation that took as long as it might."""
        if isinstance(error, RequestTimeout):
            return error
        if monotonic() >= self.deadline - 0.002:
            return out_of_time()
        if which == "connect":
            return RequestTimeout(f"No connection within {self.connect:g} s.", which="connect")
        return RequestTimeout(f"Nothing came for {self.idle:g} s; Timeouts(idle=...) allows more.", which="read")


def out_of_time() -> RequestTimeout:
    """Return the error for a call that used up its total."""
    return RequestTimeout("The call took longer than its total time; raise timeout=... to allow more.", which="total")


def poll_until(wait: Callable[[float], bool], seconds: float) -> bool:
    """Call `wait(seconds)` with short times until it returns True; False when it did not within `seconds`.

    A Ctrl-C that comes just before a wait begins is heard only at its end, so no wait is long.
    """
    until = monotonic() + seconds
    while not wait(max(min(until - monotonic(), POLL_INTERVAL), 0)):
        if monotonic() >= until:
            return False
    return True


def is_done(future: Future[Any], seconds: float) -> bool:
    """Whether `future` is done within so long."""
    try:
        future.exception(seconds)
    except TimeoutError:
        return False
    return True


def interruptible_sleep(seconds: float) -> None:
    """`time.sleep` that hears a Ctrl-C soon."""
    poll_until(lambda seconds: bool(sleep(seconds)), seconds)
