"""The transport seam: one request out, a status, headers and bytes back. HTTP is one implementation, a model in the
process another, a script in a test a third."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Protocol, runtime_checkable

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import ConfigurationError
from lmagent.providers.base import Request

__all__ = ["AsyncIncoming", "Drains", "Incoming", "Timeouts", "Transport"]


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
