"""The steps that an `ExchangeFlow` yields. Each can be run blocking (`run`) or awaiting (`async_run`); none decides."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, cast

from lmagent.core.events import Event
from lmagent.errors import LMAgentError
from lmagent.http.base import AsyncIncoming, Drains, Incoming, Timeouts, Transport, is_done, poll_until
from lmagent.providers.base import Request

__all__ = [
    "AcquireLock",
    "Close",
    "DrainBody",
    "Emit",
    "ExchangeStep",
    "FairLock",
    "Open",
    "OpenResponse",
    "Read",
    "ReadChunk",
    "ReadStart",
    "Sleep",
]


class FairLock:
    """A first-come, first-served lock for threads and for the tasks of any event loop. Tasks wait without polling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[Future[None]] = deque()

    def _enqueue(self) -> Future[None] | None:
        """Take the lock and return None, or return a future that is done once the lock is handed over."""
        with self._lock:
            if not self._held:
                self._held = True
                return None
            handed_over: Future[None] = Future()
            self._waiting.append(handed_over)
            return handed_over

    def acquire(self, seconds: float) -> bool:
        """Wait for the lock, at most `seconds`; return whether it was acquired."""
        handed_over = self._enqueue()
        if handed_over is None:
            return True
        try:
            return poll_until(lambda interval: is_done(handed_over, interval), seconds) or not handed_over.cancel()
        except BaseException:
            self._abandon(handed_over)
            raise

    async def async_acquire(self, seconds: float) -> bool:
        """`acquire`, awaiting."""
        handed_over = self._enqueue()
        if handed_over is None:
            return True
        import asyncio  # loaded already: an event loop is running

        try:
            # Shielded: cancelling this task must not cancel the future, or a lock that was just handed over is lost.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(handed_over)), seconds)
        except TimeoutError:
            return not handed_over.cancel()
        except BaseException:
            self._abandon(handed_over)
            raise
        return True

    def _abandon(self, handed_over: Future[None]) -> None:
        """Stop waiting; release the lock if it was handed over in the same moment."""
        if not handed_over.cancel():
            self.release()

    def release(self) -> None:
        """Hand the lock over to the longest waiting caller, or free it."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._held = False
                    return
                handed_over = self._waiting.popleft()
            try:
                handed_over.set_result(None)
            except InvalidStateError:  # this caller stopped waiting
                continue
            return


class OpenResponse:
    """The response that a call has open, if any. The driver of the flow closes it whatever happens."""

    __slots__ = ("chunks", "incoming")

    def __init__(self) -> None:
        self.incoming: Any = None
        self.chunks: Any = None

    def close(self) -> None:
        """Free the connection."""
        incoming, self.incoming, self.chunks = self.incoming, None, None
        if incoming is not None:
            cast("Incoming", incoming).close()

    async def aclose(self) -> None:
        """Free the connection."""
        incoming, chunks, self.incoming, self.chunks = self.incoming, self.chunks, None, None
        if incoming is not None:
            await cast("AsyncIncoming", incoming).aclose()
        if chunks is not None:
            await chunks.aclose()


class ExchangeStep(ABC):
    """One operation outside the flow."""

    __slots__ = ()

    @abstractmethod
    def run(self) -> Any:
        """Do it, blocking."""

    @abstractmethod
    async def async_run(self) -> Any:
        """Do it, awaiting."""


class Emit(ExchangeStep):
    """Hand events to the consumer. Only the drivers of streams do it; for the others the step does nothing."""

    __slots__ = ("events",)

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events

    def run(self) -> None: ...

    async def async_run(self) -> None: ...


class Open(ExchangeStep):
    """Send a request; the outcome is the incoming response, which `response` keeps open."""

    __slots__ = ("_deadline", "_request", "_response", "_timeouts", "_transport")

    def __init__(
        self, response: OpenResponse, transport: Transport, request: Request, timeouts: Timeouts, deadline: float
    ) -> None:
        self._response = response
        self._transport = transport
        self._request = request
        self._timeouts = timeouts
        self._deadline = deadline

    def run(self) -> Incoming:
        incoming = self._response.incoming = self._transport.open(self._request, self._timeouts, self._deadline)
        return incoming

    async def async_run(self) -> AsyncIncoming:
        incoming = await self._transport.async_open(self._request, self._timeouts, self._deadline)
        self._response.incoming = incoming
        return incoming


class Read(ExchangeStep):
    """Read the whole body and close the response; the outcome is bytes."""

    __slots__ = ("_limit", "_response")

    def __init__(self, response: OpenResponse, limit: int) -> None:
        self._response = response
        self._limit = limit

    def run(self) -> bytes:
        body = cast("Incoming", self._response.incoming).read(self._limit)
        self._response.close()
        return body

    async def async_run(self) -> bytes:
        body = await cast("AsyncIncoming", self._response.incoming).read(self._limit)
        await self._response.aclose()
        return body


class ReadStart(ExchangeStep):
    """Read at most `limit` bytes of the body and close the response; the outcome is `content`."""

    __slots__ = ("_limit", "_response", "content")

    def __init__(self, response: OpenResponse, limit: int) -> None:
        self._response = response
        self._limit = limit
        self.content = b""
        """The bytes read so far, also if reading fails."""

    def _add(self, chunk: bytes) -> bool:
        self.content = (self.content + chunk)[: self._limit]
        return len(self.content) == self._limit

    def run(self) -> bytes:
        for chunk in cast("Incoming", self._response.incoming).chunks():
            if self._add(chunk):
                break
        self._response.close()
        return self.content

    async def async_run(self) -> bytes:
        self._response.chunks = chunks = cast("AsyncIncoming", self._response.incoming).chunks()
        async for chunk in chunks:
            if self._add(chunk):
                break
        await self._response.aclose()
        return self.content


class ReadChunk(ExchangeStep):
    """Wait for the next chunk of the body; the outcome is bytes, or None at its end."""

    __slots__ = ("_response",)

    def __init__(self, response: OpenResponse) -> None:
        self._response = response

    def run(self) -> bytes | None:
        response = self._response
        if response.chunks is None:
            response.chunks = iter(cast("Incoming", response.incoming).chunks())
        return next(cast("Iterator[bytes]", response.chunks), None)

    async def async_run(self) -> bytes | None:
        response = self._response
        if response.chunks is None:
            response.chunks = cast("AsyncIncoming", response.incoming).chunks()
        return await anext(cast("AsyncIterator[bytes]", response.chunks), None)


class Close(ExchangeStep):
    """Close the open response, if there is one."""

    __slots__ = ("_response",)

    def __init__(self, response: OpenResponse) -> None:
        self._response = response

    def run(self) -> None:
        self._response.close()

    async def async_run(self) -> None:
        await self._response.aclose()


class DrainBody(ExchangeStep):
    """Finish a body whose reply is complete: read its last bytes if they come soon, so the connection can be reused."""

    __slots__ = ("_response",)

    def __init__(self, response: OpenResponse) -> None:
        self._response = response

    def run(self) -> None:
        response = self._response
        if isinstance(response.incoming, Drains):
            response.incoming.end_soon(_GRACE)
            with suppress(LMAgentError):
                for _ in response.chunks or ():
                    pass
        response.close()

    async def async_run(self) -> None:
        response = self._response
        if isinstance(response.incoming, Drains) and response.chunks is not None:
            response.incoming.end_soon(_GRACE)
            with suppress(LMAgentError):
                async for _ in response.chunks:
                    pass
        await response.aclose()


_GRACE = 0.02
"""Seconds to wait for the end of a body after its last event. A new connection takes longer."""


class Sleep(ExchangeStep):
    """Wait a number of seconds."""

    __slots__ = ("_async_sleep", "_seconds", "_sleep")

    def __init__(
        self, seconds: float, sleep: Callable[[float], None], async_sleep: Callable[[float], Awaitable[None]] | None
    ) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._async_sleep = async_sleep

    def run(self) -> None:
        self._sleep(self._seconds)

    async def async_run(self) -> None:
        sleep = self._async_sleep
        if sleep is None:
            from asyncio import sleep  # loaded already: an event loop is running

        await sleep(self._seconds)


class AcquireLock(ExchangeStep):
    """Acquire a lock; the outcome says whether that worked within `seconds`."""

    __slots__ = ("_lock", "_seconds")

    def __init__(self, lock: FairLock, seconds: float) -> None:
        self._lock = lock
        self._seconds = seconds

    def run(self) -> bool:
        return self._lock.acquire(self._seconds)

    async def async_run(self) -> bool:
        return await self._lock.async_acquire(self._seconds)
