"""The clocks of one request on one connection: how long the next read or write may take, and which error it is when it
took longer. Knows no sockets.
"""

from __future__ import annotations

from time import monotonic
from typing import Literal

from lmagent.errors import RequestTimeout
from lmagent.transport.base import Timeouts

__all__ = ["Clocks", "out_of_time"]

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
