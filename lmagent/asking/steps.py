"""The steps that an exchange's flow asks for: each knows how it is done in both colours and decides nothing."""

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
from lmagent.http.base import AsyncIncoming, Drains, Incoming, Timeouts, Transport
from lmagent.http.clocks import in_naps, is_done
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
    """A lock that a thread and the tasks of any event loop may wait for alike; waiting costs no polling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[Future[None]] = deque()

    def _join(self) -> Future[None] | None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return None
            place: Future[None] = Future()
            self._waiting.append(place)
            return place

    def take(self, seconds: float) -> bool:
        """Wait for the turn, at most so many seconds; False when it did not come."""
        place = self._join()
        if place is None:
            return True
        try:
            return in_naps(lambda nap: is_done(place, nap), seconds) or not self._leave(place)
        except BaseException:
            self._abandon(place)
            raise

    async def async_take(self, seconds: float) -> bool:
        """`take`, awaiting."""
        place = self._join()
        if place is None:
            return True
        import asyncio  # there already: someone runs a loop

        try:
            # Shielded: a cancelled wait must not cancel the place itself, or a turn that was just given would be lost.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(place)), seconds)
        except TimeoutError:
            return not self._leave(place)
        except BaseException:
            self._abandon(place)
            raise
        return True

    def _leave(self, place: Future[None]) -> bool:
        """Give up waiting; False when the turn had come in the same moment."""
        return place.cancel()

    def _abandon(self, place: Future[None]) -> None:
        if not self._leave(place):
            self.give()

    def give(self) -> None:
        """End the turn; the next in line has it."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._taken = False
                    return
                place = self._waiting.popleft()
            try:
                place.set_result(None)
            except InvalidStateError:  # that one gave up
                continue
            return


class OpenResponse:
    """The answer that one call has open, if any; whoever drives the flow closes it whatever happens."""

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
    """One thing to be done outside the flow."""

    __slots__ = ()

    @abstractmethod
    def run(self) -> Any:
        """Do it, blocking."""

    @abstractmethod
    async def async_run(self) -> Any:
        """Do it, awaiting."""


class Emit(ExchangeStep):
    """Give events to the consumer (drivers of streams do that themselves)."""

    __slots__ = ("events",)

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events

    def run(self) -> None: ...

    async def async_run(self) -> None: ...


class Open(ExchangeStep):
    """Send a request; the outcome is the open answer, which `hold` keeps."""

    __slots__ = ("_deadline", "_hold", "_request", "_timeouts", "_transport")

    def __init__(
        self, hold: OpenResponse, transport: Transport, request: Request, timeouts: Timeouts, deadline: float
    ) -> None:
        self._hold = hold
        self._transport = transport
        self._request = request
        self._timeouts = timeouts
        self._deadline = deadline

    def run(self) -> Incoming:
        incoming = self._hold.incoming = self._transport.open(self._request, self._timeouts, self._deadline)
        return incoming

    async def async_run(self) -> AsyncIncoming:
        incoming = await self._transport.async_open(self._request, self._timeouts, self._deadline)
        self._hold.incoming = incoming
        return incoming


class Read(ExchangeStep):
    """Read the whole body; the outcome is bytes."""

    __slots__ = ("_hold", "_limit")

    def __init__(self, hold: OpenResponse, limit: int) -> None:
        self._hold = hold
        self._limit = limit

    def run(self) -> bytes:
        body = cast("Incoming", self._hold.incoming).read(self._limit)
        self._hold.close()
        return body

    async def async_run(self) -> bytes:
        body = await cast("AsyncIncoming", self._hold.incoming).read(self._limit)
        await self._hold.aclose()
        return body


class ReadStart(ExchangeStep):
    """Read at most `limit` bytes of the body; what is beyond them is left unread. The outcome is `content`."""

    __slots__ = ("_hold", "_limit", "content")

    def __init__(self, hold: OpenResponse, limit: int) -> None:
        self._hold = hold
        self._limit = limit
        self.content = b""
        """What came, also when reading failed."""

    def _add(self, piece: bytes) -> bool:
        self.content = (self.content + piece)[: self._limit]
        return len(self.content) == self._limit

    def run(self) -> bytes:
        for piece in cast("Incoming", self._hold.incoming).chunks():
            if self._add(piece):
                break
        self._hold.close()
        return self.content

    async def async_run(self) -> bytes:
        self._hold.chunks = chunks = cast("AsyncIncoming", self._hold.incoming).chunks()
        async for piece in chunks:
            if self._add(piece):
                break
        await self._hold.aclose()
        return self.content


class ReadChunk(ExchangeStep):
    """Wait for the next piece of the body; the outcome is bytes, or None at its end."""

    __slots__ = ("_hold",)

    def __init__(self, hold: OpenResponse) -> None:
        self._hold = hold

    def run(self) -> bytes | None:
        hold = self._hold
        if hold.chunks is None:
            hold.chunks = iter(cast("Incoming", hold.incoming).chunks())
        return next(cast("Iterator[bytes]", hold.chunks), None)

    async def async_run(self) -> bytes | None:
        hold = self._hold
        if hold.chunks is None:
            hold.chunks = cast("AsyncIncoming", hold.incoming).chunks()
        return await anext(cast("AsyncIterator[bytes]", hold.chunks), None)


class Close(ExchangeStep):
    """Free the connection of the open answer, if there is one."""

    __slots__ = ("_hold",)

    def __init__(self, hold: OpenResponse) -> None:
        self._hold = hold

    def run(self) -> None:
        self._hold.close()

    async def async_run(self) -> None:
        await self._hold.aclose()


class DrainBody(ExchangeStep):
    """The reader has all it needs: keep the connection if the end of the body is at hand, else free it."""

    __slots__ = ("_hold",)

    def __init__(self, hold: OpenResponse) -> None:
        self._hold = hold

    def run(self) -> None:
        hold = self._hold
        if isinstance(hold.incoming, Drains):
            hold.incoming.end_soon(_GRACE)
            with suppress(LMAgentError):
                for _ in hold.chunks or ():
                    pass
        hold.close()

    async def async_run(self) -> None:
        hold = self._hold
        if isinstance(hold.incoming, Drains) and hold.chunks is not None:
            hold.incoming.end_soon(_GRACE)
            with suppress(LMAgentError):
                async for _ in hold.chunks:
                    pass
        await hold.aclose()


_GRACE = 0.02
"""Seconds that the last bytes of a body may take after its last event; a new connection costs more than that."""


class Sleep(ExchangeStep):
    """Wait so many seconds."""

    __slots__ = ("_async_sleep", "_seconds", "_sleep")

    def __init__(
        self,
        seconds: float,
        sleep: Callable[[float], None],
        async_sleep: Callable[[float], Awaitable[None]] | None,
    ) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._async_sleep = async_sleep

    def run(self) -> None:
        self._sleep(self._seconds)

    async def async_run(self) -> None:
        sleep = self._async_sleep
        if sleep is None:
            from asyncio import sleep  # there already: someone runs a loop

        await sleep(self._seconds)


class AcquireLock(ExchangeStep):
    """Wait until it is this call's turn; the outcome says whether it came within `seconds`."""

    __slots__ = ("_seconds", "_turns")

    def __init__(self, turns: FairLock, seconds: float) -> None:
        self._turns = turns
        self._seconds = seconds

    def run(self) -> bool:
        return self._turns.take(self._seconds)

    async def async_run(self) -> bool:
        return await self._turns.async_take(self._seconds)
