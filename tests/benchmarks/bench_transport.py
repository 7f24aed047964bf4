"""What an exchange costs beside careful loops on httpx, aiohttp and `http.client`, all with json.

Run `python -m tests.benchmarks.bench_transport`.

CPU of the client's thread in microseconds, on loopback, both in one process run; the ratio is what counts.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx

from lmagent.asking.exchange import Exchange
from lmagent.core.messages import UserMessage
from lmagent.http.transport import HttpTransport
from lmagent.providers.base import ChatCall
from lmagent.providers.openai.chat import OpenAICodec
from tests.loopback import LoopbackServer, Received, json_answer, sse_answer

REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Sunny, 21 degrees."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28},
}
EVENTS = 2000
DELTAS = [
    {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta}],
    }
    for delta in [{"role": "assistant", "content": ""}] + [{"content": f"word{n} "} for n in range(EVENTS)]
]
LAST = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
STREAM = sse_answer(*DELTAS, LAST, "[DONE]")
PLAIN = json_answer(REPLY)
CALL = ChatCall(messages=(UserMessage("What is the weather in Shanghai?"),))
STREAM_CALL = ChatCall(messages=CALL.messages, stream=True)


def answer(request: Received) -> Any:
    return STREAM if b'"stream":true' in request.body else PLAIN


def body(stream: bool) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "What is the weather in Shanghai?"}],
        "stream": stream,
    }


def cpu(function: Callable[[], object], times: int) -> float:
    function()
    begun = time.thread_time()
    for _ in range(times):
        function()
    return (time.thread_time() - begun) / times * 1e6


async def async_cpu(function: Callable[[], Awaitable[object]], times: int) -> float:
    await function()
    begun = time.thread_time()
    for _ in range(times):
        await function()
    return (time.thread_time() - begun) / times * 1e6


def show(what: str, floor: float, ours: float, name: str = "httpx") -> None:
    print(f"{what:34} {name:11} {floor:9.0f} us   ours {ours:9.0f} us   ratio {ours / floor:.2f}")


def sync(url: str, exchange: Exchange) -> None:
    with httpx.Client() as client:

        def raw() -> str:
            response = client.post(url, content=json.dumps(body(False)), headers={"content-type": "application/json"})
            return json.loads(response.content)["choices"][0]["message"]["content"]

        def raw_stream() -> str:
            pieces: list[str] = []
            with client.stream("POST", url, content=json.dumps(body(True), separators=(",", ":"))) as response:
                for line in response.iter_lines():
                    if line.startswith("data:") and line != "data: [DONE]":
                        pieces.append(json.loads(line[5:])["choices"][0]["delta"].get("content", ""))
            return "".join(pieces)

        show("sync, one at a time", cpu(raw, 400), cpu(lambda: exchange.ask(CALL), 400))
        parts = urlsplit(url)
        plain = http.client.HTTPConnection(parts.hostname or "", parts.port)

        def stdlib() -> str:
            plain.request("POST", parts.path, json.dumps(body(False)), {"content-type": "application/json"})
            return json.loads(plain.getresponse().read())["choices"][0]["message"]["content"]

        show("sync, one at a time", cpu(stdlib, 400), cpu(lambda: exchange.ask(CALL), 400), "http.client")
        plain.close()
        floor, ours = cpu(raw_stream, 8), cpu(lambda: list(exchange.stream(STREAM_CALL)), 8)
        show(f"sync, stream of {EVENTS}, per event", floor / EVENTS, ours / EVENTS)
    exchange.close()


async def asynchronous(url: str, exchange: Exchange) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def raw() -> str:
            response = await client.post(url, content=json.dumps(body(False)), headers={"a": "b"})
            return json.loads(response.content)["choices"][0]["message"]["content"]

        async def raw_stream() -> str:
            pieces: list[str] = []
            async with client.stream("POST", url, content=json.dumps(body(True), separators=(",", ":"))) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data:") and line != "data: [DONE]":
                        pieces.append(json.loads(line[5:])["choices"][0]["delta"].get("content", ""))
            return "".join(pieces)

        async def stream() -> list[Any]:
            return [event async for event in exchange.async_stream(STREAM_CALL)]

        floor = await async_cpu(raw, 400)
        show("async, one at a time", floor, await async_cpu(lambda: exchange.async_ask(CALL), 400))
        floor = await async_cpu(raw_stream, 8) / EVENTS
        show(f"async, stream of {EVENTS}, per event", floor, await async_cpu(stream, 8) / EVENTS)

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def other() -> str:
                async with session.post(url, data=json.dumps(body(False)), headers={"a": "b"}) as response:
                    return json.loads(await response.read())["choices"][0]["message"]["content"]

            floor = await async_cpu(other, 400)
            show("async, one at a time", floor, await async_cpu(lambda: exchange.async_ask(CALL), 400), "aiohttp")

        async def crowd(one: Callable[[], Awaitable[object]]) -> float:
            begun = time.thread_time()
            await asyncio.gather(*(one() for _ in range(256)))
            return (time.thread_time() - begun) / 256 * 1e6

        await crowd(lambda: exchange.async_ask(CALL))
        show("async, 256 at once", await crowd(raw), await crowd(lambda: exchange.async_ask(CALL)))
    await exchange.aclose()


def main() -> None:
    with LoopbackServer(answer) as server:
        codec = OpenAICodec("m", base_url=server.url + "/v1")
        exchange = Exchange(codec, transport=HttpTransport())
        url = codec.build_request(CALL).url
        sync(url, exchange)
        asyncio.run(asynchronous(url, exchange))


if __name__ == "__main__":
    main()
