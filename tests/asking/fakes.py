"""A small dialect, a recorded sleep and more for tests of the exchange. Knows no real provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from lmagent.asking.exchange import Exchange
from lmagent.asking.retry import RetryPolicy
from lmagent.core.events import Delta, Done, TextDelta
from lmagent.core.json_text import JSON, dumps, loads
from lmagent.core.messages import AssistantMessage, Reply, Usage, UserMessage
from lmagent.errors import ProviderError, QuotaExceeded
from lmagent.http.base import Timeouts
from lmagent.http.transport import HttpTransport
from lmagent.providers.base import ChatCall, Codec, Request, error_for_status

HI = {"text": "hi", "tokens": 3}
CALL = ChatCall(messages=(UserMessage("q"),))
STREAM = ChatCall(messages=(UserMessage("q"),), stream=True)


class EchoCodec(Codec):
    """`{"text": ...}` whole, `{"t": piece}` streamed, `[DONE]` at the end, errors as `{"error": {"code": ...}}`."""

    provider = "echo"

    def __init__(self, url: str, params: Mapping[str, str] | None = None) -> None:
        self.model = "m"
        self.url = url
        self.params = params or {}

    def build_request(self, call: ChatCall) -> Request:
        body = {"ask": call.messages[-1].content, "stream": call.stream}
        return Request(
            url=self.url + "/chat",
            content=dumps(body),
            headers={"content-type": "application/json"},
            params=self.params,
        )

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        return Reply(message=AssistantMessage(body["text"]), usage=Usage(total_tokens=body.get("tokens", 0)))

    def new_state(self) -> dict[str, Any]:
        return {}

    def parse_event(self, state: Any, data: bytes, event: str = "") -> Iterable[Delta]:
        if data == b"[DONE]":
            return [Done()]
        value = loads(data)
        if "error" in value:
            raise self.parse_error(200, {}, value) or AssertionError
        return [TextDelta("" + value["t"])]

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        if isinstance(body, dict) and "error" in body:
            code = body["error"]["code"]
            kind = QuotaExceeded if code == "insufficient_quota" else error_for_status(status if status >= 400 else 500)
            return kind(body["error"].get("message", "failed"), code=code, body=body)
        return None


class RecordedSleeps:
    """A sleep that takes no time and remembers."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)

    async def later(self, seconds: float) -> None:
        self.taken.append(seconds)


def exchange(url: str, *, naps: RecordedSleeps | None = None, transport: Any = None, **options: Any) -> Exchange:
    """Return an exchange that does not really sleep."""
    naps = naps or RecordedSleeps()
    return Exchange(
        options.pop("codec", None) or EchoCodec(url),
        transport=transport or HttpTransport(),
        sleep=naps,
        async_sleep=naps.later,
        **options,
    )


def quick(total: float = 0.3, idle: float = 5.0, connect: float = 2.0) -> dict[str, Any]:
    """Return options for an exchange that ends soon and repeats nothing."""
    return {"timeouts": Timeouts(total=total, idle=idle, connect=connect), "retry": RetryPolicy(max_retries=0)}


def _sync_ask(made: Exchange) -> Reply:
    try:
        return made.ask(CALL)
    finally:
        made.close()


def _sync_stream(made: Exchange) -> Reply:
    try:
        *_, last = made.stream(STREAM)
        return last
    finally:
        made.close()


def _async_ask(made: Exchange) -> Reply:
    async def main() -> Reply:
        try:
            return await made.async_ask(CALL)
        finally:
            await made.aclose()

    return asyncio.run(main())


def _async_stream(made: Exchange) -> Reply:
    async def main() -> Reply:
        try:
            *_, last = [item async for item in made.async_stream(STREAM)]
            return last
        finally:
            await made.aclose()

    return asyncio.run(main())


ASKS = {"ask": _sync_ask, "async_ask": _async_ask}
STREAMS = {"stream": _sync_stream, "async_stream": _async_stream}
VERBS = {**ASKS, **STREAMS}
