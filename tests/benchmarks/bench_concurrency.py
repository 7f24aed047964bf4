"""S6: 1,000 runs at once, each two requests that take the server 0.2 s. A process for each side.

Run `python -m tests.benchmarks.bench_concurrency`. httpx's pool walks all its connections for each request, so that
1,000 runs of the floor are most of a minute of work: the floor does 200, which is cheaper for it, unless `--full`.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.benchmarks.measure import Row, children, median_of, show, spread
from tests.benchmarks.server import SLOW, serving

RUNS = 1000
FLOOR_RUNS = 200
IDEAL = 2 * SLOW


def memory() -> float:
    """Return KB of this process that are resident now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


async def _crowd(one: Callable[[], Awaitable[Any]], runs: int) -> None:
    """Print what `runs` at once cost, after some that warm up."""
    await asyncio.gather(*(one() for _ in range(10)))
    before, peak = memory(), 0.0

    async def look() -> None:
        nonlocal peak
        while True:
            peak = max(peak, memory())
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(look())
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(runs)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    watcher.cancel()
    print(json.dumps({"cpu": cpu / runs * 1e3, "wall": wall / IDEAL, "memory": (peak - before) / runs}))


async def ours(url: str, runs: int) -> None:
    """A child's work."""
    from lmagent import Agent, OpenAIChat
    from tests.benchmarks.bench_turn import async_get_weather

    model = OpenAIChat("slow", api_key="k", base_url=url, timeout=120)
    agent = Agent(model, tools=[async_get_weather])
    await _crowd(lambda: agent.async_run("What is the weather in Shanghai?"), runs)


async def raw(url: str, runs: int) -> None:
    """The same by hand."""
    import httpx

    from tests.benchmarks import floor

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        asked = [{"role": "user", "content": "What is the weather in Shanghai?"}]
        await _crowd(lambda: floor.async_run(client, url, "slow", asked, [floor.WEATHER]), runs)


def rows(*, full: bool = False, rounds: int = 3) -> list[Row]:
    """Measure."""
    code = "import asyncio, sys; from tests.benchmarks import bench_concurrency as b\n"
    code += "asyncio.run(getattr(b, sys.argv[1])(sys.argv[2], int(sys.argv[3])))"
    floor_runs = RUNS if full else FLOOR_RUNS
    with serving() as url:
        mine, floor = children(
            [(code, "ours", url, str(RUNS)), (code, "raw", url, str(floor_runs))], rounds=1 if full else rounds
        )
    note = "" if full else f" (floor: {floor_runs})"

    def row(name: str, unit: str, key: str, must: float, goal: float) -> Row:
        spread_of = spread([item[key] for item in mine]) if len(mine) > 1 else 0.0
        return Row(name, unit, median_of(mine, key), median_of(floor, key), must, goal, "ours", spread_of)

    return [
        row(f"S6 CPU per run, {RUNS} at once{note}", "ms", "cpu", 2.5, 1.2),
        row(f"S6 wall over ideal ({IDEAL} s)", "x", "wall", 6, 4),
        row("S6 memory per run in flight", "KB", "memory", 40, 30),
    ]


if __name__ == "__main__":
    show(rows(full="--full" in sys.argv))
