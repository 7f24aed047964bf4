"""The four versions of each verb (sync, async, streamed, async streamed), and checks for leaked threads and tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lmagent import Agent, ChatEngine, ChatModel, RunResult
from lmagent.core.messages import Reply

AgentVerb = Callable[..., RunResult]


def run(agent: Agent, prompt: Any, **options: Any) -> RunResult:
    return agent.run(prompt, **options)


def async_run(agent: Agent, prompt: Any, **options: Any) -> RunResult:
    return asyncio.run(agent.async_run(prompt, **options))


def stream_run(agent: Agent, prompt: Any, **options: Any) -> RunResult:
    return list(agent.stream_run(prompt, **options))[-1].result  # type: ignore[union-attr]


def async_stream_run(agent: Agent, prompt: Any, **options: Any) -> RunResult:
    async def main() -> RunResult:
        return [event async for event in agent.async_stream_run(prompt, **options)][-1].result  # type: ignore[union-attr]

    return asyncio.run(main())


def inside_a_loop(agent: Agent, prompt: Any, **options: Any) -> RunResult:
    """Call `run` from code inside a running event loop."""

    async def main() -> RunResult:
        return agent.run(prompt, **options)

    return asyncio.run(main())


def streamed_inside_a_loop(agent: Agent, prompt: Any, **options: Any) -> RunResult:
    async def main() -> RunResult:
        return stream_run(agent, prompt, **options)

    return asyncio.run(main())


AGENT_VERBS: tuple[AgentVerb, ...] = (run, async_run, stream_run, async_stream_run)
AGENT_VERBS_AND_LOOPS: tuple[AgentVerb, ...] = (*AGENT_VERBS, inside_a_loop, streamed_inside_a_loop)


def chat(engine: ChatEngine, prompt: Any, **options: Any) -> RunResult:
    return engine.chat(prompt, **options)


def async_chat(engine: ChatEngine, prompt: Any, **options: Any) -> RunResult:
    return asyncio.run(engine.async_chat(prompt, **options))


def stream_chat(engine: ChatEngine, prompt: Any, **options: Any) -> RunResult:
    return list(engine.stream_chat(prompt, **options))[-1].result  # type: ignore[union-attr]


def async_stream_chat(engine: ChatEngine, prompt: Any, **options: Any) -> RunResult:
    async def main() -> RunResult:
        return [event async for event in engine.async_stream_chat(prompt, **options)][-1].result  # type: ignore[union-attr]

    return asyncio.run(main())


def chat_inside_a_loop(engine: ChatEngine, prompt: Any, **options: Any) -> RunResult:
    async def main() -> RunResult:
        return engine.chat(prompt, **options)

    return asyncio.run(main())


ENGINE_VERBS = (chat, async_chat, stream_chat, async_stream_chat, chat_inside_a_loop)


def complete(model: ChatModel, prompt: Any, **options: Any) -> Reply:
    return model.chat_completion(prompt, **options)


def async_complete(model: ChatModel, prompt: Any, **options: Any) -> Reply:
    async def main() -> Reply:
        try:
            return await model.async_chat_completion(prompt, **options)
        finally:
            await model.aclose()

    return asyncio.run(main())


def stream_complete(model: ChatModel, prompt: Any, **options: Any) -> Reply:
    last = list(model.stream_chat_completion(prompt, **options))[-1]
    assert isinstance(last, Reply)
    return last


def async_stream_complete(model: ChatModel, prompt: Any, **options: Any) -> Reply:
    async def main() -> Reply:
        try:
            last = [item async for item in model.async_stream_chat_completion(prompt, **options)][-1]
        finally:
            await model.aclose()
        assert isinstance(last, Reply)
        return last

    return asyncio.run(main())


def complete_inside_a_loop(model: ChatModel, prompt: Any, **options: Any) -> Reply:
    async def main() -> Reply:
        return model.chat_completion(prompt, **options)

    return asyncio.run(main())


MODEL_VERBS = (complete, async_complete, stream_complete, async_stream_complete, complete_inside_a_loop)


@contextmanager
def nothing_left(within: float = 1.0) -> Iterator[None]:
    """Fail if a thread that the block started is still alive `within` seconds after its end."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + within
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name != "loopback"]
    for thread in left:
        thread.join(max(until - time.monotonic(), 0))
    assert not [thread for thread in left if thread.is_alive()]


async def no_tasks_left() -> None:
    """Fail if the running loop has any task other than this one."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
