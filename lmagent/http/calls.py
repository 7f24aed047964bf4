"""One request over a connection of a `Pool`, or by a client of httpx or httpx2 that the user handed in.

Both return a response whose body has not been read. A client is used by what httpx and httpx2 have in common, and
neither is imported: its time-outs and errors are classes of its own module.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, suppress
from functools import lru_cache
from time import monotonic
from typing import Any

import httpcore2

from lmagent.core.redaction import SecretFilter
from lmagent.errors import ConnectionFailed, RequestTimeout, ResponseTooLarge
from lmagent.http.base import AsyncIncoming, Clocks, Incoming, Timeouts, out_of_time
from lmagent.http.pool import SHARED, Connection, Pool, Route, Slots
from lmagent.http.wire import (
    OUT_OF_DESCRIPTORS,
    Address,
    Body,
    as_ours,
    header_lines,
    out_of_descriptors,
    refuse_redirect,
    target_of,
)
from lmagent.providers.base import Request

__all__ = ["async_open_call", "async_open_with", "open_call", "open_with"]


def open_call(
    pool: Pool,
    slots: tuple[Slots, ...],
    route: Route,
    address: Address,
    request: Request,
    timeouts: Timeouts,
    deadline: float,
    limit: int,
) -> Incoming:
    """Send `request` over a connection of `pool`; return once status and headers are there."""
    built = _built(address, request)
    fresh = False
    while True:
        taken: list[Slots] = []
        try:
            for each in slots:
                if not each.try_take():
                    each.take(deadline)
                taken.append(each)
            connection = pool.connection(route, slots, fresh=fresh)
        except BaseException:
            _free(taken)
            raise
        try:
            connection.network.clocks.start(timeouts, deadline, reused=connection.used)
            response = (connection.http or connection.connect()).handle_request(built)
            return _Response(pool, connection, response, limit)
        except BaseException as error:
            if not _repeated(pool, connection, error):
                raise
            fresh = True


async def async_open_call(
    pool: Pool,
    slots: tuple[Slots, ...],
    route: Route,
    address: Address,
    request: Request,
    timeouts: Timeouts,
    deadline: float,
    limit: int,
) -> AsyncIncoming:
    """Send `request` over a connection of `pool`, as `open_call`."""
    built = _built(address, request)
    built.stream = _Content(request.content)  # httpcore2's own is an async generator, which costs 5 us more
    fresh = False
    while True:
        taken: list[Slots] = []
        try:
            for each in slots:
                if not each.try_take():
                    await each.async_take(deadline)
                taken.append(each)
            connection = pool.connection(route, slots, fresh=fresh)
        except BaseException:
            _free(taken)
            raise
        try:
            connection.network.clocks.start(timeouts, deadline, reused=connection.used)
            http = connection.http or await connection.async_connect()
            response = await http.handle_async_request(built)
            return _AsyncResponse(pool, connection, response, limit)
        except BaseException as error:
            if not _repeated(pool, connection, error):
                raise
            fresh = True


class _Content:
    """The body of a request as an async iterable of one piece."""

    __slots__ = ("_content", "_given")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._given = False

    def __aiter__(self) -> _Content:
        self._given = False
        return self

    async def __anext__(self) -> bytes:
        if self._given:
            raise StopAsyncIteration
        self._given = True
        return self._content


def _free(slots: list[Slots]) -> None:
    for each in slots:
        each.give_back()


def _built(address: Address, request: Request) -> httpcore2.Request:
    target = target_of(address, request)
    url = _url(address, target) if target == address.target else _made_url(address, target)
    extensions = {"sni_hostname": address.host} if ":" in address.host else None
    built = httpcore2.Request(request.method, url, content=request.content, extensions=extensions)
    built.headers = header_lines(address, request)  # given to the constructor, each is checked for being bytes
    return built


def _made_url(address: Address, target: str) -> httpcore2.URL:
    return httpcore2.URL(scheme=address.scheme, host=address.host, port=address.port, target=target)


_url = lru_cache(maxsize=256)(_made_url)
"""For targets without parameters: those may hold secrets."""


def _repeated(pool: Pool, connection: Connection, error: BaseException) -> bool:
    """Give the connection of a failed request back. Return whether to send the request again on a new connection;
    raise our error if there is one for `error`."""
    clocks: Clocks = connection.network.clocks
    if isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS and connection.network.stream is None:
        # No socket was to be had. Idle connections make place; else this waits until a busy one comes back.
        closed = SHARED.close_oldest()
        withheld = not closed and SHARED.slots.withhold()
        pool.give_back(connection, keep=False, withheld=withheld)
        if closed or withheld:
            return True
        SHARED.out_of_descriptors()
        raise out_of_descriptors() from error
    pool.give_back(connection, keep=False)
    # The peer closed a kept connection while the request was under way: it cannot have been answered.
    stale = isinstance(error, ConnectionError) or (isinstance(error, httpcore2.RemoteProtocolError) and clocks.ended)
    if connection.used and not clocks.received and stale:
        return True
    _raise_ours(error, clocks, received=clocks.received)
    return False


def _raise_ours(error: BaseException, clocks: Clocks, *, received: bool) -> None:
    if isinstance(error, Exception):
        ours = as_ours(error, httpcore2, received=received, ended=clocks.ended)
        if ours is not error:
            raise ours from error


class _Base:
    """A response of httpcore2 whose body has not been read."""

    __slots__ = ("_body", "_connection", "_open", "_pool", "_response", "headers", "status")

    def __init__(self, pool: Pool, connection: Connection, response: httpcore2.Response, limit: int) -> None:
        self._open = False
        self.status = response.status
        headers: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self.headers: Mapping[str, str] = headers
        refuse_redirect(self.status, headers)
        self._body = Body(headers, limit)
        connection.network.stream.splitter.start_body(headers)
        self._pool = pool
        self._connection = connection
        self._response: Any = response
        self._open = True

    def _give_back(self, *, keep: bool) -> None:
        """Give the connection back, once."""
        if self._open:
            self._open = False
            splitter = self._connection.network.stream.splitter
            keep = keep and splitter.clean and self._connection.http.is_idle()
            if keep:
                splitter.start_head()
            self._pool.give_back(self._connection, keep=keep)

    def end_soon(self, seconds: float) -> None:
        """Let what is still read of the body take at most `seconds`."""
        clocks = self._connection.network.clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)

    def __del__(self) -> None:
        if self._open:
            self._give_back(keep=False)


class _Response(_Base):
    __slots__ = ()

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body as it arrives."""
        body, plain = self._body, self._body.plain
        try:
            if not self._open:
                return
            for data in self._response.stream:
                if plain:
                    yield body.count(data)
                else:
                    yield from body.feed(data)
                if not self._open:  # closed by the reader meanwhile
                    return
            self._response.stream.close()
            self._give_back(keep=True)
        except Exception as error:
            _raise_ours(error, self._connection.network.clocks, received=True)
            raise
        finally:
            self.close()

    def read(self, limit: int) -> bytes:
        """Return the whole decoded body."""
        return _joined(self.chunks(), limit)

    def close(self) -> None:
        """Free the connection: kept if the body was read to its end, closed otherwise."""
        self._give_back(keep=False)


class _AsyncResponse(_Base):
    __slots__ = ("_pieces",)

    def __init__(self, pool: Pool, connection: Connection, response: httpcore2.Response, limit: int) -> None:
        self._pieces: Any = None
        super().__init__(pool, connection, response, limit)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the decoded body as it arrives."""
        body, plain = self._body, self._body.plain
        try:
            if not self._open:
                return
            self._pieces = aiter(self._response.stream)
            async for data in self._pieces:
                if plain:
                    yield body.count(data)
                else:
                    for piece in body.feed(data):
                        yield piece
                if not self._open:  # closed by the reader meanwhile
                    return
            await self._response.stream.aclose()  # `Response.aclose` only checks that it is asynchronous
            self._give_back(keep=True)
        except Exception as error:
            _raise_ours(error, self._connection.network.clocks, received=True)
            raise
        finally:
            await self.aclose()

    async def read(self, limit: int) -> bytes:
        """Return the whole decoded body."""
        # Not by `chunks`: an async generator in between costs 10 us.
        kept: list[bytes] = []
        size = 0
        body = self._body
        try:
            if not self._open:
                return b""
            self._pieces = aiter(self._response.stream)
            async for data in self._pieces:
                for piece in (body.count(data),) if body.plain else body.feed(data):
                    size += len(piece)
                    if size > limit:
                        raise _too_long(limit)
                    kept.append(piece)
            await self._response.stream.aclose()
            self._give_back(keep=True)
        except Exception as error:
            _raise_ours(error, self._connection.network.clocks, received=True)
            raise
        finally:
            if self._open:
                await self.aclose()
        return kept[0] if len(kept) == 1 else b"".join(kept)

    async def aclose(self) -> None:
        """Free the connection: kept if the body was read to its end, closed otherwise. Does not suspend."""
        if self._open:
            self._give_back(keep=False)
            pieces, self._pieces = self._pieces, None
            if pieces is not None:
                with suppress(RuntimeError):  # being read by another task, which sees the closed socket
                    await pieces.aclose()


def _joined(pieces: Iterator[bytes], limit: int) -> bytes:
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _too_long(limit)
        kept.append(piece)
    return kept[0] if len(kept) == 1 else b"".join(kept)


async def _async_joined(pieces: AsyncGenerator[bytes], limit: int) -> bytes:
    kept: list[bytes] = []
    size = 0
    async with aclosing(pieces):
        async for piece in pieces:
            size += len(piece)
            if size > limit:
                raise _too_long(limit)
            kept.append(piece)
    return kept[0] if len(kept) == 1 else b"".join(kept)


def _too_long(limit: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"The answer is longer than {limit} bytes.")


# A client of the user's: never closed here. Its clocks are httpx's, set for each request to what the deadline leaves;
# the deadline is checked between pieces and, in async calls, bounds every wait. (A blocking client cannot be stopped
# while a server sends its header byte by byte: each byte has the whole idle time.)


def open_with(
    client: Any, address: Address, request: Request, timeouts: Timeouts, deadline: float, limit: int
) -> Incoming:
    """Send `request` by `client`; return once status and headers are there."""
    call = _ClientCall(client, timeouts, deadline)
    try:
        response = client.send(call.built(address, request), stream=True, auth=None, follow_redirects=False)
    except Exception as error:
        call.raise_ours(error)
        raise
    try:
        return _ClientResponse(response, call, limit)
    except BaseException:
        response.close()
        raise


async def async_open_with(
    client: Any, address: Address, request: Request, timeouts: Timeouts, deadline: float, limit: int
) -> AsyncIncoming:
    """Send `request` by `client`; return once status and headers are there."""
    import asyncio  # there already: someone runs a loop

    call = _ClientCall(client, timeouts, deadline)
    try:
        async with asyncio.timeout(deadline - monotonic()):
            response = await client.send(call.built(address, request), stream=True, auth=None, follow_redirects=False)
    except Exception as error:
        call.raise_ours(error)
        raise
    try:
        return _AsyncClientResponse(response, call, limit)
    except BaseException:
        await response.aclose()
        raise


def _library_of(client: Any) -> Any:
    """Return httpx or httpx2, whichever `client` comes from.

    Found by the classes of the client that it has: the openai SDK derives clients of its own, and sets the `__module__`
    of `httpx2.Timeout` to "openai" (seen in openai 3).
    """
    for each in type(client).__mro__:
        name = each.__module__.partition(".")[0]
        if name in ("httpx2", "httpx"):
            return sys.modules[name]
    raise TypeError(f"client={client!r:.80} is neither a client of httpx nor of httpx2.")


class _ClientCall:
    """One call by a client: its clocks, and its errors as ours."""

    def __init__(self, client: Any, timeouts: Timeouts, deadline: float) -> None:
        self.clocks = Clocks()
        self.clocks.start(timeouts, deadline)
        self._client = client
        self._timeout: Any = type(client.timeout)
        self._library = _library_of(client)
        # httpx and httpx2 log each URL with its query, in which some providers want the token.
        logger = logging.getLogger(self._library.__name__)
        if not any(isinstance(each, SecretFilter) for each in logger.filters):
            logger.addFilter(SecretFilter())

    def built(self, address: Address, request: Request) -> Any:
        """Return `request` as the client wants it."""
        clocks = self.clocks
        return self._client.build_request(
            request.method,
            f"{address.scheme}://{address.host_header}{target_of(address, request)}",
            content=request.content,
            headers=[(name, value) for name, value in header_lines(address, request) if name != b"Host"],
            timeout=self._timeout(clocks.left(clocks.idle), connect=clocks.left(clocks.connect)),
        )

    def raise_ours(self, error: Exception, *, received: bool = False) -> None:
        """Raise our error if there is one for `error`."""
        library, clocks = self._library, self.clocks
        if isinstance(error, RequestTimeout):
            return
        if isinstance(error, library.TimeoutException | TimeoutError):
            connecting = isinstance(error, library.ConnectTimeout)
            raise clocks.too_long(TimeoutError(), "connect" if connecting else "read") from error
        if isinstance(error, RuntimeError) and self._client.is_closed:
            raise ConnectionFailed("The client that was handed in is closed.", retryable=False) from error
        ours = as_ours(error, library, received=received, ended=True)
        if ours is not error:
            raise ours from error


class _ClientBase:
    def __init__(self, response: Any, call: _ClientCall, limit: int) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._call = call
        refuse_redirect(self.status, self.headers)
        # A client's own transport may hand out responses that were read and decoded already (MockTransport).
        self._decoded: bool = response.is_stream_consumed
        self._body = Body({} if self._decoded else self.headers, limit)

    def end_soon(self, seconds: float) -> None:
        clocks = self._call.clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)


class _ClientResponse(_ClientBase):
    def chunks(self) -> Iterator[bytes]:
        body, response = self._body, self._response
        try:
            for data in response.iter_bytes() if self._decoded else response.iter_raw():
                yield from body.feed(data)
                if monotonic() >= self._call.clocks.deadline:
                    raise out_of_time()
        except Exception as error:
            self._call.raise_ours(error, received=True)
            raise
        finally:
            self.close()

    def read(self, limit: int) -> bytes:
        return _joined(self.chunks(), limit)

    def close(self) -> None:
        self._response.close()


class _AsyncClientResponse(_ClientBase):
    async def chunks(self) -> AsyncGenerator[bytes]:
        import asyncio

        body, response = self._body, self._response
        try:
            pieces: AsyncIterator[bytes] = response.aiter_bytes() if self._decoded else response.aiter_raw()
            while True:
                async with asyncio.timeout(self._call.clocks.deadline - monotonic()):
                    data = await anext(pieces, None)
                if data is None:
                    return
                for piece in body.feed(data):
                    yield piece
        except Exception as error:
            self._call.raise_ours(error, received=True)
            raise
        finally:
            await self.aclose()

    async def read(self, limit: int) -> bytes:
        return await _async_joined(self.chunks(), limit)

    async def aclose(self) -> None:
        await self._response.aclose()
