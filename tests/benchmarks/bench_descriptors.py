"""3,000 runs at once with 256 file descriptors and with 4,096: `python -m tests.benchmarks.bench_descriptors`.

Async and on 300 threads, a process each; all runs must finish, and few descriptors may take three times the wall time.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.measure import children
from tests.benchmarks.server import serving

RUNS = 3000


def crowd(url: str, limit: int, threads: int) -> None:
    """A child's work: print the wall time of all runs."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    from lmagent import Agent, OpenAIChat

    agent = Agent(OpenAIChat("slow", api_key="k", base_url=url, timeout=300))

    async def together() -> None:
        await asyncio.gather(*(agent.async_run("Hi.") for _ in range(RUNS)))

    begun = time.perf_counter()
    if threads:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: agent.run("Hi."), range(RUNS)))
    else:
        asyncio.run(together())
    print(json.dumps({"wall": time.perf_counter() - begun}))


def main() -> None:
    code = "import sys; from tests.benchmarks.bench_descriptors import crowd\n"
    code += "crowd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
    with serving() as url:
        for threads in (0, 300):
            found = children([(code, url, str(limit), str(threads)) for limit in (256, 4096)], rounds=2)
            few, many = (min(item["wall"] for item in each) for each in found)
            how = f"on {threads} threads" if threads else "async"
            print(f"{RUNS} runs {how}: {few:.1f} s with 256, {many:.1f} s with 4096, {few / many:.2f}x")
            if few > 3 * many:
                sys.exit("more than three times the wall time")


if __name__ == "__main__":
    main()
