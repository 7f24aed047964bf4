"""One framework at the work of the benchmarks: `python -m tests.benchmarks.peer NAME URL` in its own environment.

Each entry of `PEERS` shows its framework the way its own documentation does. Prints a JSON object. Imports nothing of
ours but for `lmagent` itself, since a peer's environment has only the peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

PROMPT = "What is the weather in Shanghai?"
EVENTS = 2000


class Ways(NamedTuple):
    """What a peer can do. A run is two requests: a call of one tool, then the answer."""

    run: Callable[[str, list[Any]], Callable[[], Awaitable[Any]]]
    """From the name of a model and functions to an asynchronous run."""
    stream: Callable[[str], AsyncIterator[Any]] | None
    """From the name of a model to the pieces of its answer."""


def get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: Where to look.
    """
    return f"{city}: sunny, 21 degrees"


def _search(number: int) -> Any:
    def search(query: str, limit: int = 10, language: str = "en", exact: bool = False) -> str:
        """Search one of the collections and return what was found there.

        Args:
            query: What to look for.
            limit: How many to return.
            language: Of the documents.
            exact: Whether words must match exactly.
        """
        return query

    search.__name__ = f"search_{number}"
    return search


def _described(tools: list[Any]) -> list[dict[str, Any]]:
    """Return the tools as they are sent, for those who describe them by hand; of the others only the length counts."""
    from tests.benchmarks import floor

    return [floor.WEATHER, *[{**floor.WEATHER, "more": "x" * 130}] * (len(tools) - 1)]


def lmagent(url: str) -> Ways:
    from lmagent import Agent, OpenAIChat, function

    def agent(model: str, tools: list[Any]) -> Any:
        return Agent(OpenAIChat(model, api_key="k", base_url=url), tools=[function(tool) for tool in tools])

    def run(model: str, tools: list[Any]) -> Any:
        made = agent(model, tools)
        return lambda: made.async_run(PROMPT)

    return Ways(run, lambda model: agent(model, []).async_stream_run(PROMPT))


def httpx(url: str) -> Ways:
    """By hand."""
    import httpx

    from tests.benchmarks import floor

    client = httpx.AsyncClient()
    asked = [{"role": "user", "content": PROMPT}]

    def run(model: str, tools: list[Any]) -> Any:
        described = _described(tools)
        return lambda: floor.async_run(client, url, model, asked, described)

    async def stream(model: str) -> AsyncIterator[Any]:
        yield await floor.async_stream(client, url, model, PROMPT)

    return Ways(run, stream)


def pydantic_ai(url: str) -> Ways:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def agent(model: str, tools: list[Any]) -> Any:
        return Agent(OpenAIChatModel(model, provider=OpenAIProvider(base_url=url, api_key="k")), tools=tools)

    def run(model: str, tools: list[Any]) -> Any:
        made = agent(model, tools)
        return lambda: made.run(PROMPT)

    async def stream(model: str) -> AsyncIterator[Any]:
        async with agent(model, []).run_stream(PROMPT) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                yield piece

    return Ways(run, stream)


def openai_agents(url: str) -> Ways:
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key="k")

    def agent(model: str, tools: list[Any]) -> Any:
        asked = OpenAIChatCompletionsModel(model=model, openai_client=client)
        return Agent(name="a", model=asked, tools=[function_tool(tool) for tool in tools])

    def run(model: str, tools: list[Any]) -> Any:
        made = agent(model, tools)
        return lambda: Runner.run(made, PROMPT)

    return Ways(run, lambda model: Runner.run_streamed(agent(model, []), PROMPT).stream_events())


def litellm(url: str) -> Ways:
    """It has no agent: the loop is by hand."""
    import litellm

    asked = [{"role": "user", "content": PROMPT}]

    def run(model: str, tools: list[Any]) -> Any:
        described = _described(tools)

        async def once() -> str:
            messages: list[Any] = list(asked)
            while True:
                answer = await litellm.acompletion(
                    f"openai/{model}", messages=messages, tools=described, api_base=url, api_key="k"
                )
                message = answer.choices[0].message
                messages.append(message)
                if not message.tool_calls:
                    return message.content
                for call in message.tool_calls:
                    result = get_weather(**json.loads(call.function.arguments))
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

        return once

    async def stream(model: str) -> AsyncIterator[Any]:
        answer = await litellm.acompletion(f"openai/{model}", messages=asked, api_base=url, api_key="k", stream=True)
        async for piece in answer:
            yield piece

    return Ways(run, stream)


def langchain(url: str) -> Ways:
    from langchain_openai import ChatOpenAI
    from langgraph.prebuilt import create_react_agent

    asked = {"messages": [("user", PROMPT)]}

    def run(model: str, tools: list[Any]) -> Any:
        made = create_react_agent(ChatOpenAI(model=model, base_url=url, api_key="k"), tools)
        return lambda: made.ainvoke(asked)

    return Ways(run, lambda model: ChatOpenAI(model=model, base_url=url, api_key="k").astream(PROMPT))


def smolagents(url: str) -> Ways:
    """Synchronous; it reads the sources of its tools, and its answer is a call of the tool `final_answer`."""
    from smolagents import LogLevel, OpenAIModel, ToolCallingAgent, tool

    def run(model: str, tools: list[Any]) -> Any:
        asked = OpenAIModel(model_id=f"final-{model}", api_base=url, api_key="k")
        made = ToolCallingAgent([tool(get_weather)], asked, verbosity_level=LogLevel.OFF)

        async def once() -> Any:
            return made.run(PROMPT)

        return once

    return Ways(run, None)


def agno(url: str) -> Ways:
    from agno.agent import Agent
    from agno.models.openai.like import OpenAILike

    def agent(model: str, tools: list[Any]) -> Any:
        return Agent(model=OpenAILike(id=model, api_key="k", base_url=url), tools=tools, telemetry=False)

    def run(model: str, tools: list[Any]) -> Any:
        made = agent(model, tools)
        return lambda: made.arun(PROMPT)

    return Ways(run, lambda model: agent(model, []).arun(PROMPT, stream=True))


def strands(url: str) -> Ways:
    from strands import Agent, tool
    from strands.models.openai import OpenAIModel

    def agent(model: str, tools: list[Any]) -> Any:
        asked = OpenAIModel(client_args={"api_key": "k", "base_url": url}, model_id=model)
        return Agent(model=asked, tools=tools, callback_handler=None)

    def run(model: str, tools: list[Any]) -> Any:
        made = agent(model, [tool(each) for each in tools])

        async def once() -> Any:
            made.messages.clear()
            return await made.invoke_async(PROMPT)

        return once

    return Ways(run, lambda model: agent(model, []).stream_async(PROMPT))


PEERS = {
    each.__name__.replace("_", "-"): each
    for each in (lmagent, httpx, pydantic_ai, openai_agents, litellm, langchain, smolagents, agno, strands)
}


async def _per_call(one: Callable[[], Awaitable[Any]], rounds: int = 7, inner: int = 10) -> float:
    """Return the median of rounds, in microseconds of CPU a call."""
    times: list[float] = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        for _ in range(inner):
            await one()
        times.append((time.process_time() - begun) / inner * 1e6)
    return statistics.median(times[1:])


async def _measure(ways: Ways) -> dict[str, float]:
    tools = [get_weather, *map(_search, range(49))]
    found = {"run": await _per_call(ways.run("tool", tools[:1]))}
    if ways.stream is not None:
        found["run_50"] = await _per_call(ways.run("tool", tools))
        stream = ways.stream

        async def read() -> None:
            async for _ in stream(f"burst-{EVENTS}"):
                pass

        found["event"] = await _per_call(read, 3, 1) / EVENTS
    return found


def main() -> None:
    """Measure the named one."""
    warnings.simplefilter("ignore")
    name, url = sys.argv[1:]
    before = time.process_time()
    ways = PEERS[name](url)
    imported = (time.process_time() - before) * 1e3
    found = {"import": imported, **asyncio.run(_measure(ways))}
    with open("/proc/self/status") as file:  # `getrusage` begins with what the parent had
        found["memory"] = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    print(json.dumps(found), flush=True)
    os._exit(0)  # some keep threads, or report at exit


if __name__ == "__main__":
    main()
