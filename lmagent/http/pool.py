"""Connections kept open between requests: one pool per process for threads, one per event loop, shared by all
transports.

An idle connection lies on a stack of its route and is taken from the top, so a request among 256 costs the same as one
alone; the oldest ones, at the bottom, are closed when they have been idle too long. (httpcore2's own pool walks all its
connections for each request.)

`Slots` bounds the requests in flight. The bound of the process leaves some file descriptors to the program; further
requests wait in order of arrival, each until its deadline. Idle connections do not count: the oldest are closed when a
new one would go beyond the bound.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary, WeakSet

import httpcore2

from lmagent.core.redaction import Secret, SecretFilter
from lmagent.errors import ConfigurationError
from lmagent.http.base import FAILURE_MODULES, out_of_time, poll_until
from lmagent.http.network import Network

if TYPE_CHECKING:
    import asyncio
    import ssl

__all__ = ["SHARED", "Connection", "Pool", "Route", "Shared", "Slots", "Waiter", "tls_context"]

_MAX_IDLE = 30.0
"""Seconds a connection may be idle."""
_tls_lock = threading.Lock()
_tls: dict[bool, ssl.SSLContext] = {}


def tls_context(http2: bool = False) -> ssl.SSLContext:
    """Return the process's TLS context, made when it is first needed (16-20 ms).

    It trusts the authorities of the system, or those of `SSL_CERT_FILE` or `SSL_CERT_DIR`, as httpx2's does. Two
    contexts, because the protocols to agree on are set on the context.
    """
    with _tls_lock:
        if http2 not in _tls:
            _tls[http2] = httpcore2.default_ssl_context()
        return _tls[http2]


class Route(NamedTuple):
    """Where a connection leads and how: connections of one route are alike."""

    scheme: str
    host: str
    port: int
    proxy: str = ""
    ssl_context: ssl.SSLContext | None = None
    http2: bool = False


class Waiter(Protocol):
    """A request that waits for its slot."""

    granted: bool
    given_up: bool

    def grant(self) -> bool:
        """Wake the one who waits; False when it cannot be woken any more."""
        ...


class _ThreadWaiter:
    def __init__(self) -> None:
        self.granted = self.given_up = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def grant(self) -> bool:
        self._lock.release()
        return True

    def wait(self, seconds: float) -> bool:
        return poll_until(lambda part: self._lock.acquire(timeout=part), seconds)


class _TaskWaiter:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.granted = self.given_up = False
        self.future: asyncio.Future[None] = loop.create_future()
        self._thread = threading.get_ident()

    def grant(self) -> bool:
        if threading.get_ident() == self._thread:
            self._wake()
            return True
        try:
            self.future.get_loop().call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Slots:
    """A semaphore for threads and event loops alike that serves in order of arrival."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._waiting: deque[Waiter] = deque()
        self._lock = threading.RLock()  # a response dropped unread gives its slot back wherever the collector runs
        self._withheld = 0
        self._quiet_until = 0.0

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self.limit - self._free - self._withheld

    def take(self, deadline: float) -> None:
        """Take a slot, waiting for it.

        Raises:
            RequestTimeout: None came free until `deadline`.
        """
        if self.try_take():
            return
        waiter = _ThreadWaiter()
        if self._taken_or_queued(waiter):
            return
        try:
            granted = waiter.wait(deadline - monotonic())
        except BaseException:
            self._give_up(waiter)
            raise
        if not granted:
            self._give_up(waiter)
            raise out_of_time()

    async def async_take(self, deadline: float) -> None:
        """Take a slot, as `take`."""
        if self.try_take():
            return
        import asyncio  # there already: someone runs a loop

        waiter = _TaskWaiter(asyncio.get_running_loop())
        if self._taken_or_queued(waiter):
            return
        try:
            async with asyncio.timeout(max(deadline - monotonic(), 0)):
                await waiter.future
        except BaseException as error:
            self._give_up(waiter)
            if isinstance(error, TimeoutError):
                raise out_of_time() from error
            raise

    def try_take(self) -> bool:
        """Take a slot if one is free."""
        with self._lock:
            if self._free > 0 and not self._waiting:
                self._free -= 1
                return True
            return False

    def _taken_or_queued(self, waiter: Waiter) -> bool:
        with self._lock:
            if self._free > 0 and not self._waiting:
                self._free -= 1
                return True
            self._waiting.append(waiter)
            return False

    def _give_up(self, waiter: Waiter) -> None:
        with self._lock:
            waiter.given_up = True
            granted = waiter.granted
        if granted:
            self.give_back()

    def give_back(self) -> None:
        """Give a slot back; the longest waiting request gets it."""
        with self._lock:
            self._free = min(self._free + 1, self.limit)  # after a fork calls that began before it give back as well
            if self._withheld and monotonic() > self._quiet_until:
                self._withheld -= 1
                self._free += 1
            while self._free > 0 and self._waiting:
                waiter = self._waiting.popleft()
                if waiter.given_up:
                    continue
                self._free -= 1
                waiter.granted = True
                if not waiter.grant():
                    self._free += 1

    def withhold(self) -> bool:
        """Withdraw the caller's slot because the system gave no descriptor for it; False if no other is in use.

        Withdrawn slots return one by one, a second after the last was withdrawn.
        """
        with self._lock:
            if self.taken <= 1:
                return False
            self._withheld += 1
            self._quiet_until = monotonic() + 1
            return True

    def after_fork(self) -> None:
        """Begin anew in a forked process."""
        self._lock = threading.RLock()
        self._waiting.clear()
        self._free, self._withheld = self.limit, 0


def _most_connections() -> int:
    """Return how many connections the process may hold: its file descriptors without a reserve."""
    try:
        import resource
    except ImportError:  # Windows: sockets are no files
        return 10_000
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return 100_000
    try:
        in_use = len(os.listdir("/dev/fd"))
    except OSError:
        in_use = 16
    return max(1, most - in_use - max(16, most // 8))


class Connection:
    """One connection of httpcore2 on a network of ours."""

    __slots__ = ("_loop", "http", "idle_since", "network", "route", "slots", "used")

    def __init__(self, route: Route, network: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.route = route
        self.network = network
        self.http: Any = _proxied(route, network, asynchronous=loop is not None) if route.proxy else None
        """The connection of httpcore2. One through a proxy connects itself with its first request."""
        self.idle_since = 0.0
        self.used = False
        """Whether it served a request before this one, so that the peer may have closed it meanwhile."""
        self.slots: tuple[Slots, ...] = ()
        self._loop = loop

    def connect(self) -> Any:
        """Connect to the server itself."""
        scheme, host, port, *_ = route = self.route
        stream = self.network.connect_tcp(host, port)
        if scheme == "https":
            stream = stream.start_tls(_context(route), host)
        self.http = _spoken(stream, httpcore2.HTTP11Connection, httpcore2.HTTP2Connection)(_origin(route), stream)
        return self.http

    async def async_connect(self) -> Any:
        """Connect to the server itself."""
        scheme, host, port, *_ = route = self.route
        stream = await self.network.connect_tcp(host, port)
        if scheme == "https":
            stream = await stream.start_tls(_context(route), host)
        spoken = _spoken(stream, httpcore2.AsyncHTTP11Connection, httpcore2.AsyncHTTP2Connection)
        self.http = spoken(_origin(route), stream)
        return self.http

    def alive(self) -> bool:
        """Whether an idle connection can serve another request."""
        stream = self.network.stream
        return self.idle_since > monotonic() - _MAX_IDLE and stream is not None and stream.alive()

    def close(self) -> None:
        """Close at once, from any thread."""
        stream = self.network.stream
        if stream is None:
            return
        if self._loop is None or self._loop is _running_loop():
            stream.close()
        else:
            try:
                self._loop.call_soon_threadsafe(stream.close)
            except RuntimeError:  # the loop is closed
                stream.close()


def _running_loop() -> Any:
    asyncio: Any = sys.modules.get("asyncio")  # an import statement takes 1 us longer
    try:
        return asyncio.get_running_loop()
    except (AttributeError, RuntimeError):  # asyncio is not imported, or is just being so
        return None


def _origin(route: Route, host: str = "") -> httpcore2.Origin:
    return httpcore2.Origin(route.scheme.encode(), (host or route.host).encode(), route.port)


def _context(route: Route) -> ssl.SSLContext:
    context = route.ssl_context or tls_context(route.http2)
    context.set_alpn_protocols(["h2", "http/1.1"] if route.http2 else ["http/1.1"])
    return context


def _spoken(stream: Any, http1: Any, http2: Any) -> Any:
    """Return the class for the protocol that was agreed on in the TLS handshake."""
    tls = stream.get_extra_info("ssl_object")
    return http2 if tls is not None and tls.selected_alpn_protocol() == "h2" else http1


def _proxied(route: Route, network: Any, *, asynchronous: bool) -> Any:
    """Return the connection of httpcore2 through the proxy of `route`, not connected yet."""
    options: dict[str, Any] = {"network_backend": network, "http2": route.http2, "ssl_context": None}
    if route.scheme == "https":
        options["ssl_context"] = _context(route)
    try:
        parts = urlsplit(route.proxy if "://" in route.proxy else f"http://{route.proxy}")
        port = parts.port or {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}[parts.scheme]
        url = httpcore2.URL(scheme=parts.scheme, host=(parts.hostname or "").encode("idna"), port=port, target="/")
    except (KeyError, ValueError):
        raise ConfigurationError("The proxy is not a URL of the form http://host:port or socks5://host:port.") from None
    options["proxy_auth"] = None
    if parts.username is not None:
        options["proxy_auth"] = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
        Secret(unquote(parts.password or ""))  # httpcore2 logs it, at the level DEBUG
        logger = logging.getLogger("httpcore2.socks")
        if not any(isinstance(each, SecretFilter) for each in logger.filters):
            logger.addFilter(SecretFilter())
    origin = _origin(route, f"[{route.host}]" if ":" in route.host else "")
    # Made for their `create_connection`: as pools they stay empty.
    if parts.scheme.startswith("socks"):
        try:
            return (httpcore2.AsyncSOCKSProxy if asynchronous else httpcore2.SOCKSProxy)(
                url, **options
            ).create_connection(origin)
        except (ImportError, RuntimeError) as error:
            raise ConfigurationError("A SOCKS proxy needs one more package: pip install 'lmagent[socks]'.") from error
    if parts.scheme == "https":
        options["proxy_ssl_context"] = route.ssl_context or tls_context()
    return (httpcore2.AsyncHTTPProxy if asynchronous else httpcore2.HTTPProxy)(url, **options).create_connection(origin)


class Pool:
    """The connections of all threads of the process, or (`loop`) of one event loop."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.keeper: AsyncGenerator[None] | None = None
        self._loop = loop
        self._shared = shared
        self._idle: dict[Route, deque[Connection]] = {}
        self._users: dict[Route, int] = {}
        self._lock = threading.RLock()  # a transport that is dropped leaves wherever the collector runs
        shared.pools.add(self)

    def connection(self, route: Route, slots: tuple[Slots, ...], *, fresh: bool) -> Connection:
        """Return an idle connection, or a new one that is not connected yet. The caller has taken the slots."""
        # `pop` and `append` of a deque are atomic, so it needs no lock.
        stack = None if fresh else self._idle.get(route)
        while stack:
            try:
                connection = stack.pop()
            except IndexError:  # another thread was faster
                break
            if connection.alive():
                connection.used = True
                connection.slots = slots
                return connection
            connection.close()
        self._shared.make_space()
        handshake = route.proxy.startswith("socks")
        if self._loop is None:
            connection = Connection(route, Network(handshake=handshake), None)
        else:
            from lmagent.http.async_network import AsyncNetwork

            connection = Connection(route, AsyncNetwork(handshake=handshake), self._loop)
        connection.slots = slots
        return connection

    def give_back(self, connection: Connection, *, keep: bool, withheld: bool = False) -> None:
        """Take a connection back and free its slots.

        Args:
            connection: What `connection` returned.
            keep: Whether it can serve another request; else it is closed.
            withheld: Whether `Slots.withhold` took the last slot.
        """
        slots, connection.slots = connection.slots, ()
        if not keep:
            connection.close()
        else:
            connection.idle_since = now = monotonic()
            stack = self._idle.get(connection.route)
            if stack is None:
                stack = self._idle.setdefault(connection.route, deque())
            stack.append(connection)
            while stack and stack[0].idle_since < now - _MAX_IDLE:
                self.close_oldest(stack)
        for each in slots[: len(slots) - withheld]:
            each.give_back()

    def idle_count(self) -> int:
        """Return how many connections are idle."""
        return sum(map(len, list(self._idle.values())))

    def close_oldest(self, stack: deque[Connection] | None = None) -> bool:
        """Close the connection that has been idle longest, of `stack` or of all; False if there is none."""
        while True:
            stacks = [each for each in ([stack] if stack is not None else list(self._idle.values())) if each]
            if not stacks:
                return False
            try:
                min(stacks, key=lambda each: each[0].idle_since).popleft().close()
            except IndexError:
                continue
            return True

    def use(self, route: Route) -> None:
        """A transport begins to use `route`."""
        with self._lock:
            self._users[route] = self._users.get(route, 0) + 1

    def leave(self, route: Route) -> None:
        """A transport no longer uses `route`; with the last one go the idle connections."""
        with self._lock:
            self._users[route] = left = self._users.get(route, 1) - 1
            if left > 0:
                return
            del self._users[route]
        self.close(route)

    def close(self, route: Route | None = None) -> None:
        """Close the idle connections, all or those of `route`; others are kept or closed as they come back."""
        for each in [route] if route else list(self._idle):
            for connection in self._idle.pop(each, ()):
                connection.close()


class Shared:
    """What all pools of the process have in common."""

    def __init__(self) -> None:
        self.slots = Slots(_most_connections())
        self.pools: WeakSet[Pool] = WeakSet()
        self.threads = Pool(self)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()
        self._lock = threading.RLock()
        self._spare: list[int] = []
        self._reserve()

    def _reserve(self) -> None:
        """Hold some file descriptors that are let go when there are none left: then Python needs some for imports."""
        try:
            while len(self._spare) < 4:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass  # none left already

    def make_space(self) -> None:
        """Close idle connections until a new one stays within the bound."""
        slots = self.slots
        while slots.taken + sum(pool.idle_count() for pool in list(self.pools)) > slots.limit:
            if not self.close_oldest():
                return

    def close_oldest(self) -> bool:
        """Close an idle connection of any pool; False if there is none."""
        return any(pool.close_oldest() for pool in list(self.pools))

    def out_of_descriptors(self) -> None:
        """Import what the failure path needs while it is possible."""
        with self._lock:
            while self._spare:
                os.close(self._spare.pop())
            for name in FAILURE_MODULES:
                import_module(name)
            self._reserve()

    def after_fork(self) -> None:
        """Begin anew in a forked process: the connections stay the parent's."""
        self._lock = threading.RLock()
        self.slots.after_fork()
        self.threads.close()
        self.pools = WeakSet()
        self._loops = WeakKeyDictionary()  # not closed: their event loops are the parent's
        self.threads = Pool(self)

    def running_pool(self) -> Pool | None:
        """Return the pool of the running loop, if it has one."""
        loop = _running_loop()
        return self._loops.get(loop) if loop else None

    async def pool_of_loop(self) -> Pool:
        """Return the pool of the running loop; its idle connections are closed when the loop ends."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        pool = self._loops.get(loop)
        if pool is None:
            for each in [each for each in list(self._loops) if each.is_closed()]:
                del self._loops[each]  # it ended without closing its async generators
            pool = self._loops[loop] = Pool(self, loop)
            pool.keeper = _closing_with_the_loop(pool)
            await anext(pool.keeper)  # does not suspend
        return pool


async def _closing_with_the_loop(pool: Pool) -> AsyncGenerator[None]:
    # asyncio closes every async generator that is still open when a loop ends (asyncio.run, Runner), and any that is
    # dropped: the one hook by which idle sockets close without the user's having to say so.
    try:
        yield
    finally:
        pool.close()


SHARED = Shared()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED.after_fork)
