"""Connections: kept, dropped, closed, shared, handed in; nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings

import httpx
import pytest

from lmagent.core.events import TextDelta
from lmagent.errors import ConfigurationError, ConnectionFailed, RequestTimeout, StreamInterrupted
from lmagent.http.transport import HttpTransport
from tests.asking.fakes import CALL, HI, STREAM, VERBS, EchoCodec, exchange, quick
from tests.loopback import CLOSE, STALL, LoopbackServer, Received, answer, chunk, head, json_answer, raw, sse_answer

verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
HALF = raw(head(200, {"transfer-encoding": "chunked"}) + chunk(b'data: {"t":"half"}\n\n'), STALL)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def both(request: Received):
    return sse_answer({"t": "hi"}, "[DONE]") if request.json["stream"] else json_answer(HI)


def test_one_connection_serves_one_after_another():
    with LoopbackServer(both) as server:
        made = exchange(server.url)
        for _ in range(5):
            made.ask(CALL)
            list(made.stream(STREAM))

        async def main() -> None:
            for _ in range(5):
                await made.async_ask(CALL)
                _ = [item async for item in made.async_stream(STREAM)]

        asyncio.run(main())
        assert server.connections == 2
        made.close()
        assert server.wait_closed()


def test_a_reader_that_stops_at_the_reply_still_keeps_the_connection():
    with LoopbackServer(both) as server:
        made = exchange(server.url)
        for _ in range(3):
            for item in made.stream(STREAM):
                if type(item).__name__ == "Reply":
                    break
        assert server.connections == 1
        made.close()


def test_a_kept_connection_closed_by_the_peer_is_invisible():
    with LoopbackServer(both) as server:
        made = exchange(server.url)

        async def main() -> None:
            for _ in range(3):
                assert (await made.async_ask(CALL)).attempts == 1
                await asyncio.to_thread(server.close_idle)

        for _ in range(3):
            assert made.ask(CALL).attempts == 1
            server.close_idle()
        asyncio.run(main())
        assert len(server.requests) == 6
        made.close()


@verbs
def test_a_kept_connection_that_dies_with_the_request_is_replaced_once(verb):
    # The server reads the second request on the connection and closes without a byte: as in a keep-alive race.
    def script(request: Received):
        second = [each.connection for each in server.requests].count(request.connection) == 2
        return raw(CLOSE) if second else both(request)

    with LoopbackServer(script) as server:
        made = exchange(server.url)
        if "async" in verb.__name__:

            async def main() -> list[int]:
                found = [(await made.async_ask(CALL)).attempts for _ in range(2)]
                await made.aclose()
                return found

            assert asyncio.run(main()) == [1, 1]
        else:
            assert [made.ask(CALL).attempts for _ in range(2)] == [1, 1]
        made.close()
        assert len(server.requests) == 3


def test_an_abandoned_stream_frees_its_connection():
    with LoopbackServer(HALF) as server:
        made = exchange(server.url)
        stream = made.stream(STREAM)
        next(stream)
        stream.close()
        assert server.wait_closed()
        stream = made.stream(STREAM)
        next(stream)
        del stream
        gc.collect()
        assert server.wait_closed()


def test_an_abandoned_async_stream_frees_its_connection():
    async def main() -> None:
        stream = made.async_stream(STREAM)
        await anext(stream)
        await stream.aclose()
        assert await asyncio.to_thread(server.wait_closed)
        async for _ in made.async_stream(STREAM):
            break
        gc.collect()
        assert await asyncio.to_thread(server.wait_closed)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with LoopbackServer(HALF) as server:
        made = exchange(server.url)
        asyncio.run(main())


def test_a_cancelled_call_frees_its_connection_and_leaves_the_pool_usable():
    def script(request: Received):
        return raw(STALL) if len(server.requests) <= 2 else both(request)

    async def main() -> None:
        for verb in (made.async_ask(CALL), anext(made.async_stream(STREAM))):
            task = asyncio.ensure_future(verb)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.wait_closed)
        assert (await made.async_ask(CALL)).reply == "hi"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with LoopbackServer(script) as server:
        made = exchange(server.url)
        asyncio.run(main())


def test_cancelled_in_mid_stream():
    async def main() -> None:
        got: list[object] = []

        async def read() -> None:
            async for item in made.async_stream(STREAM):
                got.append(item)

        task = asyncio.create_task(read())
        while not any(isinstance(item, TextDelta) for item in got):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.wait_closed)

    with LoopbackServer(HALF) as server:
        made = exchange(server.url)
        asyncio.run(main())


def test_256_at_once():
    async def main() -> None:
        for _ in range(2):
            replies = await asyncio.gather(*(made.async_ask(CALL) for _ in range(256)))
            assert all(reply.reply == "hi" for reply in replies)

    with LoopbackServer(both) as server:
        made = exchange(server.url)
        asyncio.run(main())
        assert server.connections <= 256
        assert len(server.requests) == 512
        assert server.wait_closed()


def test_threads_share_a_pool():
    with LoopbackServer(both) as server:
        made = exchange(server.url)

        def work() -> None:
            for _ in range(10):
                assert made.ask(CALL).reply == "hi"

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.connections <= 8
        made.close()
        assert server.wait_closed()


def test_max_connections_waits_and_gives_up_in_time():
    def script(request: Received):
        return raw(0.03, head(200, {"content-length": "14"}) + b'{"text": "hi"}')

    async def main() -> None:
        replies = await asyncio.gather(*(made.async_ask(CALL) for _ in range(6)))
        assert len(replies) == 6

    with LoopbackServer(script) as server:
        made = exchange(server.url, transport=HttpTransport(max_connections=2))
        asyncio.run(main())
        assert server.connections == 2
    with LoopbackServer(raw(STALL)) as server:
        made = exchange(server.url, transport=HttpTransport(max_connections=1), **quick(total=0.1))

        async def two() -> list[object]:
            return await asyncio.gather(made.async_ask(CALL), made.async_ask(CALL), return_exceptions=True)

        assert [type(each) for each in asyncio.run(two())] == [RequestTimeout] * 2


def test_nothing_is_left_when_a_model_is_dropped_or_a_loop_ends():
    with warnings.catch_warnings(), LoopbackServer(both) as server:
        warnings.simplefilter("error")
        made = exchange(server.url)
        made.ask(CALL)
        del made
        gc.collect()
        assert server.wait_closed()
        made = exchange(server.url)
        asyncio.run(made.async_ask(CALL))
        assert server.wait_closed()

        async def dropped() -> None:
            inner = exchange(server.url)
            await inner.async_ask(CALL)
            del inner
            gc.collect()
            assert await asyncio.to_thread(server.wait_closed)

        asyncio.run(dropped())


def test_one_exchange_serves_many_loops():
    with LoopbackServer(both) as server:
        made = exchange(server.url)
        for _ in range(3):
            assert asyncio.run(made.async_ask(CALL)).reply == "hi"
        assert server.connections == 3


def test_sync_verbs_work_inside_a_running_loop():
    async def main() -> None:
        assert made.ask(CALL).reply == "hi"

    with LoopbackServer(both) as server:
        made = exchange(server.url)
        asyncio.run(main())
        made.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_its_own_connection():
    with LoopbackServer(both) as server:
        made = exchange(server.url)
        made.ask(CALL)
        child = os.fork()
        if not child:
            os._exit(0 if made.ask(CALL).reply == "hi" else 1)
        assert os.waitpid(child, 0)[1] == 0
        made.ask(CALL)
        made.close()
        assert [request.connection for request in server.requests] == [0, 1, 0]


def test_no_cookies():
    with LoopbackServer(answer('{"text":"hi"}', headers={"set-cookie": "a=b; Path=/"})) as server:
        made = exchange(server.url)
        made.ask(CALL)
        made.ask(CALL)
        made.close()
        assert "cookie" not in server.requests[1].headers


def test_a_large_request_arrives_whole():
    from lmagent.core.messages import UserMessage
    from lmagent.providers.base import ChatCall

    call = ChatCall(messages=(UserMessage("x" * 3_000_000),))
    with LoopbackServer(json_answer(HI)) as server:
        made = exchange(server.url)
        made.ask(call)
        made.close()

        async def main() -> None:
            await made.async_ask(call)

        asyncio.run(main())
        assert [len(request.json["ask"]) for request in server.requests] == [3_000_000] * 2


# A client handed in.


@verbs
def test_a_client_handed_in_is_used_and_never_closed(verb):
    with LoopbackServer(both) as server:
        with httpx.Client() as client:
            transport = HttpTransport(client=client)
            if "async" not in verb.__name__:
                assert verb(exchange(server.url, transport=transport)).reply == "hi"
                assert not client.is_closed

        async def main() -> None:
            async with httpx.AsyncClient() as inner:
                made = exchange(server.url, transport=HttpTransport(async_client=inner))
                assert (await made.async_ask(CALL)).reply == "hi"
                assert [item async for item in made.async_stream(STREAM)][-1].reply == "hi"
                await made.aclose()
                assert not inner.is_closed

        asyncio.run(main())


def test_a_mock_transport_handed_in():
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=HI, headers={"x-request-id": "mock"})

    with httpx.Client(transport=httpx.MockTransport(handler)) as client:
        reply = exchange("https://api.example", transport=HttpTransport(client=client)).ask(CALL)
    assert (reply.reply, reply.request_id) == ("hi", "mock")


def test_errors_of_a_client_handed_in_are_ours():
    kinds = {
        httpx.ConnectError: ConnectionFailed,
        httpx.ConnectTimeout: RequestTimeout,
        httpx.ReadTimeout: RequestTimeout,
        httpx.ReadError: ConnectionFailed,
        httpx.RemoteProtocolError: ConnectionFailed,
        httpx.LocalProtocolError: ConfigurationError,
    }
    for theirs, ours in kinds.items():

        def handler(request: httpx.Request, theirs=theirs) -> httpx.Response:
            raise theirs("sk-canary-in-text")

        with httpx.Client(transport=httpx.MockTransport(handler)) as client:
            with pytest.raises(ours):
                exchange("http://x.example", transport=HttpTransport(client=client)).ask(CALL)
    with pytest.raises(ConnectionFailed, match="closed"):
        exchange("http://x.example", transport=HttpTransport(client=client)).ask(CALL)


def test_the_total_clock_with_a_client_handed_in():
    drip = raw(head(200, {"content-length": "99999"}), *[b" ", 0.02] * 100)
    with LoopbackServer(drip) as server, httpx.Client() as client:
        begun = time.monotonic()
        with pytest.raises(RequestTimeout):
            exchange(server.url, transport=HttpTransport(client=client), **quick(total=0.1)).ask(CALL)
        assert time.monotonic() - begun < 0.6

        async def main() -> None:
            async with httpx.AsyncClient() as inner:
                made = exchange(server.url, transport=HttpTransport(async_client=inner), **quick(total=0.1))
                with pytest.raises(RequestTimeout):
                    await made.async_ask(CALL)

        asyncio.run(main())
        assert server.wait_closed()


def test_the_url_that_httpx_logs_holds_no_secret(caplog):
    from lmagent.core.redaction import Secret

    key = Secret("canary-token-in-a-query-1")
    caplog.set_level("DEBUG")
    with LoopbackServer(json_answer(HI)) as server, httpx.Client() as client:
        codec = EchoCodec(server.url, params={"access_token": key.reveal()})
        exchange(server.url, codec=codec, transport=HttpTransport(client=client)).ask(CALL)
        assert key.reveal() in server.requests[0].target
    assert key.reveal() not in caplog.text


# Proxies.


@verbs
def test_a_proxy_is_asked(verb):
    with LoopbackServer(both) as proxy:
        made = exchange("http://api.example:8080", transport=HttpTransport(proxy=proxy.url))
        assert verb(made).reply == "hi"
        assert proxy.requests[0].target == "http://api.example:8080/chat"
        assert proxy.wait_closed()


@verbs
def test_the_environments_proxy_and_its_exceptions(verb, monkeypatch):
    with LoopbackServer(both) as proxy, LoopbackServer(both) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert verb(exchange(server.url)).reply == "hi"
        assert (len(proxy.requests), len(server.requests)) == (1, 0)
        for exception in ("127.0.0.1", "*", f"other.example, 127.0.0.1:{server.port}"):
            monkeypatch.setenv("NO_PROXY", exception)
            assert verb(exchange(server.url)).reply == "hi"
        assert (len(proxy.requests), len(server.requests)) == (1, 3)
        monkeypatch.setenv("NO_PROXY", "7.0.0.1,127.0.0.1:1")
        assert verb(exchange(server.url, transport=HttpTransport(proxy=""))).reply == "hi"
        assert (len(proxy.requests), len(server.requests)) == (1, 4)


def test_a_proxy_that_refuses_and_one_that_is_none():
    with LoopbackServer(answer(b"", 407)) as proxy:
        with pytest.raises(ConnectionFailed):
            exchange("https://api.example", transport=HttpTransport(proxy=proxy.url), **quick()).ask(CALL)
    with pytest.raises(ConfigurationError):
        exchange("https://api.example", transport=HttpTransport(proxy="gopher://x")).ask(CALL)


def test_interrupted_streams_keep_what_came():
    with LoopbackServer(sse_answer({"t": "a"}, {"t": "b"}, end=False)) as server:
        made = exchange(server.url)
        got: list[object] = []
        with pytest.raises(StreamInterrupted) as caught:
            got.extend(made.stream(STREAM))
        assert caught.value.partial.content == "ab"
