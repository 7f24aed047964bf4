"""Bulk runs against a loopback server in a process of its own: throughput, and limits by real time.

    python tests/benchmarks/bench_bulk.py [--requests 3000] [--concurrency 256]

Throughput stands beside a floor: a hand-written loop of as many tasks on httpx and json, without validation. The limits
run in a scaled minute; the server keeps arrival times and tokens, answers one in 60 with a 429, and is the judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from bisect import bisect_right
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lmagent.asking.limits import RateLimiter
from lmagent.engines.completion import CompletionEngine
from lmagent.models.model import ChatModel
from lmagent.providers.openai.chat import OpenAICodec


class Server(asyncio.Protocol):
    """The smallest HTTP server that keeps connections: every answer costs 10 + length-of-the-prompt tokens."""

    arrivals: list[tuple[float, int]] = []
    refuse_every = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        tokens = 10 + len(json.loads(body)["messages"][-1]["content"])
        Server.arrivals.append((time.monotonic(), tokens))
        if self.refuse_every and len(Server.arrivals) % self.refuse_every == 0:
            self.send(b"429 No", b'{"error": {"message": "slow down"}}', b"retry-after-ms: 50\r\n")
            return
        usage = {"prompt_tokens": 5, "completion_tokens": tokens - 5, "total_tokens": tokens}
        message = {"role": "assistant", "content": "fine"}
        answer = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
        asyncio.get_running_loop().call_later(0.02, self.send, b"200 OK", answer)

    def send(self, status: bytes, body: bytes, more: bytes = b"") -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        self.transport.write(head % (status, more, len(body)) + body)


def serve(pipe: Connection) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            wish = await loop.run_in_executor(None, pipe.recv)
            if wish == "stop":
                return
            pipe.send(Server.arrivals)
            Server.arrivals, Server.refuse_every = [], wish

    asyncio.run(main())


def engine_of(url: str, concurrency: int, **options: Any) -> CompletionEngine:
    return CompletionEngine(ChatModel(OpenAICodec("m", base_url=url)), concurrency, **options)


def prompts(count: int) -> Any:
    return (f"prompt {number}" for number in range(count))


async def floor(url: str, count: int, concurrency: int) -> None:
    import httpx

    numbers = iter(range(count))
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def work() -> None:
            for number in numbers:
                body = {"model": "m", "messages": [{"role": "user", "content": f"prompt {number}"}]}
                answer = await client.post(f"{url}/chat/completions", content=json.dumps(body))
                assert json.loads(answer.content)["choices"][0]["message"]["content"] == "fine"

        await asyncio.gather(*(work() for _ in range(concurrency)))


def timed(name: str, count: int, work: Any) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:34} {count / wall:7.0f}/s   {cpu / count * 1e6:7.0f} us of CPU each")


def drain(engine: CompletionEngine, count: int) -> None:
    assert sum(item.reply == "fine" for item in engine.run(prompts(count))) == count


def most(times: list[float], amounts: list[float], window: float) -> float:
    sums = [0.0, *accumulate(amounts)]
    return max(sums[i + 1] - sums[bisect_right(times, at - window)] for i, at in enumerate(times))


def limits(url: str, pipe: Connection, window: float) -> None:
    """A minute of `window` seconds, four of them, under more work than fits."""
    for name, requests, tokens in (("requests", 600, None), ("tokens", None, 12_000), ("both", 600, 11_000)):
        pipe.send(60)
        pipe.recv()
        limiter = RateLimiter(requests, tokens, window=window, burst=2, slack=0.01, pace=1.05)
        engine = engine_of(url, 64, limiter=limiter, error_mode="return", max_tokens=20)
        began = time.monotonic()
        for _ in engine.run(prompts(1_000_000)):
            if time.monotonic() - began > 4 * window:
                break
        pipe.send(0)
        arrivals = [one for one in pipe.recv() if one[0] - began <= 4 * window]
        times = [at for at, _ in arrivals]
        shown = []
        for label, limit, amounts in (
            ("requests", requests, [1.0] * len(arrivals)),
            ("tokens", tokens, [float(cost) for _, cost in arrivals]),
        ):
            if limit:
                fullest = most(times, amounts, window)
                shown.append(f"{label}: fullest window {fullest:.0f} of {limit}, used {sum(amounts) / limit / 4:.1%}")
        print(f"limit of {name:10} {'; '.join(shown)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--window", type=float, default=6.0)
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        count, concurrency = given.requests, given.concurrency
        drain(engine_of(url, concurrency), concurrency)
        timed("engine", count, lambda: drain(engine_of(url, concurrency), count))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.db"
            timed("engine, journal", count, lambda: drain(engine_of(url, concurrency, journal=path), count))
            timed(
                "engine, all from the journal", count, lambda: drain(engine_of(url, concurrency, journal=path), count)
            )
        few = max(count // 10, concurrency)
        timed("floor: httpx, json", few, lambda: asyncio.run(floor(url, few, concurrency)))
        limits(url, ours, given.window)
    finally:
        ours.send("stop")
        process.join()


if __name__ == "__main__":
    main()
