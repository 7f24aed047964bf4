"""What a request through a proxy costs, 256 at once: by hand on httpx, ours, and ours with the extra `lmagent[fast]`.

Run `python -m tests.benchmarks.bench_proxy`. A process for each.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
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


async def plain(proxy: str) -> None:
    """Ours as if the extra were not installed."""
    sys.modules["httpx_aiohttp"] = None  # type: ignore[assignment]
    await ours(proxy)


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
    ways = {"plain": "httpx", **({"ours": "lmagent[fast]"} if find_spec("httpx_aiohttp") else {})}
    with serving() as url:
        proxy = url.removesuffix("/v1")
        *mine, base = children([(code, way, proxy) for way in (*ways, "raw")], rounds=3)
    return [
        Row(
            f"Request through a proxy, {AT_ONCE} at once, {name}", "ms", median_of(items, "cpu"),
            median_of(base, "cpu"), spread=spread([item["cpu"] for item in items]),
        )
        for name, items in zip(ways.values(), mine, strict=True)
    ]  # fmt: skip


if __name__ == "__main__":
    show(rows())
