"""From one colour to the other: a coroutine run to its end from synchronous code, a blocking call awaited.

A coroutine gets a private loop in a thread that lives as long as the call, so it also works inside a running event
loop; nothing of the caller's loop is touched.
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
"""Longest wait at once, in seconds, of a thread that is to hear a Ctrl-C: one that comes just before a wait begins is
heard only at its end."""


def run_coroutine(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what the coroutine of `make()` returns, or raise what it raises. Context variables go along.

    Ctrl-C while waiting cancels the coroutine, waits for its `finally` blocks and is raised again.
    """
    import asyncio  # 20 ms that a synchronous program only pays when it meets a coroutine

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
        except BaseException as error:  # carried over to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="lmagent-portal", daemon=True)
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
    """Return what `work()` returns in a thread of its own. Cancelling stops the waiting, not the thread."""
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
        except BaseException as error:  # carried over to the waiting task
            finish = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop was closed while a dropped call still ran
            loop.call_soon_threadsafe(settle, finish)

    threading.Thread(target=body, name="lmagent-portal", daemon=True).start()
    return await future
