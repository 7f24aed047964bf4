"""What is left of many runs: resident memory after 10,000 of them, and what one costs then.

Run `python -m tests.benchmarks.bench_long`. A process of its own.
"""

from __future__ import annotations

import json
import time

from tests.benchmarks.bench_concurrency import memory
from tests.benchmarks.measure import Row, children, show
from tests.benchmarks.server import serving

RUNS = 10_000
WARM = 500


def work(url: str) -> None:
    """A child's work."""
    from lmagent import Agent, OpenAIChat
    from tests.benchmarks.bench_turn import PROMPT, get_weather

    agent = Agent(OpenAIChat("tool", api_key="k", base_url=url), tools=[get_weather])

    def timed(runs: int) -> float:
        begun = time.process_time()
        for _ in range(runs):
            agent.run(PROMPT)
        return (time.process_time() - begun) / runs * 1e6

    timed(WARM)
    before, first = memory(), timed(WARM)
    timed(RUNS - 2 * WARM)
    print(json.dumps({"memory": (memory() - before) / 1024, "first": first, "last": timed(WARM)}))


def rows() -> list[Row]:
    """Measure."""
    code = "import sys; from tests.benchmarks import bench_long; bench_long.work(sys.argv[1])"
    with serving() as url:
        [[found]] = children([(code, url)], rounds=1, warm=False)
    return [
        Row(f"Resident memory after {RUNS} runs, more than before", "MB", found["memory"], None, 2, 2, "ours"),
        Row(f"A run after {RUNS} others, over one at the start", "x", found["last"] / found["first"]),
    ]


if __name__ == "__main__":
    show(rows())
