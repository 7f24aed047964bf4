"""S5: what an event of a stream costs: all at once, one by one, and long arguments in pieces of 4 bytes.

Run `python -m tests.benchmarks.bench_stream`.
"""

from __future__ import annotations

import asyncio
import statistics

import httpx

from lmagent import Agent, OpenAIChat, function
from tests.benchmarks import floor
from tests.benchmarks.measure import Row, async_interleaved, interleaved, show, spread
from tests.benchmarks.server import serving

BURST = 2000
PACED = 300
SIZES = (25_000, 50_000, 100_000, 200_000)


@function
def save(text: str) -> str:
    """Save a text.

    Args:
        text: What to save.
    """
    return str(len(text))


def _agent(url: str, model: str) -> Agent:
    return Agent(OpenAIChat(model, api_key="k", base_url=url), tools=[save])


def _read(agent: Agent) -> int:
    events = 0
    for _ in agent.stream_run("Go on."):
        events += 1
    return events


async def _async_read(agent: Agent) -> int:
    events = 0
    async for _ in agent.async_stream_run("Go on."):
        events += 1
    return events


def _per_event(name: str, ours: list[float], base: list[float], events: int, must: float, goal: float) -> Row:
    middle = [statistics.median(times) / events for times in (ours, base)]
    return Row(name, "us", *middle, must, goal, spread=spread(ours))


def _sync(url: str) -> list[Row]:
    burst, longest = f"burst-{BURST}", f"arguments-{SIZES[-1]}"
    agent, agents = _agent(url, burst), {size: _agent(url, f"arguments-{size}") for size in SIZES}
    assert _read(agent) > BURST
    with httpx.Client(timeout=60) as client:
        assert floor.stream(client, url, burst, "Go on.") > BURST
        ours, base = interleaved(
            [lambda: _read(agent), lambda: floor.stream(client, url, burst, "Go on.")], rounds=7, inner=2
        )
        *sized, base_longest = interleaved(
            [
                *(lambda size=size: _read(agents[size]) for size in SIZES),
                lambda: floor.stream(client, url, longest, "Go on."),
            ],
            rounds=3,
            inner=1,
        )
    times = [statistics.median(each) / 1e3 for each in sized]
    rows = [_per_event("S5 burst, per event, sync", ours, base, BURST, 1.0, 0.4)]
    for size, time in zip(SIZES[:-1], times, strict=False):
        rows.append(Row(f"S5 {size // 1000} KB arguments in 4-byte deltas", "ms", time))
    last = Row("S5 200 KB arguments in 4-byte deltas", "ms", times[-1], statistics.median(base_longest) / 1e3, 1.0, 0.4)
    last.spread = spread(sized[-1])
    return [
        *rows,
        last,
        Row("S5 time at 200 KB over time at 100 KB", "x", times[-1] / times[-2], None, 2.1, 2.1, "ours"),
    ]


async def _async(url: str) -> list[Row]:
    rows: list[Row] = []
    async with httpx.AsyncClient(timeout=60) as client:
        for name, model, events, rounds, must, goal in (
            ("S5 burst, per event, async", f"burst-{BURST}", BURST, 7, 1.0, 0.4),
            ("S5 paced, per event, async", f"paced-{PACED}", PACED, 5, 1.05, 0.8),
        ):
            agent = _agent(url, model)
            ours, base = await async_interleaved(
                [
                    lambda agent=agent: _async_read(agent),
                    lambda model=model: floor.async_stream(client, url, model, "Go on."),
                ],
                rounds=rounds,
                inner=1,
            )
            rows.append(_per_event(name, ours, base, events, must, goal))
            await agent.model.aclose()
    return rows


def rows() -> list[Row]:
    """Measure."""
    with serving() as url:
        return [*_sync(url), *asyncio.run(_async(url))]


if __name__ == "__main__":
    show(rows())
