"""Connections kept open between requests: a stack per origin, so that a request among 256 costs the same as one alone.

httpx's own pool walks all its connections for each request. Here a connection is taken from the top of its origin's
stack and put back there; the oldest ones, at the bottom, are closed when they have rested too long.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections import deque
from time import monotonic
from typing import Generic, Protocol, TypeVar

from lmagent.http.address import Address
from lmagent.http.clocks import Clocks, in_naps, out_of_time
from lmagent.http.dialogue import Dialogue
from lmagent.http.sockets import SocketStream, connect

__all__ = ["IdleStacks", "Lane", "Pool", "Stream", "tls_context"]

_REST = 30.0
"""Seconds a connection may be idle."""
_tls_lock = threading.Lock()
_tls: list[ssl.SSLContext] = []


def tls_context() -> ssl.SSLContext:
    """Return the process's TLS context, made when it is first needed (16-20 ms)."""
    with _tls_lock:
        if not _tls:
            file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
            if not file and not folder:
                import certifi  # comes with httpx

                file = certifi.where()
            context = ssl.create_default_context(cafile=file or None, capath=folder or None)
            context.set_alpn_protocols(["http/1.1"])
            _tls.append(context)
        return _tls[0]


class Stream(Protocol):
    """What a pool needs of a connection in either colour."""

    def alive(self) -> bool: ...

    def close(self) -> None: ...


StreamT = TypeVar("StreamT", bound=Stream)
Origin = tuple[str, str, int]


class Lane(Generic[StreamT]):
    """One connection, its HTTP and its clocks."""

    __slots__ = ("clocks", "dialogue", "origin", "rested_since", "stream", "used")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.clocks = Clocks()
        self.dialogue = Dialogue()
        self.stream: StreamT | None = None
        self.rested_since = 0.0
        self.used = False
        """Whether it served a request before this one, so that the peer may have closed it meanwhile."""

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.stream is not None:
            self.stream.close()


class IdleStacks(Generic[StreamT]):
    """Resting lanes by origin, last in first out. `pop` and `append` of a deque are atomic, so it needs no lock."""

    def __init__(self) -> None:
        self._stacks: dict[Origin, deque[Lane[StreamT]]] = {}

    def take(self, origin: Origin) -> Lane[StreamT]:
        """Return the lane used last that is still alive, or an empty one."""
        stack = self._stacks.get(origin)
        while stack:
            try:
                lane = stack.pop()
            except IndexError:  # another thread was faster
                break
            if lane.rested_since > monotonic() - _REST and lane.stream is not None and lane.stream.alive():
                lane.used = True
                return lane
            lane.close()
        return Lane(origin)

    def put(self, lane: Lane[StreamT]) -> None:
        """Put a lane to rest if its connection can serve another request, else close it."""
        if lane.stream is None or not lane.dialogue.next_cycle():
            lane.close()
            return
        lane.rested_since = now = monotonic()
        stack = self._stacks.get(lane.origin)
        if stack is None:
            stack = self._stacks.setdefault(lane.origin, deque())
        stack.append(lane)
        while stack and stack[0].rested_since < now - _REST:
            try:
                stack.popleft().close()
            except IndexError:
                break

    def close(self) -> None:
        """Close all resting lanes."""
        while self._stacks:
            try:
                _, stack = self._stacks.popitem()
            except KeyError:
                break
            for lane in stack:
                lane.close()


class Pool:
    """Blocking connections, shared by threads. Not by processes: after a fork the connections stay the parent's."""

    def __init__(self, ssl_context: ssl.SSLContext | None, max_connections: int) -> None:
        self.process = os.getpid()
        self._ssl = ssl_context
        self._idle: IdleStacks[SocketStream] = IdleStacks()
        self._permits = threading.Semaphore(max_connections)

    def take(self, address: Address, deadline: float, *, fresh: bool = False) -> Lane[SocketStream]:
        """Return a lane to `address`, a resting one if there is one and not `fresh` is asked for.

        Raises:
            RequestTimeout: All connections were busy until the deadline.
        """
        permits = self._permits
        if not in_naps(lambda nap: permits.acquire(timeout=nap), deadline - monotonic()):
            raise out_of_time()
        return Lane(address.origin) if fresh else self._idle.take(address.origin)

    def connected(self, lane: Lane[SocketStream], address: Address) -> SocketStream:
        """Return the lane's connection, made now if it has none. The lane's clocks must run."""
        if lane.stream is None:
            context = (self._ssl or tls_context()) if address.scheme == "https" else None
            lane.stream = connect(address.host, address.port, lane.clocks, context)
        return lane.stream

    def give_back(self, lane: Lane[SocketStream]) -> None:
        """Take a lane back: kept when its connection can serve another request, else closed."""
        self._permits.release()
        self._idle.put(lane)

    def close(self) -> None:
        """Close the resting connections; busy ones are kept or closed as they come back."""
        self._idle.close()

    def __del__(self) -> None:
        self._idle.close()
