"""Web fetch: results, and attempts to reach private addresses or other hosts, or to make it run for ever."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmagent import ToolError
from lmagent.tools import web
from lmagent.tools.web import html_to_text, is_public, web_fetch
from tests.loopback import CLOSE, RESET, STALL, Answer, LoopbackServer, answer, chunk, head, raw

CERTIFICATE = Path(__file__).with_name("pages_test_cert.pem")


def page(text: str | bytes, kind: str = "text/plain", status: int = 200, **headers: str) -> Any:
    given = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return answer(text, status, given)


def fetcher(server: LoopbackServer, **options: Any) -> Callable[[str], str]:
    """Return a tool that may reach only pages.test, which is this loopback server."""
    options = {
        "hosts": [f"pages.test:{server.port}"],
        "resolve": lambda host, port: ["127.0.0.1"],
        "allow_address": lambda address: address.is_loopback,
        "timeout": 5.0,
        **options,
    }
    tool = web_fetch(**options)
    return lambda path: tool(path if "://" in path else f"http://pages.test:{server.port}{path}")


def refused(call: Callable[[str], str], url: str) -> str:
    with pytest.raises(ToolError) as caught:
        call(url)
    return str(caught.value)


def test_request_has_the_host_name_and_no_private_headers():
    with LoopbackServer(page("héllo")) as server:
        assert fetcher(server)("/a?b=c#d") == f"http://pages.test:{server.port}/a?b=c\n\nhéllo"
        request = server.requests[0]
        assert request.target == "/a?b=c"
        assert request.headers["host"] == f"pages.test:{server.port}"
        assert sorted(request.headers) == ["accept", "accept-encoding", "connection", "host", "user-agent"]
        assert server.wait_closed()


def test_request_has_one_host_header():
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            received.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        tool = web_fetch(
            hosts=[f"pages.test:{port}"], resolve=lambda host, port: ["127.0.0.1"], allow_address=lambda address: True
        )
        assert tool(f"http://pages.test:{port}/").endswith("ok")
        thread.join()
    assert [line for line in received[0].split(b"\r\n") if line.lower().startswith(b"host")] == [
        f"Host: pages.test:{port}".encode()
    ]


def test_html_is_returned_as_readable_text():
    source = "<title>Menu</title><script>bad()</script><p>Tea &amp; <a href='/cake'>cake</a></p>"
    with LoopbackServer(page(source, "text/html; charset=utf-8")) as server:
        said = fetcher(server)("/")
    assert said.endswith(f"Menu\n\nTea & [cake](http://pages.test:{server.port}/cake)")


def test_non_ascii_path_is_quoted():
    with LoopbackServer(page("ok")) as server:
        fetcher(server)("/茶?q=好&r=a%20b")
        assert server.requests[0].target == "/%E8%8C%B6?q=%E5%A5%BD&r=a%20b"


@pytest.mark.parametrize("options", [{}, {"hosts": []}, {"hosts": None}, {"hosts": ()}])
def test_nothing_is_allowed_by_default(options: dict[str, Any]):
    with pytest.raises(ValueError, match="nothing is allowed by default"):
        web_fetch(**options)


@pytest.mark.parametrize(
    "host", ["", "*", "*.", "http://a.com", "a.com/x", "u@a.com", "a b", "a.com:x", "1.2.3", "[::1"]
)
def test_entry_of_hosts_must_be_a_host_name(host: str):
    with pytest.raises(ValueError, match="is not a host name"):
        web_fetch(hosts=[host])


def test_hosts_must_not_be_a_string():
    with pytest.raises(TypeError):
        web_fetch(hosts="example.com")


def nowhere(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host}:{port} must not even be looked up")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://example.com/",
        "example.com",
        "//example.com/",
        "",
        "http://",
        "http:///x",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com:80@127.0.0.1/",
        "https://127.0.0.1\\@example.com/",
        "https://example.com\\.evil.com/",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Injected: 1",
        "https://example.com/\x00",
        "https://exam\tple.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://example.com:22/",
        "https://example.com:8080/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://exa%6dple.com/",
        "https://a..b/",
        "https://-a.com/",
        "https://" + "a" * 64 + ".com/",
        "https://example.com/" + "a" * 3000,
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1.1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://127.0.0.08/",
        "https://example.com\ud800/",
    ],
)
def test_unusual_urls_are_rejected_before_name_resolution(url: str):
    refused(web_fetch(allow_public=True, resolve=nowhere), url)


def test_error_for_an_invalid_host_names_the_host():
    with pytest.raises(ToolError, match=r"'http://127\.1/' does not name a host"):
        web_fetch(allow_public=True, resolve=nowhere)("http://127.1/")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://１２７.０.０.１/",
        "http://①②⑦.0.0.1/",
        "http://127。0。0。1/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
        "http://[2001:db8::1]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://[100::1]/",
    ],
)
def test_private_addresses_are_rejected_before_any_connection(monkeypatch, url: str):
    monkeypatch.setattr(web.socket, "socket", lambda *_: pytest.fail("connected"))
    assert "not on the public internet" in refused(web_fetch(allow_public=True, resolve=nowhere), url)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::8"])
def test_public_addresses_are_accepted(address: str):
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_ipv4_address_inside_ipv6_is_never_public(address: Any):
    number = int(address)
    for inside in (number, (0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)):
        assert not is_public(ip_address(inside.to_bytes(16, "big")))


@given(st.ip_addresses())
def test_address_that_the_standard_library_calls_private_is_never_public(address: Any):
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    "answers", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1", "93.184.216.34"], ["fe80::1%2"]]
)
def test_name_with_one_private_address_is_rejected(monkeypatch, answers: list[str]):
    monkeypatch.setattr(web.socket, "socket", lambda *_: pytest.fail("connected"))
    tool = web_fetch(allow_public=True, resolve=lambda host, port: answers)
    assert "not on the public internet" in refused(tool, "https://innocent.example.com/")


def test_localhost_is_rejected_with_the_system_resolver():
    assert "not on the public internet" in refused(web_fetch(hosts=["localhost"]), "http://localhost/")


def test_name_is_resolved_once_and_the_checked_address_is_used():
    """DNS rebinding: a second lookup would return a private address."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with LoopbackServer(page("first")) as server:
        tool = fetcher(server, resolve=rebinding, allow_address=lambda address: str(address) == "127.0.0.1")
        assert tool("/").endswith("first")
        assert asked == ["pages.test"]
        assert "not on the public internet" in refused(tool, "/")


def test_connection_does_not_resolve_the_name_again(monkeypatch):
    with LoopbackServer(page("ok")) as server:
        tool = fetcher(server)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
        assert tool("/").endswith("ok")


@pytest.mark.parametrize("allowed", ["pages.test", "*.pages.test", "PAGES.test.", "other.test", "test"])
def test_only_allowed_hosts_are_fetched(allowed: str):
    tool = web_fetch(hosts=[allowed], resolve=lambda host, port: ["10.0.0.1"])
    reaches = {
        url: "not on the public internet" in refused(tool, f"http://{url}/")
        for url in (
            "pages.test",
            "a.pages.test",
            "evilpages.test",
            "pages.test.evil.com",
            "PAGES.TEST.",
            "pages.test:81",
        )
    }
    wanted = {
        "pages.test": ["pages.test", "PAGES.TEST."],
        "PAGES.test.": ["pages.test", "PAGES.TEST."],
        "*.pages.test": ["a.pages.test"],
    }
    assert [url for url, reached in reaches.items() if reached] == wanted.get(allowed, [])


def test_entry_with_a_port_allows_only_that_port():
    tool = web_fetch(hosts=["pages.test:8080"], resolve=lambda host, port: ["10.0.0.1"])
    assert "not on the public internet" in refused(tool, "http://pages.test:8080/")
    assert "not allowed. Allowed are: pages.test:8080" in refused(tool, "http://pages.test/")


def test_redirects_are_followed_and_checked():
    def script(request: Any) -> Any:
        if request.path == "/":
            return page("", status=302, location="/next page?x=ä".encode().decode("latin-1"))
        return page("arrived")

    with LoopbackServer(script) as server:
        assert fetcher(server)("/").endswith("arrived")
        assert [request.target for request in server.requests] == ["/", "/next%20page?x=%C3%A4"]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1/", "127.0.0.1 is not allowed"),
        ("http://169.254.169.254/latest", "not allowed"),
        ("//evil.test/", "evil.test is not allowed"),
        ("http://pages.test:22/", "not allowed"),
        ("https://user:pw@pages.test/", "user name or password"),
        ("file:///etc/passwd", "Only addresses"),
        ("", "redirects to an invalid address"),
        ("http://[/", "redirects to an invalid address"),
    ],
)
def test_redirect_to_a_forbidden_address_is_rejected(location: str, said: str):
    with LoopbackServer(page("", status=301, location=location)) as server:
        assert said in refused(fetcher(server), "/")
        assert len(server.requests) == 1


def test_redirect_to_a_name_with_a_private_address_is_rejected():
    with LoopbackServer(page("", status=307, location="http://inside.test/")) as server:
        tool = fetcher(
            server,
            allow_public=True,
            resolve=lambda host, port: ["127.0.0.1" if host == "pages.test" else "10.0.0.1"],
        )
        assert "inside.test is not on the public internet" in refused(tool, "/")


def test_number_of_redirects_is_limited():
    with LoopbackServer(page("", status=302, location="/again")) as server:
        assert refused(fetcher(server), "/") == "Stopped after 5 redirects."
        assert len(server.requests) == 6


def test_proxies_are_ignored(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with LoopbackServer(page("direct")) as server:
        assert fetcher(server)("/").endswith("direct")


def test_cookies_are_not_sent_back():
    with LoopbackServer(page("", status=302, location="/b", set_cookie="a=b")) as server:
        refused(fetcher(server), "/")
        assert not any("cookie" in request.headers for request in server.requests)


def _tls(seen: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda wire, name, context: seen.append(name)
    return context


def test_https_sends_and_verifies_the_host_name():
    seen: list[str | None] = []
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    with LoopbackServer(page("safe"), ssl_context=_tls(seen)) as server:
        url = f"https://pages.test:{server.port}/"
        assert fetcher(server, ssl_context=trusting)(url) == f"{url}\n\nsafe"
        assert seen == ["pages.test"]
        other = fetcher(server, ssl_context=trusting, hosts=[f"other.test:{server.port}"])
        assert "CertVerificationError" in refused(other, f"https://other.test:{server.port}/")


def test_https_with_an_unknown_certificate_is_rejected():
    with LoopbackServer(page("unsafe"), ssl_context=_tls([])) as server:
        assert "CertVerificationError" in refused(fetcher(server), f"https://pages.test:{server.port}/")
        assert server.requests == []


def endless(piece: bytes, wait: float = 0.0) -> Any:
    yield head(200, {"content-type": "text/plain", "transfer-encoding": "chunked"})
    while True:
        yield chunk(piece)
        if wait:
            yield wait


@pytest.mark.parametrize(
    "script",
    [
        page("x" * 20_001),
        raw(head(200, {"content-type": "text/plain", "content-length": "9" * 30}), STALL),
        raw(head(200, {"content-type": "text/plain"}) + b"y" * 30_000, CLOSE),
    ],
)
def test_body_larger_than_the_limit_is_rejected(script: Any):
    with LoopbackServer(script) as server:
        assert "larger than 20000 bytes" in refused(fetcher(server, max_bytes=20_000), "/")
        assert server.wait_closed()


def test_endless_body_is_rejected():
    with LoopbackServer(lambda request: Answer(endless(b"z" * 60_000))) as server:
        assert "larger than 200000 bytes" in refused(fetcher(server, max_bytes=200_000), "/")
        assert server.wait_closed()


@pytest.mark.parametrize(
    "bomb",
    [
        gzip.compress(b"\0" * 50_000_000, 6),
        zlib.compress(b"\0" * 50_000_000, 6),
    ],
    ids=["gzip", "deflate"],
)
def test_decompression_bomb_is_rejected_before_it_is_in_memory(bomb: bytes):
    encoding = "gzip" if bomb[:2] == b"\x1f\x8b" else "deflate"
    with LoopbackServer(page(bomb, content_encoding=encoding)) as server:
        tool = fetcher(server, max_bytes=1_000_000)
        tracemalloc.start()
        try:
            assert "larger than 1000000 bytes" in refused(tool, "/")
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 300_000])
def test_compressed_text_is_read_to_its_end(size: int):
    text = ("abc" * size)[:size]
    with LoopbackServer(page(gzip.compress(text.encode()), content_encoding="gzip")) as server:
        assert fetcher(server)("/").partition("\n\n")[2] == text


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "gzip"])
def test_unknown_compressions_are_rejected(encoding: str):
    with LoopbackServer(page(b"whatever", content_encoding=encoding)) as server:
        assert "compressed in a way that cannot be read" in refused(fetcher(server), "/")


def drip(request: Any) -> Any:
    return Answer(endless(b"x", 0.05))


def slow_head(request: Any) -> Any:
    def steps() -> Any:
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"X: y\r\n"[:1]
            yield 0.05

    return Answer(steps())


def continues(request: Any) -> Any:
    def steps() -> Any:
        while True:
            yield b"HTTP/1.1 100 Continue\r\n\r\n"
            yield 0.02

    return Answer(steps())


@pytest.mark.parametrize(
    "script", [drip, slow_head, continues, raw(STALL), raw(head(200, {"content-length": "9"}), STALL)]
)
def test_slow_servers_end_at_the_timeout(script: Any):
    with LoopbackServer(script) as server:
        before = time.monotonic()
        said = refused(fetcher(server, timeout=0.4), "/")
        assert time.monotonic() - before < 0.9
        assert said == "pages.test did not answer within 0.4 seconds."
        assert server.wait_closed()


def test_stalled_handshake_ends_at_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        tool = web_fetch(
            hosts=[f"pages.test:{port}"],
            resolve=lambda host, port: ["127.0.0.1"],
            allow_address=lambda address: True,
            timeout=0.3,
        )
        before = time.monotonic()
        assert "did not answer" in refused(tool, f"https://pages.test:{port}/")
        assert time.monotonic() - before < 0.8


def test_hanging_resolver_ends_at_the_timeout():
    released = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        released.wait(5)
        return []

    before = time.monotonic()
    tool = web_fetch(allow_public=True, resolve=hanging, timeout=0.2)
    assert "did not answer" in refused(tool, "https://slow.example.com/")
    assert time.monotonic() - before < 0.6
    released.set()


def test_timeout_covers_all_redirects():
    def script(request: Any) -> Any:
        return raw(0.15, head(302, {"location": "/again", "content-length": "0"}))

    with LoopbackServer(script) as server:
        assert "did not answer" in refused(fetcher(server, timeout=0.4), "/")


@pytest.mark.parametrize(
    "kind", ["image/png", "application/octet-stream", "application/pdf", "text/", "video/mp4", "x"]
)
def test_content_types_other_than_text_are_rejected(kind: str):
    with LoopbackServer(page(b"data", kind)) as server:
        assert "not text" in refused(fetcher(server), "/")


def test_binary_body_with_a_text_content_type_is_rejected():
    with LoopbackServer(page(b"GIF89a\x00\x00", "text/plain")) as server:
        assert "not text" in refused(fetcher(server), "/")


@pytest.mark.parametrize(
    "kind", ["text/markdown", "application/json", "application/ld+json; charset=utf-8", "TEXT/CSV"]
)
def test_text_content_types_are_accepted(kind: str):
    with LoopbackServer(page('{"a": "é"}', kind)) as server:
        assert fetcher(server)("/").endswith('{"a": "é"}')


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain; charset=GBK", "你好".encode("gbk"), "你好"),
        ('text/plain; charset="gb2312"', "你好".encode("gbk"), "你好"),
        ("text/html", b"<meta charset=gbk><p>" + "你好".encode("gbk"), "你好"),
        ("text/html", b'<META http-equiv=x content="text/html; charset=big5">' + "你好".encode("big5"), "你好"),
        ("text/plain", b"\xef\xbb\xbfhi \xff", "hi �"),
        ("text/plain; charset=nonsense", "é".encode(), "é"),
        ("text/plain; charset=punycode", b"abc-def", "abc-def"),
        ("text/plain; charset=unicode_escape", rb"\x41", r"\x41"),
        ("text/plain; charset=hex", b"4142", "4142"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
    ],
)
def test_charset_comes_from_the_header_or_the_page(kind: str, body: bytes, text: str):
    with LoopbackServer(page(body, kind)) as server:
        assert fetcher(server)("/").partition("\n\n")[2] == text


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (page("no", status=404), "answered 404 Not Found."),
        (page("no", status=500), "answered 500 Internal Server Error."),
        (raw(b"HTTP/1.1 204 \x1b[31m\x07\r\n\r\n", CLOSE), "answered 204 [31m."),
        (raw(b"SSH-2.0-OpenSSH\r\n", CLOSE), "failed: BadStatusLine"),
        (raw(CLOSE), "failed: RemoteDisconnected"),
        (raw(RESET), "failed: ConnectionResetError"),
        (raw(head(200, {"content-type": "text/plain", "content-length": "9"}) + b"cut", CLOSE), "failed: EOFError"),
        (raw(head(200, {"transfer-encoding": "chunked"}) + b"5\r\nab", CLOSE), "failed: IncompleteRead"),
        (raw(head(200, {"transfer-encoding": "chunked"}) + b"zz\r\n", CLOSE), "failed: IncompleteRead"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", CLOSE), "failed: HTTPException"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, CLOSE), "failed: LineTooLong"),
        (page(gzip.compress(b"x" * 1000)[:-20], content_encoding="gzip"), "failed: EOFError"),
    ],
)
def test_broken_responses_are_tool_errors_of_one_line(script: Any, said: str):
    with LoopbackServer(script) as server:
        message = refused(fetcher(server), "/")
        assert said in message
        assert "\n" not in message


def test_next_address_is_tried_after_a_failed_connection():
    with LoopbackServer(page("second")) as server:
        tool = fetcher(server, resolve=lambda host, port: ["127.0.0.77", "127.0.0.1"])
        assert tool("/").endswith("second")


def test_unknown_host_is_a_tool_error():
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert (
        refused(web_fetch(allow_public=True, resolve=unknown), "https://no.example/")
        == "The host no.example is not known."
    )
    assert "no address" in refused(web_fetch(allow_public=True, resolve=lambda host, port: []), "https://no.example/")


def test_all_sockets_and_threads_are_closed():
    with LoopbackServer([page("ok"), page("x", status=404), raw(RESET), page("x", "image/png")]) as server:
        tool = fetcher(server)
        tool("/")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            refused(tool, "/")
        assert server.wait_closed()
        until = time.monotonic() + 2  # the server's sockets are in this process, too, and close a moment later
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < until:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<h2>Top</h2><p>One  two\n three</p><p>four", "## Top\n\nOne two three\n\nfour"),
        ("<ul><li>a<li>b</ul>", "- a\n- b"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a | b\n1 | 2"),
        ("<pre>a\n  b</pre>c", "a\n  b\n\nc"),
        ("<style>x{}</style><script>if (a</script>b<SCRIPT>z</ScRiPt >c", "bc"),
        ("<a href='x'>y</a>", "[y](https://e.test/d/x)"),
        ('<a href="javascript:x()">y</a><a href=mailto:z>m</a><a href=q></a>', "ym"),
        ("<a href='http://[bad'>y</a>", "y"),
        ("a &lt;b&gt; &amp; &#x4f60; &#99999999;", "a <b> & 你 �"),
        ("1 < 2 and <3", "1 < 2 and <3"),
        ("a<!-- <p>hidden</p> -->b<!doctype x><?php x ?>c", "abc"),
        ("a<!-- never closed <p>b", "a"),
        ("a<p class='never closed>b", "a\n\nb"),
        ("a<p title=\"x>y\" id='>'>b", "a\n\nb"),
        ('a<p =odd "quote>b', "a\n\nb"),
        ("a<script>never closed", "a"),
        ("x<p", "x"),
        ("<noscript>n</noscript><template>t</template><svg><text>s</text></svg>v", "v"),
    ],
)
def test_html_is_converted_to_text(source: str, text: str):
    assert html_to_text(source, "https://e.test/d/") == text


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "<",
            "<!--",
            "<!",
            "<a ",
            '<a b="',
            "<a b='",
            "<a b='\"",
            "<a href=x>y",
            "<p",
            "</",
            "<script>",
            "<svg><",
            "&",
            "&#",
        ),
        *(
            "&#x",
            "<a" + " " * 50,
            "<b/",
            "a=",
            "\n",
            " ",
            "<pre>\n",
            "<a href=x>",
            "<td>",
            "<li>",
            "<title>",
            "&#1",
            "</script",
        ),
    ],
)
def test_conversion_takes_linear_time(unit: str):
    def seconds(size: int) -> float:
        source = "<i>" + unit * (size // len(unit))
        before = time.process_time()
        html_to_text(source, "https://e.test/")
        return time.process_time() - before

    small = min(seconds(20_000) for _ in range(3))
    assert seconds(160_000) < max(8 * small * 3, 0.1)


def test_numeric_entity_with_many_digits_is_not_an_error():
    assert html_to_text("a&#" + "9" * 5000 + ";b").startswith("a")


def test_text_with_very_long_links_is_limited(monkeypatch):
    monkeypatch.setattr(web, "MAX_TEXT", 10_000)
    text = html_to_text("<a href=x>y</a>" * 5000, "https://e.test/" + "long/" * 300)
    assert len(text) < 10_100
    assert text.endswith("… the page is longer.")


@given(st.text(alphabet="<>/!-=\"' abpre\n&#;script", max_size=200))
def test_any_html_is_converted_without_an_error(source: str):
    assert isinstance(html_to_text(source, "https://e.test/"), str)
