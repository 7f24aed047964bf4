"""Run async code from sync code, and await a blocking call from async code.

A coroutine runs on an event loop of its own, in a thread that lives as long as the call. So it also works inside a
running event loop; the caller's loop is not touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["POLL_INTERVAL", "in_thread", "run_coroutine"]

T = TypeVar("T")

POLL_INTERVAL = 0.5
"""Seconds; longest single wait of a thread that has to notice Ctrl-C. A Ctrl-C that comes just before a wait begins is
noticed only when the wait ends."""


def run_coroutine(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what the coroutine of `make()` returns, or raise what it raises. It sees the caller's context variables.

    Ctrl-C while waiting cancels the coroutine, waits for its `finally` blocks and is raised again.
    """
    import asyncio  # takes 20 ms to import; a synchronous program only needs it for a coroutine

    results: list[T] = []
    failures: list[BaseException] = []
    tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    context = copy_context()

    async def tracked() -> T:
        task = asyncio.current_task()
        assert task is not None
        tasks.append((asyncio.get_running_loop(), task))
        return await make()

    def work() -> None:
        try:
            with asyncio.Runner() as runner:
                results.append(runner.run(tracked(), context=context))
        except BaseException as error:  # raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="lmagent-async-bridge", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_INTERVAL)
    except BaseException:
        for loop, task in tasks:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if failures:
        raise failures[0]
    return results[0]


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work()` in a thread of its own and return its result. Cancelling stops the waiting, not the thread."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def settle(finish: Callable[[], None]) -> None:
        if not future.done():
            finish()

    def body() -> None:
        try:
            finish = partial(future.set_result, context.run(work))
        except BaseException as error:  # raised again in the waiting task
            finish = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop was closed while a cancelled call still ran
            loop.call_soon_threadsafe(settle, finish)

    threading.Thread(target=body, name="lmagent-async-bridge", daemon=True).start()
    return await future
