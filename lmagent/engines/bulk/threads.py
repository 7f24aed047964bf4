"""An async iterator read from synchronous code: a private event loop in one thread that lives as long as the reader.

Works inside a running event loop too. Whatever ends the reading (its end, an error, `close()`, Ctrl-C, being dropped)
closes the async iterator, its loop and its thread before it returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, suppress
from contextvars import copy_context
from inspect import isgenerator
from typing import Any, TypeVar

from lmagent.core.async_bridge import NAP

__all__ = ["InThread", "iterate"]

_RESERVE = 32
"""Items taken before they are asked for: waking a thread for each would cost more than most items do."""
_PATIENCE = 1.0
"""Seconds that closing waits for an iterator that is waiting itself; its thread then ends when that wait does."""
_END: Any = object()


class InThread(AsyncIterator[Any]):
    """Gives the items of an iterator. Nobody asks for one while another is asked for."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._reserve: deque[tuple[Any, BaseException | None]] = deque()
        self._changed = threading.Condition()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    async def __anext__(self) -> Any:
        if self._thread is None:
            work = copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="lmagent-source", daemon=True)
            self._thread.start()
        while not self._reserve:
            waiter = None
            with self._changed:
                self._changed.notify()
                if not self._reserve:
                    self._waiter = waiter = asyncio.get_running_loop().create_future()
            if waiter is not None:
                await waiter
        item, failure = self._reserve.popleft()
        if item is not _END:
            return item
        self._reserve.append((_END, None))  # whoever asks again meets the end again
        raise failure or StopAsyncIteration

    def _work(self) -> None:
        item, failure = None, None
        while item is not _END and not self._closed:
            try:
                item = next(self._iterator, _END)
            except BaseException as error:  # carried over to the loop's thread
                item, failure = _END, error
            with self._changed:
                self._reserve.append((item, failure))
                self._wake()
                while len(self._reserve) >= _RESERVE and not self._closed:
                    self._changed.wait()  # until the reserve is used up
        with self._changed:
            while not self._closed:
                self._changed.wait()
        with suppress(Exception):
            if isgenerator(self._iterator):
                self._iterator.close()
        with self._changed:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with suppress(RuntimeError):  # the loop has gone
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    async def aclose(self) -> None:
        """Close a generator and end the thread."""
        if self._thread is None:
            return
        with self._changed:
            self._closed = True
            self._waiter = over = asyncio.get_running_loop().create_future()
            self._changed.notify()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await over
                self._thread.join()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # who waited may have been cancelled
        waiter.set_result(None)


T = TypeVar("T")

_BUFFER = 64


class _Channel(deque[T]):
    """Items on their way from the loop's thread to the reader's."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.over = False
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.room: asyncio.Event | None = None

    async def fill(self, make: Callable[[], AsyncGenerator[T]]) -> None:
        """Put in what the iterator yields; waits while the reader is behind."""
        self.loop, self.task, self.room = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        with self.changed:
            self.changed.notify()
        async with aclosing(make()) as items:
            async for item in items:
                with self.changed:
                    self.append(item)
                    self.changed.notify()
                    full = len(self) >= _BUFFER
                    if full:
                        self.room.clear()
                if full:
                    await self.room.wait()

    def read(self) -> Generator[T]:
        while True:
            with self.changed:
                while not self and not self.over:
                    self.changed.wait(NAP)
                if not self:
                    break
                item = self.popleft()
                wake = len(self) == _BUFFER // 2
            if wake and self.loop is not None and self.room is not None:
                with suppress(RuntimeError):  # closed meanwhile
                    self.loop.call_soon_threadsafe(self.room.set)
            yield item
        if self.failure is not None:
            raise self.failure

    def cancel(self) -> None:
        """End the filling; also one that has hardly begun."""
        with self.changed:
            while self.task is None and not self.over:
                self.changed.wait()
        if self.loop is not None and self.task is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.task.cancel)


def iterate(make: Callable[[], AsyncGenerator[T]], *, stop: Callable[[], bool] = lambda: False) -> Generator[T]:
    """Yield what the async iterator of `make()` yields, or raise what it raises.

    Args:
        make: Makes the async iterator, in its loop.
        stop: Asked at a Ctrl-C; True: the iterator is about to end, and runs to its end unheard. A second Ctrl-C
            closes it.
    """
    channel: _Channel[T] = _Channel()
    context = copy_context()

    def work() -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(channel.fill(make), context=context)
        except asyncio.CancelledError:
            pass  # the reader went away
        except BaseException as error:  # carried over to the reader's thread
            channel.failure = error
        finally:
            with channel.changed:
                channel.over = True
                channel.changed.notify()

    thread = threading.Thread(target=work, name="lmagent-bulk", daemon=True)
    thread.start()
    try:
        yield from channel.read()
    except KeyboardInterrupt:
        if stop():
            with suppress(Exception):
                deque(channel.read(), maxlen=0)
        raise
    finally:
        channel.cancel()
        thread.join()
