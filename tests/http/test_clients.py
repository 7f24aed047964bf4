"""Clients of httpx and of httpx2 that are handed in."""

from __future__ import annotations

import asyncio
import time

import httpx
import httpx2
import pytest

from lmagent.errors import ConfigurationError, ConnectionFailed, RequestTimeout
from lmagent.http.transport import HttpTransport
from tests.asking.fakes import CALL, HI, STREAM, exchange, quick
from tests.loopback import CLOSE, LoopbackServer, Received, head, json_answer, raw, sse_answer

libraries = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


def both(request: Received):
    return sse_answer({"t": "hi"}, "[DONE]") if request.json["stream"] else json_answer(HI)


@libraries
def test_a_client_is_used_and_never_closed(library):
    async def main() -> None:
        async with library.AsyncClient() as inner:
            made = exchange(server.url, transport=HttpTransport(async_client=inner))
            assert (await made.async_ask(CALL)).reply == "hi"
            assert [item async for item in made.async_stream(STREAM)][-1].reply == "hi"
            await made.aclose()
            assert not inner.is_closed

    with LoopbackServer(both) as server, library.Client() as client:
        made = exchange(server.url, transport=HttpTransport(client=client))
        assert made.ask(CALL).reply == "hi"
        assert list(made.stream(STREAM))[-1].reply == "hi"
        made.close()
        assert not client.is_closed
        asyncio.run(main())


@libraries
def test_time_outs_are_the_clients_own(library):
    stall = raw(head(200, {"content-length": "99"}), 5.0)
    with LoopbackServer(stall) as server, library.Client() as client:
        made = exchange(server.url, transport=HttpTransport(client=client), **quick(total=5, idle=0.1))
        begun = time.monotonic()
        with pytest.raises(RequestTimeout) as caught:
            made.ask(CALL)
        assert caught.value.which == "read"
        assert time.monotonic() - begun < 2


@libraries
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("ConnectError", ConnectionFailed),
        ("ConnectTimeout", RequestTimeout),
        ("ReadTimeout", RequestTimeout),
        ("ReadError", ConnectionFailed),
        ("ProxyError", ConnectionFailed),
        ("RemoteProtocolError", ConnectionFailed),
        ("LocalProtocolError", ConfigurationError),
    ],
)
def test_errors_of_a_client_are_ours(library, name, ours):
    def handler(request):
        raise getattr(library, name)("sk-canary-in-text")

    with library.Client(transport=library.MockTransport(handler)) as client:
        with pytest.raises(ours):
            exchange("http://x.example", transport=HttpTransport(client=client), **quick()).ask(CALL)
    with pytest.raises(ConnectionFailed, match="closed"):
        exchange("http://x.example", transport=HttpTransport(client=client)).ask(CALL)


@libraries
def test_a_connection_that_ends_is_a_failure_of_the_network(library):
    with LoopbackServer(raw(CLOSE)) as server, library.Client() as client:
        with pytest.raises(ConnectionFailed):
            exchange(server.url, transport=HttpTransport(client=client), **quick()).ask(CALL)


@libraries
@pytest.mark.parametrize("mistake", [TypeError, KeyError, ZeroDivisionError])
def test_a_programming_error_of_a_client_leaves_as_it_is(library, mistake):
    calls: list[object] = []

    def handler(request):
        calls.append(request)
        raise mistake("a slip")

    with library.Client(transport=library.MockTransport(handler)) as client:
        with pytest.raises(mistake):
            exchange("http://x.example", transport=HttpTransport(client=client)).ask(CALL)
    assert len(calls) == 1


def test_the_url_that_httpx2_logs_holds_no_secret(caplog):
    from lmagent.core.redaction import Secret
    from tests.asking.fakes import EchoCodec

    key = Secret("canary-token-in-a-query-3")
    caplog.set_level("DEBUG")
    with LoopbackServer(json_answer(HI)) as server, httpx2.Client() as client:
        codec = EchoCodec(server.url, params={"access_token": key.reveal()})
        exchange(server.url, codec=codec, transport=HttpTransport(client=client)).ask(CALL)
        exchange(server.url, codec=codec, transport=HttpTransport()).ask(CALL)
    assert key.reveal() not in caplog.text


@pytest.mark.parametrize("wanted", [httpx2.Client, "DefaultHttpxClient"], ids=["httpx2", "derived by openai"])
def test_a_client_is_recognised_although_openai_renames_classes_of_httpx2(wanted):
    openai = pytest.importorskip("openai")  # sets httpx2.Timeout.__module__ to "openai"
    kind = getattr(openai, wanted) if isinstance(wanted, str) else wanted
    with kind(
        transport=httpx2.MockTransport(lambda request: (_ for _ in ()).throw(httpx2.ConnectError("down")))
    ) as client:
        with pytest.raises(ConnectionFailed):
            exchange("http://127.0.0.1:9", transport=HttpTransport(client=client)).ask(CALL)
