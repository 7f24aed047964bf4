"""A blocking iterator read from an event loop: a thread of its own waits for the items and keeps a few in reserve."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import copy_context
from inspect import isgenerator
from typing import Any

__all__ = ["InThread"]

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
