"""Requests through http proxies, tunnels and SOCKS, and which requests go through one."""

from __future__ import annotations

import asyncio
import gc
import gzip
import ssl
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from lmagent.core.events import TextDelta
from lmagent.core.redaction import Secret
from lmagent.errors import ConnectionFailed, LMAgentError, RequestTimeout, ResponseTooLarge, StreamInterrupted
from lmagent.http.transport import HttpTransport
from tests.asking.fakes import CALL, HI, STREAM, EchoCodec, exchange, quick
from tests.loopback import (
    CLOSE,
    RESET,
    STALL,
    LoopbackServer,
    Received,
    answer,
    chunk,
    head,
    json_answer,
    raw,
    sse_answer,
)

API = "http://api.example:8080"
CERTIFICATE = Path(__file__).resolve().parents[1] / "tools" / "pages_test_cert.pem"
HALF = raw(head(200, {"transfer-encoding": "chunked"}) + chunk(b'data: {"t":"half"}\n\n'), STALL)


def both(request: Received):
    return sse_answer({"t": "hi"}, "[DONE]") if request.json["stream"] else json_answer(HI)


def through(proxy: LoopbackServer, url: str = API, **options):
    return exchange(url, transport=HttpTransport(proxy=proxy.url), **options)


def test_asked_and_streamed_on_one_connection():
    async def main() -> None:
        for _ in range(3):
            assert (await made.async_ask(CALL)).reply == "hi"
            assert [item async for item in made.async_stream(STREAM)][-1].reply == "hi"

    with LoopbackServer(both) as proxy:
        made = through(proxy)
        asyncio.run(main())
        assert proxy.connections == 1
        assert {request.target for request in proxy.requests} == {f"{API}/chat"}
        assert {request.headers["host"] for request in proxy.requests} == {"api.example:8080"}
        assert [request.json["ask"] for request in proxy.requests] == ["q"] * 6
        assert proxy.wait_closed()


def test_headers_are_the_same_as_without_a_proxy():
    with LoopbackServer(both) as server:
        made, direct = through(server), exchange(server.url)
        asyncio.run(made.async_ask(CALL))
        asyncio.run(direct.async_ask(CALL))
        proxied, plain = ({**request.headers, "host": ""} for request in server.requests)
        proxied.pop("connection", None)
        assert proxied == plain


def test_a_name_and_a_password_for_the_proxy():
    with LoopbackServer(both) as proxy:
        made = exchange(API, transport=HttpTransport(proxy=proxy.url.replace("//", "//me:s%40cret@")))

        async def main() -> None:
            await made.async_ask(CALL)
            await made.async_ask(CALL)

        asyncio.run(main())
        assert [each.headers["proxy-authorization"] for each in proxy.requests] == ["Basic bWU6c0BjcmV0"] * 2
        assert "authorization" not in proxy.requests[0].headers


def test_parameters_of_the_url_mean_the_same():
    params = {"access_token": "24.a/b+c=d&e~f%41 g:h@i", "名": "值"}
    with LoopbackServer(both) as proxy:
        made = through(proxy, codec=EchoCodec(API, params=params))
        asyncio.run(made.async_ask(CALL))
        query = urlsplit(proxy.requests[0].target).query
        assert parse_qs(query) == {name: [value] for name, value in params.items()}


def test_no_cookies_and_no_redirects():
    moved = answer("", 302, {"location": "http://elsewhere.example/", "set-cookie": "a=b; Path=/"})
    cookie = answer('{"text":"hi"}', headers={"set-cookie": "a=b; Path=/; Domain=api.example"})

    async def main() -> None:
        await made.async_ask(CALL)
        await made.async_ask(CALL)
        with pytest.raises(LMAgentError, match=r"redirects to elsewhere\.example"):
            await made.async_ask(CALL)

    with LoopbackServer([cookie, cookie, moved]) as proxy:
        made = through(proxy)
        asyncio.run(main())
        assert all("cookie" not in request.headers for request in proxy.requests)
        assert len(proxy.requests) == 3


def test_compressed_and_too_long_answers():
    packed = gzip.compress(b'{"text":"hi"}')
    script = raw(head(200, {"content-encoding": "gzip", "content-length": str(len(packed))}) + packed)
    with LoopbackServer(script) as proxy:
        assert asyncio.run(through(proxy).async_ask(CALL)).reply == "hi"
    with LoopbackServer(json_answer({"text": "x" * 5000})) as proxy:
        made = exchange(API, transport=HttpTransport(proxy=proxy.url, max_response_bytes=1000))
        with pytest.raises(ResponseTooLarge):
            asyncio.run(made.async_ask(CALL))


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        (raw(CLOSE), ConnectionFailed),
        (raw(RESET), ConnectionFailed),
        (raw(head(200, {"content-length": "99"}) + b"{", CLOSE), ConnectionFailed),
        (raw(STALL), RequestTimeout),
        (raw(head(200, {"content-length": "99"}) + b"{", STALL), RequestTimeout),
        (raw(head(200, {"content-length": "99999"}), *[b" ", 0.02] * 100), RequestTimeout),
        (raw(b"SSH-2.0-x\r\n\r\n", CLOSE), LMAgentError),
        (raw(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000 + b"\r\n\r\n", CLOSE), LMAgentError),
    ],
    ids=["closed", "reset", "broken", "silent", "stuck", "drip", "not http", "huge head"],
)
def test_faults(script, wanted: type[Exception]):
    with LoopbackServer(script) as proxy:
        made = through(proxy, **quick(total=0.2))
        begun = time.monotonic()
        with pytest.raises(wanted) as caught:
            asyncio.run(made.async_ask(CALL))
        assert time.monotonic() - begun < 0.8
        assert wanted is LMAgentError or type(caught.value) is wanted
        assert proxy.wait_closed()


def test_which_clock_ran_out():
    with LoopbackServer(raw(STALL)) as proxy:
        with pytest.raises(RequestTimeout) as caught:
            asyncio.run(through(proxy, **quick(total=5, idle=0.1)).async_ask(CALL))
        assert caught.value.which == "read"


def test_a_proxy_that_is_not_there():
    with LoopbackServer(both) as gone:
        pass
    with pytest.raises(ConnectionFailed) as caught:
        asyncio.run(through(gone, **quick()).async_ask(CALL))
    assert type(caught.value) is ConnectionFailed


def test_a_failure_shows_no_token():
    token = Secret("canary-token-in-a-query-2")
    with LoopbackServer(raw(b"HTTP/1.1 nonsense\r\n\r\n", CLOSE)) as proxy:
        made = through(proxy, codec=EchoCodec(API, params={"access_token": token.reveal()}), **quick())
        with pytest.raises(LMAgentError) as caught:
            asyncio.run(made.async_ask(CALL))
    assert token.reveal() not in str(caught.value)


def test_a_stream_that_breaks_keeps_what_came():
    got: list[str] = []

    async def main() -> None:
        async for item in made.async_stream(STREAM):
            if isinstance(item, TextDelta):
                got.append(item.text)

    with LoopbackServer(sse_answer({"t": "a"}, {"t": "b"}, end=False)) as proxy:
        made = through(proxy)
        with pytest.raises(StreamInterrupted) as caught:
            asyncio.run(main())
    assert caught.value.partial.content == "ab"
    assert got == ["a", "b"]


def test_an_event_is_not_held_back():
    async def main() -> None:
        stream = made.async_stream(STREAM)
        async for item in stream:
            if isinstance(item, TextDelta):
                break
        await stream.aclose()
        assert await asyncio.to_thread(proxy.wait_closed)

    with LoopbackServer(HALF) as proxy:
        made = through(proxy, **quick(total=5))
        asyncio.run(main())


def test_a_cancelled_call_frees_its_connection_and_leaves_the_pool_usable():
    def script(request: Received):
        return raw(STALL) if len(proxy.requests) <= 2 else both(request)

    async def main() -> None:
        for number, verb in enumerate((made.async_ask(CALL), anext(made.async_stream(STREAM))), 1):
            task = asyncio.ensure_future(verb)
            assert await asyncio.to_thread(proxy.wait_requests, number)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(proxy.wait_closed)
        assert (await made.async_ask(CALL)).reply == "hi"

    with LoopbackServer(script) as proxy:
        made = through(proxy)
        asyncio.run(main())


def test_256_at_once_and_no_more_than_max_connections():
    most = 0

    def script(request: Received):
        nonlocal most
        most = max(most, proxy.open_connections)
        return both(request)

    async def main() -> None:
        for _ in range(2):
            replies = await asyncio.gather(*(made.async_ask(CALL) for _ in range(256)))
            assert all(reply.reply == "hi" for reply in replies)

    with LoopbackServer(script) as proxy:
        made = exchange(API, transport=HttpTransport(proxy=proxy.url, max_connections=64))
        asyncio.run(main())
        assert most <= 64
        assert len(proxy.requests) == 512
        assert proxy.wait_closed()


def test_nothing_is_left_when_a_loop_ends_or_a_model_is_dropped():
    async def dropped() -> None:
        inner = through(proxy)
        await inner.async_ask(CALL)
        del inner
        gc.collect()
        assert await asyncio.to_thread(proxy.wait_closed)

    with warnings.catch_warnings(), LoopbackServer(both) as proxy:
        warnings.simplefilter("error")
        made = through(proxy)
        for _ in range(2):
            asyncio.run(made.async_ask(CALL))
            gc.collect()
            assert proxy.wait_closed()
        asyncio.run(dropped())


@asynccontextmanager
async def tunnel() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that opens tunnels to this machine, whatever the name; gives its URL and the requests it read."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        port = int(heads[-1].split()[1].rpartition(b":")[2])
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for pair in ((reader, behind_writer), (behind_reader, writer)):
            tasks.add(asyncio.create_task(copy(*pair)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_https_goes_through_a_tunnel_and_the_certificate_is_checked():
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))

    async def main() -> None:
        async with tunnel() as (proxy, heads):
            url = f"https://pages.test:{server.port}"
            made = exchange(url, transport=HttpTransport(proxy=proxy, ssl_context=trusting))
            assert (await made.async_ask(CALL)).reply == "hi"
            assert [item async for item in made.async_stream(STREAM)][-1].reply == "hi"
            assert len(heads) == 1
            assert heads[0].startswith(f"CONNECT pages.test:{server.port} HTTP/1.1\r\n".encode())
            await made.aclose()
            for other, context in ((url, None), (f"https://other.test:{server.port}", trusting)):
                made = exchange(other, transport=HttpTransport(proxy=proxy, ssl_context=context), **quick(total=2))
                with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
                    await made.async_ask(CALL)
                await made.aclose()

    with LoopbackServer(both, ssl_context=serving) as server:
        asyncio.run(main())
        assert server.requests[0].path == "/chat"


def test_a_tunnel_that_is_refused():
    with LoopbackServer(answer(b"", 407)) as proxy:
        with pytest.raises(ConnectionFailed, match="407"):
            asyncio.run(through(proxy, "https://api.example", **quick()).async_ask(CALL))


# SOCKS.


@asynccontextmanager
async def socks_proxy(*, password: bytes = b"") -> AsyncIterator[str]:
    """A SOCKS5 proxy that leads to this machine, whatever the name; gives its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        await reader.readexactly(count)
        writer.write(b"\x05\x02" if password else b"\x05\x00")
        if password:
            _, size = await reader.readexactly(2)
            await reader.readexactly(size)
            given = await reader.readexactly((await reader.readexactly(1))[0])
            writer.write(b"\x01\x00" if given == password else b"\x01\x01")
        _, _, _, kind = await reader.readexactly(4)
        await reader.readexactly(4 if kind == 1 else (await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2), "big")
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x05\x00\x00\x01\x0a\x0a\x0a\x0a\x0a\x0a")  # an address of line ends
        for pair in ((reader, behind_writer), (behind_reader, writer)):
            tasks.add(asyncio.create_task(copy(*pair)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_socks(secure: bool, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("socksio")
    caplog.set_level("DEBUG")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))

    async def main() -> None:
        async with socks_proxy(password=b"s@cret-password") as address:
            url = f"{'https' if secure else 'http'}://pages.test:{server.port}"
            proxy = f"socks5://me:s%40cret-password@{address}"
            made = exchange(url, transport=HttpTransport(proxy=proxy, ssl_context=trusting))
            for _ in range(2):
                assert (await made.async_ask(CALL)).reply == "hi"
                assert (await asyncio.to_thread(made.ask, CALL)).reply == "hi"
                assert [item async for item in made.async_stream(STREAM)][-1].reply == "hi"
            await made.aclose()
            wrong = HttpTransport(proxy=f"socks5://me:wrong@{address}", ssl_context=trusting)
            with pytest.raises(ConnectionFailed):
                await exchange(url, transport=wrong, **quick()).async_ask(CALL)

    with LoopbackServer(both, ssl_context=serving if secure else None) as server:
        asyncio.run(main())
    assert "s@cret-password" not in caplog.text


def test_a_socks_proxy_that_is_none():
    with LoopbackServer(raw(b"HTTP/1.1 400 Bad\r\n\r\n", CLOSE)) as server:
        made = exchange(
            "http://x.example", transport=HttpTransport(proxy=f"socks5://127.0.0.1:{server.port}"), **quick()
        )
        with pytest.raises(LMAgentError):
            made.ask(CALL)


# The environment.


@pytest.mark.parametrize(
    ("excepted", "through", "direct"),
    [
        ("example.com", ["http://wwwexample.com"], ["http://example.com", "https://a.example.com:8080"]),
        (".example.com", ["http://example.com"], ["http://a.example.com"]),
        ("*.example.com", ["http://example.com"], ["http://a.example.com"]),
        ("*", [], ["http://example.com", "https://10.0.0.1"]),
        ("a.example, *", [], ["http://example.com"]),
        ("10.0.0.0/8", ["http://11.0.0.1", "http://ten.example"], ["http://10.1.2.3", "https://10.1.2.3:99"]),
        ("10.1.2.3", ["http://10.1.2.4"], ["http://10.1.2.3"]),
        ("fd00::/8", ["http://[fe80::1]"], ["http://[fd12::1]", "https://[fd12::1]:8080"]),
        ("::1", ["http://[::2]"], ["http://[::1]", "http://[::1]:8080"]),
        ("[::1]:8080", ["http://[::1]"], ["http://[::1]:8080"]),
        ("localhost", ["http://a.localhost"], ["http://localhost:8080"]),
        ("example.com:8080", ["http://example.com"], ["http://example.com:8080"]),
        ("http://example.com", ["https://example.com"], ["http://example.com"]),
        ("EXAMPLE.com", [], ["http://Example.COM"]),
        (" , nonsense/7, ", ["http://example.com"], []),
    ],
)
def test_no_proxy_as_httpx2_reads_it(excepted: str, through: list[str], direct: list[str], monkeypatch):
    import httpx2

    from lmagent.http import transport
    from lmagent.http.wire import address_of

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", excepted)
    with httpx2.Client() as client:
        for urls, proxied in ((through, True), (direct, False)):
            for url in urls:
                assert bool(transport._environment_proxy(address_of(url))) == proxied, url
                theirs = client._transport_for_url(httpx2.URL(url)) is not client._transport
                assert theirs == proxied, f"httpx2: {url}"
