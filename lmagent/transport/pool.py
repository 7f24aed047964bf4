"""Connections kept open between requests: a stack per origin, so that a request costs the same beside 255 others as alone.

httpx's own pool walks all its connections for each request. Here a connection is taken from the top of its origin's
stack and put back there; the oldest ones at the bottom are closed when they have rested too long. httpcore does the
HTTP, through its public connection classes; only sockets and clocks are ours.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections import deque
from time import monotonic
from typing import Any, Generic, TypeVar

import httpcore

from lmagent.errors import ConfigurationError
from lmagent.transport.address import Address
from lmagent.transport.clocks import Clocks, out_of_time
from lmagent.transport.sockets import SocketBackend, SocketStream

__all__ = ["IdleStacks", "Lane", "Pool", "alive", "proxy_of", "resting", "tls_context"]

_REST = 30.0
"""Seconds a connection may be idle."""
_tls_lock = threading.Lock()
_tls: list[ssl.SSLContext] = []


def tls_context() -> ssl.SSLContext:
    """Return the process's TLS context, made when it is first needed (16-20 ms)."""
    with _tls_lock:
        if not _tls:
            import certifi  # comes with httpcore

            context = ssl.create_default_context(
                cafile=os.environ.get("SSL_CERT_FILE") or (None if os.environ.get("SSL_CERT_DIR") else certifi.where()),
                capath=os.environ.get("SSL_CERT_DIR"),
            )
            context.set_alpn_protocols(["http/1.1"])
            _tls.append(context)
        return _tls[0]


ConnectionT = TypeVar("ConnectionT")


class Lane(Generic[ConnectionT]):
    """One connection and its clocks."""

    __slots__ = ("clocks", "connection", "key", "rested_since", "used")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.clocks = Clocks()
        self.connection: ConnectionT | None = None
        self.rested_since = 0.0
        self.used = False
        """Whether it served a request before this one, so that the peer may have closed it meanwhile."""


class IdleStacks(Generic[ConnectionT]):
    """Idle lanes by key, last in first out. `pop` and `append` of a deque are atomic, so it needs no lock."""

    def __init__(self) -> None:
        self._stacks: dict[Any, deque[Lane[ConnectionT]]] = {}

    def take(self, key: Any) -> tuple[Lane[ConnectionT] | None, list[ConnectionT]]:
        """Return the lane used last that is still alive, and the dead connections found on the way, to be closed."""
        dead: list[ConnectionT] = []
        stack = self._stacks.get(key)
        while stack:
            try:
                lane = stack.pop()
            except IndexError:  # another thread was faster
                break
            connection = lane.connection
            assert connection is not None
            if lane.rested_since > monotonic() - _REST and alive(connection):
                lane.used = True
                return lane, dead
            dead.append(connection)
        return None, dead

    def put(self, lane: Lane[ConnectionT]) -> list[ConnectionT]:
        """Put a lane to rest; return connections that have rested too long, to be closed."""
        lane.rested_since = now = monotonic()
        stack = self._stacks.get(lane.key)
        if stack is None:
            stack = self._stacks.setdefault(lane.key, deque())
        stack.append(lane)
        old: list[ConnectionT] = []
        while stack and stack[0].rested_since < now - _REST:
            try:
                lane = stack.popleft()
            except IndexError:
                break
            if lane.connection is not None:
                old.append(lane.connection)
        return old

    def clear(self) -> list[ConnectionT]:
        """Take all; return their connections, to be closed."""
        taken: list[ConnectionT] = []
        while self._stacks:
            try:
                _, stack = self._stacks.popitem()
            except KeyError:
                break
            taken += [lane.connection for lane in stack if lane.connection is not None]
        return taken


def proxy_of(url: str) -> httpcore.Proxy:
    """Return httpcore's description of a proxy from its URL, credentials included."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "socks5", "socks5h") or not parts.hostname:
        raise ConfigurationError(f"A proxy is http://, https:// or socks5://host:port, not {parts.scheme!r}.")
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username is not None else None
    port = f":{parts.port}" if parts.port else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return httpcore.Proxy(
        url=f"{parts.scheme}://{host}{port}",
        auth=auth,
        ssl_context=tls_context() if parts.scheme == "https" else None,
    )


class Pool:
    """Blocking connections, shared by threads."""

    def __init__(self, ssl_context: ssl.SSLContext | None, max_connections: int) -> None:
        self._ssl = ssl_context
        self._idle: IdleStacks[Any] = IdleStacks()
        self._permits = threading.Semaphore(max_connections)

    def take(self, address: Address, proxy: str | None, deadline: float) -> Lane[Any]:
        """Return a lane to `address`: an idle one or an empty one, to be given to `connect` once its clocks run.

        Raises:
            RequestTimeout: All connections were busy until the deadline.
        """
        if not self._permits.acquire(blocking=False) and not self._permits.acquire(
            timeout=max(deadline - monotonic(), 0)
        ):
            raise out_of_time()
        key = (address.scheme, address.host, address.port, proxy)
        lane, dead = self._idle.take(key)
        for connection in dead:
            connection.close()
        return lane or Lane(key)

    def connect(self, lane: Lane[Any], address: Address) -> Any:
        """Return the lane's connection, made anew if it has none."""
        if lane.connection is None:
            backend = SocketBackend(lane.clocks)
            context = (self._ssl or tls_context()) if address.scheme == "https" else None
            proxy: str | None = lane.key[3]
            if proxy:
                lane.connection = httpcore.ConnectionPool(
                    ssl_context=context, max_connections=1, proxy=proxy_of(proxy), network_backend=backend
                )
            else:
                stream: SocketStream = backend.connect_tcp(address.host, address.port)
                if context:
                    stream = stream.start_tls(context, address.host)
                origin = httpcore.Origin(address.scheme.encode(), address.host.encode(), address.port)
                lane.connection = httpcore.HTTP11Connection(origin, stream)
        return lane.connection

    def give_back(self, lane: Lane[Any]) -> None:
        """Take a lane back: kept when its connection is ready for another request, else closed."""
        self._permits.release()
        connection, closing = lane.connection, []
        if connection is None:
            return
        if resting(connection):
            closing = self._idle.put(lane)
        else:
            closing = [connection]
        for each in closing:
            each.close()

    def close(self) -> None:
        """Close the idle connections; busy ones are closed as they come back."""
        for connection in self._idle.clear():
            connection.close()

    def __del__(self) -> None:
        self.close()


def resting(connection: Any) -> bool:
    """Whether a connection waits for a request. (httpcore's pool of one stands for a connection through a proxy.)"""
    if isinstance(connection, httpcore.ConnectionPool | httpcore.AsyncConnectionPool):
        return bool(connection.connections) and all(each.is_idle() for each in connection.connections)
    return connection.is_idle()


def alive(connection: Any) -> bool:
    """Whether the peer has kept a resting connection open. A pool of one sees to that itself."""
    return (
        isinstance(connection, httpcore.ConnectionPool | httpcore.AsyncConnectionPool) or not connection.has_expired()
    )
