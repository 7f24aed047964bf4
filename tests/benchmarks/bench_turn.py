"""S2, S3, S4: what a turn costs, with few and many tools, after a short and a long conversation.

Run `python -m tests.benchmarks.bench_turn`. A run is two requests: a call of one tool, then the answer.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from typing import Any

import httpx

from lmagent import Agent, AssistantMessage, History, OpenAIChat, ToolMessage, UserMessage, function
from lmagent.core.messages import Message, ToolCall
from tests.benchmarks import floor
from tests.benchmarks.measure import Row, async_interleaved, interleaved, show, spread
from tests.benchmarks.server import serving

ROUNDS = 18
MESSAGES = 400
PROMPT = "What is the weather in Shanghai?"


@function
def get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: Where to look.
    """
    return f"{city}: sunny, 21 degrees"


@function(name="get_weather")
async def async_get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: Where to look.
    """
    return f"{city}: sunny, 21 degrees"


def _other(number: int) -> Any:
    def search(query: str, limit: int = 10, language: str = "en", exact: bool = False) -> str:
        """Search one of the collections and return what was found there.

        Args:
            query: What to look for.
            limit: How many to return.
            language: Of the documents.
            exact: Whether words must match exactly.
        """
        return query

    return function(search, name=f"search_{number}")


OTHERS = [_other(number) for number in range(49)]


def _wire(tool: Any) -> dict[str, Any]:
    spec = tool.spec
    made = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": made}


def _conversation() -> list[Message]:
    """Return 100 rounds of four messages, 330 characters a message on average, as tools and models write them."""
    messages: list[Message] = []
    result = json.dumps([{"day": day, "high": 20 + day, "low": 11, "sky": "sunny", "wind": "NE 3"} for day in range(9)])
    answer = "It stays sunny in Shanghai all week, 20 to 28 degrees, with a light wind from the north-east. " * 5
    for number in range(MESSAGES // 4):
        call = ToolCall(id=f"old_{number}", name="get_weather", arguments='{"city":"Shanghai"}')
        messages += [
            UserMessage(
                f"Question {number}: what is the weather in Shanghai (上海), and what should I wear there today?"
            ),
            AssistantMessage("", (call,)),
            ToolMessage(result, call.id, "get_weather"),
            AssistantMessage(f"Answer {number}: {answer}"),
        ]
    return messages


def _plain(message: Message) -> dict[str, Any]:
    match message:
        case AssistantMessage(content, calls) if calls:
            made = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls
            ]
            return {"role": "assistant", "content": content or None, "tool_calls": made}
        case ToolMessage(content, call_id):
            return {"role": "tool", "tool_call_id": call_id, "content": content}
        case _:
            return {"role": message.role, "content": message.content}


def _row(name: str, ours: list[float], base: list[float], must: float | None, goal: float | None) -> Row:
    return Row(name, "us", statistics.median(ours), statistics.median(base), must, goal, spread=spread(ours))


def _growth(
    name: str, few: list[list[float]], many: list[list[float]], steps: int, must: float | None, goal: float | None
) -> Row:
    """A row of the difference of two scenarios, per step: within a round, as the machine changes between rounds."""
    ours, base = (
        statistics.median(after - before for before, after in zip(a, b, strict=True)) / steps
        for a, b in zip(few, many, strict=True)
    )
    return Row(name, "us", ours, base, must, goal, "ours")


def _sync(url: str) -> list[Row]:
    model = OpenAIChat("tool", api_key="k", base_url=url)
    one, fifty = Agent(model, tools=[get_weather]), Agent(model, tools=[get_weather, *OTHERS])
    wire_one, wire_fifty = [floor.WEATHER], [floor.WEATHER, *map(_wire, OTHERS)]
    messages = _conversation()
    asked = {"role": "user", "content": PROMPT}
    wire_messages = [*map(_plain, messages), asked]
    history, sequence = History(messages), tuple(messages)

    def long() -> None:
        one.run(PROMPT, history=history)
        history.truncate(MESSAGES)

    with httpx.Client() as client:
        times = interleaved(
            [
                lambda: one.run(PROMPT),
                lambda: floor.run(client, url, "tool", [asked], wire_one),
                lambda: fifty.run(PROMPT),
                lambda: floor.run(client, url, "tool", [asked], wire_fifty),
                long,
                lambda: floor.run(client, url, "tool", wire_messages, wire_one),
                lambda: one.run(PROMPT, history=sequence),
            ],
            rounds=ROUNDS,
            inner=20,
        )
    model.close()
    ours, base, ours_tools, base_tools, ours_long, base_long, ours_sequence = times
    few, requests = [ours, base], 2 * MESSAGES
    return [
        _row("S2 sync, run of 2 requests", ours, base, 1.2, 1.0),
        _growth("S3 growth from 1 to 50 tools, per request", few, [ours_tools, base_tools], 2, 60, 25),
        _row("S4 run on 400 messages", ours_long, base_long, 0.5, 0.3),
        _growth("S4 growth per old message and request", few, [ours_long, base_long], requests, 0.6, 0.35),
        _growth("S4 the same, history given as a tuple", few, [ours_sequence, base_long], requests, None, None),
    ]


async def _async(url: str) -> list[Row]:
    model = OpenAIChat("tool", api_key="k", base_url=url)
    agent, threaded = Agent(model, tools=[async_get_weather]), Agent(model, tools=[get_weather])
    asked = [{"role": "user", "content": PROMPT}]
    async with httpx.AsyncClient() as client:
        ours, base, in_thread = await async_interleaved(
            [
                lambda: agent.async_run(PROMPT),
                lambda: floor.async_run(client, url, "tool", asked, [floor.WEATHER]),
                lambda: threaded.async_run(PROMPT),
            ],
            rounds=ROUNDS,
            inner=20,
        )
    await model.aclose()
    return [
        _row("S2 async, run of 2 requests", ours, base, 1.2, 0.5),
        _row("S2 async, the tool in a thread", in_thread, base, None, None),
    ]


def rows() -> list[Row]:
    """Measure."""
    with serving() as url:
        return [*_sync(url), *asyncio.run(_async(url))]


if __name__ == "__main__":
    show(rows())
