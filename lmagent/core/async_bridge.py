"""Run async code from sync code, and await a blocking call from async code.

A coroutine runs on an event loop in a thread. So it also works inside a running event loop; the caller's loop is not
touched. All coroutines of one synchronous run share one loop (`shared_loop`), so that a client with open connections, a
semaphore or a background task of one tool call still works in the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["POLL_INTERVAL", "SharedLoop", "in_loop", "in_thread", "run_coroutine", "shared_loop"]

T = TypeVar("T")

POLL_INTERVAL = 0.5
"""Seconds; longest single wait of a thread that has to notice Ctrl-C. A Ctrl-C that comes just before a wait begins is
noticed only when the wait ends."""


class SharedLoop:
    """An event loop in a thread of its own for all async code of one synchronous run; it starts with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether this thread may wait for it: it is not closed, and this is not the loop's own thread."""
        return not self._is_closed and self._thread is not threading.current_thread()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the coroutine of `make()` returns, or raise what it raises; see `run_coroutine`."""
        loop, thread = self._started()
        results: list[T] = []
        failures: list[BaseException] = []
        tasks: list[asyncio.Task[None]] = []
        done = threading.Event()
        context = copy_context()

        async def tracked() -> None:
            try:
                results.append(await make())
            except BaseException as error:  # raised again in the caller's thread
                failures.append(error)
            finally:
                done.set()

        def start() -> None:
            tasks.append(loop.create_task(tracked(), context=context))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        loop.call_soon_threadsafe(start)
        try:
            while not done.wait(POLL_INTERVAL) and thread.is_alive():
                continue
        except BaseException:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(cancel)
            while not done.wait(POLL_INTERVAL) and thread.is_alive():
                continue
            raise
        if failures:
            raise failures[0]
        if not results:
            raise RuntimeError("The event loop was closed before the coroutine ended.")
        return results[0]

    def close(self) -> None:
        """Cancel what still runs in the loop, wait for its `finally` blocks and close the loop."""
        with self._lock:
            self._is_closed = True
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with suppress(RuntimeError):  # closed already
            loop.call_soon_threadsafe(loop.stop)
        while thread.is_alive():
            thread.join(POLL_INTERVAL)

    def _started(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        import asyncio  # takes 20 ms to import; a synchronous program only needs it for a coroutine

        with self._lock:
            if self._is_closed:
                raise RuntimeError("The event loop of this run is closed.")
            if self._loop is None or self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._work, args=(self._loop,), name="lmagent-async-bridge", daemon=True
                )
                self._thread.start()
            return self._loop, self._thread

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop()
            while not self._is_closed:
                # An inner task that raises KeyboardInterrupt or SystemExit stops the loop; the caller gets it by `run`.
                with suppress(KeyboardInterrupt, SystemExit):
                    loop.run_forever()


_ACTIVE: ContextVar[SharedLoop | None] = ContextVar("lmagent_shared_loop", default=None)


@contextmanager
def shared_loop() -> Generator[SharedLoop]:
    """Give the event loop for a whole synchronous run, and close it at the end; a run inside a run shares its loop.

    Only `in_loop` makes `run_coroutine` use it, because a generator must not leave a context variable set.
    """
    outer = _ACTIVE.get()
    if outer is not None and outer.is_usable:
        yield outer
        return
    with closing(SharedLoop()) as own:
        yield own


@contextmanager
def in_loop(loop: SharedLoop) -> Generator[None]:
    """Let every `run_coroutine` in the block use `loop`, also in threads that tools run in."""
    token = _ACTIVE.set(loop)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def run_coroutine(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what the coroutine of `make()` returns, or raise what it raises. It sees the caller's context variables.

    It runs on the event loop of the run (`in_loop`), else on a loop of its own. Ctrl-C while waiting cancels the
    coroutine, waits for its `finally` blocks and is raised again.
    """
    active = _ACTIVE.get()
    if active is not None and active.is_usable:
        return active.run(make)
    with closing(SharedLoop()) as own:
        return own.run(make)


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
