"""The clocks of one request on one connection: how long the next read or write may take, and which error it is when it
took longer. Knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal

from lmagent.core.async_bridge import POLL_INTERVAL
from lmagent.errors import RequestTimeout
from lmagent.http.base import Timeouts

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Clocks", "in_naps", "is_done", "out_of_time", "sleep_in_naps"]

_FOREVER = 1e9


class Clocks:
    """Set anew for each request; read by the connection's stream before each operation."""

    __slots__ = ("connect", "deadline", "idle", "received")

    def __init__(self) -> None:
        self.connect = self.idle = self.deadline = _FOREVER
        self.received = False
        """Whether any byte came back since `start`."""

    def start(self, timeouts: Timeouts, deadline: float) -> None:
        """Begin a request."""
        self.connect, self.idle, self.deadline = timeouts.connect, timeouts.idle, deadline
        self.received = False

    def left(self, wanted: float) -> float:
        """Return the seconds an operation may take: `wanted`, or less near the deadline.

        Raises:
            RequestTimeout: The deadline has passed.
        """
        left = self.deadline - monotonic()
        if left <= 0:
            raise out_of_time()
        return min(left, wanted)

    def left_until(self, moment: float) -> float:
        """Return the seconds until `moment`, or less near the deadline.

        Raises:
            TimeoutError: It is over. `RequestTimeout`: so is the deadline.
        """
        left = moment - monotonic()
        if left <= 0:
            raise TimeoutError
        return self.left(left)

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


def in_naps(wait: Callable[[float], bool], seconds: float) -> bool:
    """Wait by `wait(seconds)` until it says True, in naps; False when it did not within `seconds`."""
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


def sleep_in_naps(seconds: float) -> None:
    """`time.sleep`, in naps."""
    in_naps(lambda nap: bool(sleep(nap)), seconds)
