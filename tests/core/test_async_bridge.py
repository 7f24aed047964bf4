"""Async code of a synchronous run: one event loop, closed with the run."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from lmagent.core.async_bridge import in_loop, run_coroutine, shared_loop


async def current() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_without_a_shared_loop_each_call_has_a_loop_of_its_own():
    assert run_coroutine(current) is not run_coroutine(current)


def test_coroutines_in_the_block_share_one_loop_that_is_closed_afterwards():
    with shared_loop() as loop, in_loop(loop):
        first = run_coroutine(current)
        assert run_coroutine(current) is first
        with shared_loop() as inner, in_loop(inner):
            assert run_coroutine(current) is first
        assert not first.is_closed()
    assert first.is_closed()
    assert run_coroutine(current) is not first


def test_a_task_left_behind_is_cancelled_and_its_cleanup_runs():
    seen: list[str] = []

    async def leave() -> None:
        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                seen.append("cleaned")

        kept.append(asyncio.create_task(work()))
        await asyncio.sleep(0)

    kept: list[asyncio.Task[None]] = []
    with shared_loop() as loop, in_loop(loop):
        run_coroutine(leave)
        assert seen == []
    assert seen == ["cleaned"]
    assert kept[0].cancelled()


def test_sync_code_on_the_loop_may_run_a_coroutine_on_another_loop():
    async def outer() -> bool:
        return run_coroutine(current) is not asyncio.get_running_loop()

    with shared_loop() as loop, in_loop(loop):
        assert run_coroutine(outer)


def test_threads_share_the_loop_when_they_have_the_context():
    from contextvars import copy_context

    found: list[object] = []
    with shared_loop() as loop, in_loop(loop):
        threads = [
            threading.Thread(target=copy_context().run, args=(lambda: found.append(run_coroutine(current)),))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(map(id, found))) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_error_of_an_inner_task_reaches_the_caller_and_the_loop_goes_on(error: type[BaseException]):
    async def fail() -> None:
        raise error

    async def outer() -> None:
        await asyncio.gather(asyncio.create_task(fail()))

    with shared_loop() as loop, in_loop(loop):
        with pytest.raises(error):
            run_coroutine(outer)
        assert run_coroutine(current).is_running()


def test_context_variables_of_the_caller_are_seen():
    name: ContextVar[str] = ContextVar("name")

    async def read() -> str:
        return name.get()

    with shared_loop() as loop, in_loop(loop):
        for value in ("a", "b"):
            name.set(value)
            assert run_coroutine(read) == value
