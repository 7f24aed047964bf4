"""A blocking iterator read from an event loop: a thread of its own waits for each item, when it is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import copy_context
from inspect import isgenerator
from queue import SimpleQueue
from typing import Any

__all__ = ["InThread"]

_PATIENCE = 1.0
"""Seconds that closing waits for an iterator that is waiting itself; its thread then ends when that wait does."""
_END: Any = object()


class InThread(AsyncIterator[Any]):
    """Gives the items of an iterator. Nobody asks for one while another is asked for."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._asked: SimpleQueue[tuple[asyncio.Future[Any], bool]] = SimpleQueue()
        """Who waits, and whether for an item or for the end."""
        self._thread: threading.Thread | None = None

    async def __anext__(self) -> Any:
        if self._thread is None:
            work = copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="lmagent-source", daemon=True)
            self._thread.start()
        item = await self._ask(more=True)
        if item is _END:
            raise StopAsyncIteration
        return item

    def _ask(self, *, more: bool) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._asked.put((future, more))
        return future

    def _work(self) -> None:
        more = True
        while more:
            future, more = self._asked.get()
            item, failure = _END, None
            try:
                if more:
                    item = next(self._iterator, _END)
                elif isgenerator(self._iterator):
                    self._iterator.close()
            except BaseException as error:  # carried over to the loop's thread
                failure = error
            with suppress(RuntimeError):  # the loop has gone
                future.get_loop().call_soon_threadsafe(_resolve, future, item, failure)

    async def aclose(self) -> None:
        """Close a generator and end the thread."""
        if self._thread is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._ask(more=False)
                    self._thread.join()


def _resolve(future: asyncio.Future[Any], item: Any, failure: BaseException | None) -> None:
    if future.done():
        return  # who waited was cancelled
    if failure is None:
        future.set_result(item)
    else:
        future.set_exception(failure)
