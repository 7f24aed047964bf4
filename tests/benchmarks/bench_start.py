"""S1: what a start costs. Every sample is a process of its own; the bare interpreter is not counted.

Run `python -m tests.benchmarks.bench_start`.
"""

from __future__ import annotations

import statistics

from tests.benchmarks.measure import Row, children, median_of, show, spread
from tests.benchmarks.server import serving

ROUNDS = 9

# Not `getrusage`: what it says of a child begins with its parent's own.
_PRINT = """
import json
[most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"cpu": (end - begun) * 1e3, "rss": int(most) / 1024}))
"""
_BEGIN = "import sys, time\nbegun = time.process_time()\n"
_END = "\nend = time.process_time()\n"

OURS_IMPORT = _BEGIN + "from lmagent import Agent, OpenAIChat, function" + _END + _PRINT
FLOOR_IMPORT = _BEGIN + "import httpx, json" + _END + _PRINT

_OURS_RUN = """
from lmagent import Agent, OpenAIChat, function

@function
def get_weather(city: str) -> str:
    '''Get the weather of a city.

    Args:
        city: Where to look.
    '''
    return f"{city}: sunny, 21 degrees"

agent = Agent(OpenAIChat(sys.argv[2], api_key="k", base_url=sys.argv[1]), tools=[get_weather])
assert agent.run("What is the weather in Shanghai?").reply == "Sunny, 21 degrees."
"""
_FLOOR_RUN = """
import httpx
from tests.benchmarks import floor
client = httpx.Client()
assert floor.run(client, sys.argv[1], sys.argv[2], [{"role": "user", "content": "?"}], [floor.WEATHER])
"""
OURS_RUN = _BEGIN + _OURS_RUN + _END + _PRINT
FLOOR_RUN = _BEGIN + _FLOOR_RUN + _END + _PRINT


def rows() -> list[Row]:
    """Measure."""
    with serving() as url:
        samples = children(
            [
                (OURS_IMPORT,),
                (FLOOR_IMPORT,),
                (OURS_RUN, url, "hello"),
                (FLOOR_RUN, url, "hello"),
                (OURS_RUN, url, "tool"),
                (FLOOR_RUN, url, "tool"),
            ],
            rounds=ROUNDS,
        )
    (ours_import, floor_import, ours_first, floor_first, ours_run, floor_run) = samples

    def spread_of(items: list[dict[str, float]]) -> float:
        return spread([item["cpu"] for item in items])

    return [
        Row(
            "S1 CPU of the import", "ms", median_of(ours_import, "cpu"), median_of(floor_import, "cpu"), 0.5, 0.25,
            spread=spread_of(ours_import),
        ),
        Row(
            "S1 start to first request", "ms", median_of(ours_first, "cpu"), median_of(floor_first, "cpu"), 1.6, 1.2,
            spread=spread_of(ours_first),
        ),
        Row(
            "S1 resident memory of a hello run", "MB", median_of(ours_first, "rss"), median_of(floor_first, "rss"),
            38, 32, "ours",
        ),
        Row("S1 start to the end of a tool run", "ms", median_of(ours_run, "cpu"), median_of(floor_run, "cpu")),
        Row("S1 resident memory of a tool run", "MB", statistics.median(i["rss"] for i in ours_run),
            median_of(floor_run, "rss")),
    ]  # fmt: skip


if __name__ == "__main__":
    show(rows())
