"""What a request through a proxy costs, 256 at once: by hand on httpx, and ours.

Run `python -m tests.benchmarks.bench_proxy`. A process for each.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.benchmarks.measure import Row, children, median_of, show, spread
from tests.benchmarks.server import serving

AT_ONCE = 256
TIMES = 4


async def _crowd(one: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    begun = time.process_time()
    for _ in range(TIMES):
        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    print(json.dumps({"cpu": (time.process_time() - begun) / AT_ONCE / TIMES * 1e3}))


async def ours(proxy: str) -> None:
    """A child's work."""
    from lmagent import OpenAIChat
    from lmagent.http.transport import HttpTransport

    transport = HttpTransport(proxy=proxy)
    model = OpenAIChat("hello", api_key="k", base_url="http://api.example/v1", transport=transport)
    await _crowd(lambda: model.async_chat_completion("What is the weather in Shanghai?"))
    await model.aclose()


async def raw(proxy: str) -> None:
    """The same by hand."""
    import httpx

    from tests.benchmarks import floor

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    asked = [{"role": "user", "content": "What is the weather in Shanghai?"}]
    async with httpx.AsyncClient(proxy=proxy, limits=limits, timeout=120) as client:
        await _crowd(lambda: floor.async_run(client, "http://api.example/v1", "hello", asked, []))


def rows() -> list[Row]:
    """Measure."""
    code = "import asyncio, sys; from tests.benchmarks import bench_proxy as b\n"
    code += "asyncio.run(getattr(b, sys.argv[1])(sys.argv[2]))"
    with serving() as url:
        proxy = url.removesuffix("/v1")
        mine, base = children([(code, way, proxy) for way in ("ours", "raw")], rounds=3)
    spread_of = spread([item["cpu"] for item in mine])
    name = f"Request through a proxy, {AT_ONCE} at once"
    return [Row(name, "ms", median_of(mine, "cpu"), median_of(base, "cpu"), spread=spread_of)]


if __name__ == "__main__":
    show(rows())
