"""What servers do wrong, one test a fault, each in every colour: a defined error, in time, and no socket left."""

from __future__ import annotations

import gzip
import itertools
import socket
import ssl
import time
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from lmagent.asking.retry import RetryPolicy
from lmagent.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    InvalidResponse,
    LMAgentError,
    ProviderError,
    QuotaExceeded,
    RequestTimeout,
    ResponseTooLarge,
    ServerFailed,
    StreamInterrupted,
    UnexpectedRedirect,
)
from lmagent.http.base import Timeouts
from lmagent.http.transport import HttpTransport
from tests.asking.fakes import ASKS, HI, STREAMS, VERBS, RecordedSleeps, exchange, quick
from tests.loopback import (
    CLOSE,
    RESET,
    STALL,
    Answer,
    LoopbackServer,
    answer,
    chunk,
    head,
    json_answer,
    raw,
    sse_answer,
)

NO_RETRY = RetryPolicy(max_retries=0)
verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
asks = pytest.mark.parametrize("verb", ASKS.values(), ids=list(ASKS))
streams = pytest.mark.parametrize("verb", STREAMS.values(), ids=list(STREAMS))


def fault(script, kind: type[LMAgentError], verb, **options) -> LMAgentError:
    options = {"retry": NO_RETRY, **options}
    with LoopbackServer(script) as server:
        with pytest.raises(kind) as caught:
            verb(exchange(server.url, **options))
        assert server.wait_closed(1), "a connection was left open"
    return caught.value


@verbs
def test_refused(verb):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    naps = RecordedSleeps()
    with pytest.raises(ConnectionFailed) as caught:
        verb(exchange(f"http://127.0.0.1:{port}", naps=naps))
    assert caught.value.attempts == 3
    assert len(naps.taken) == 2
    assert caught.value.provider == "echo"


@verbs
def test_a_certificate_nobody_vouches_for(verb, tmp_path):
    context = _self_signed(tmp_path)
    with LoopbackServer(answer("{}"), ssl_context=context) as server:
        with pytest.raises(ConnectionFailed, match="SSL_CERT_FILE") as caught:
            verb(exchange(server.url))
        assert (caught.value.attempts, server.requests) == (1, [])


def _self_signed(folder) -> ssl.SSLContext:
    pytest.importorskip("cryptography", reason="makes the certificate; comes with some providers' SDKs")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    file = folder / "server.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@verbs
def test_unknown_host(verb, monkeypatch):
    def no_such_name(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(ConnectionFailed):
        verb(exchange("http://no-such-host.invalid", retry=NO_RETRY))


@verbs
@pytest.mark.parametrize("steps", [(RESET,), (CLOSE,), (b"HTTP/1.1 200", CLOSE), (head(200)[:-2], RESET)])
def test_gone_before_the_answer(verb, steps):
    fault(raw(*steps), ConnectionFailed, verb)


@asks
@pytest.mark.parametrize("end", [RESET, CLOSE])
def test_gone_in_the_body(verb, end):
    fault(raw(head(200, {"content-length": "100"}) + b'{"text":', end), ConnectionFailed, verb)


@verbs
def test_no_http(verb):
    fault(raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", CLOSE), InvalidResponse, verb)


@verbs
@pytest.mark.parametrize(
    "steps",
    [
        [STALL],
        [head(200, {"content-length": "100"}), b"{", STALL],
        [b"HTTP/1.1 200 OK\r\nx: ", *[b"a", 0.02] * 100],
        [head(200, {"content-length": "9999999"}), *[b" ", 0.02] * 100],
        [head(200, {"transfer-encoding": "chunked"}), *[chunk(b": ping\n\n"), 0.02] * 100],
    ],
    ids=["stall", "stall in the body", "header drips", "body drips", "pings for ever"],
)
def test_total_clock(verb, steps):
    begun = time.monotonic()
    error = fault(Answer(steps), RequestTimeout, verb, **quick(total=0.15))
    assert time.monotonic() - begun < 0.15 + 0.5
    assert error.which == "total"


@verbs
def test_idle_clock(verb):
    error = fault(raw(head(200, {"content-length": "9"}), STALL), RequestTimeout, verb, **quick(total=5, idle=0.05))
    assert error.which == "read"


@streams
def test_pings_do_not_count_as_useful(verb):
    steps = [head(200, {"transfer-encoding": "chunked"}), *[chunk(b": ping\n\n"), 0.02] * 30]
    error = fault(Answer(steps), RequestTimeout, verb, **quick(total=5, idle=0.1))
    assert error.which == "read"


@verbs
def test_connect_clock(verb):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        with pytest.raises(RequestTimeout) as caught:
            verb(exchange(f"http://127.0.0.1:{address[1]}", **quick(total=5, connect=0.1)))
        for filler in fillers:
            filler.close()
    assert caught.value.which == "connect"


@asks
@pytest.mark.parametrize(
    "script",
    [
        raw(head(200, {"content-length": "99999999999"}), STALL),
        raw(head(200, {"content-length": "9" * 5000}), STALL),
        Answer([head(200, {"transfer-encoding": "chunked"}), *[chunk(b"x" * 1000)] * 200, STALL]),
        answer(gzip.compress(b" " * 10_000_000), headers={"content-encoding": "gzip"}),
        answer(zlib.compress(b" " * 10_000_000), headers={"content-encoding": "deflate"}),
    ],
    ids=["declared", "absurd", "sent", "gzip bomb", "deflate bomb"],
)
def test_too_large(verb, script):
    with LoopbackServer(script) as server:
        made = exchange(server.url, transport=HttpTransport(max_response_bytes=100_000), retry=NO_RETRY)
        with pytest.raises(LMAgentError) as caught:
            verb(made)
        assert isinstance(caught.value, ResponseTooLarge | InvalidResponse)
        assert server.wait_closed()


@streams
def test_stream_too_large(verb):
    events = [{"t": "x" * 1000}] * 300
    with LoopbackServer(sse_answer(*events, "[DONE]")) as server:
        made = exchange(server.url, transport=HttpTransport(max_response_bytes=100_000))
        with pytest.raises((StreamInterrupted, ResponseTooLarge)) as caught:
            verb(made)
        # It depends on how the bytes arrive whether anything was handed out before the limit was reached.
        assert isinstance(caught.value, ResponseTooLarge) or isinstance(caught.value.__cause__, ResponseTooLarge)
        assert server.wait_closed()


@verbs
def test_error_bodies_are_read_to_64_kib_only(verb):
    endless = itertools.chain([head(500, {"transfer-encoding": "chunked"})], itertools.repeat(chunk(b"e" * 8192)))
    error = fault(Answer(endless), ServerFailed, verb)
    assert len(str(error)) < 600


@verbs
@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ({"content-length": "100"}, (b'{"error":', CLOSE)),
        ({"content-length": "100"}, (b"no", STALL)),
        ({"transfer-encoding": "chunked"}, (b"zz\r\n",)),
        ({"content-encoding": "gzip", "content-length": "5"}, (b"plain",)),
    ],
    ids=["cut short", "stalls", "no chunk", "no gzip"],
)
def test_a_broken_error_body_does_not_hide_the_status(verb, headers, rest):
    with LoopbackServer(raw(head(401, headers), *rest)) as server:
        with pytest.raises(AuthenticationFailed) as caught:
            verb(exchange(server.url, timeouts=Timeouts(total=5, idle=0.1)))
        assert len(server.requests) == 1
        assert caught.value.status == 401


@streams
@pytest.mark.parametrize("body", [b"", b"nope", b"null", b'"hi"', b"\n \n", "{}".encode("utf-16")])
def test_a_body_that_is_no_stream_is_asked_for_once(verb, body):
    with LoopbackServer(answer(body, headers={"content-type": "text/event-stream"})) as server:
        with pytest.raises(InvalidResponse):
            verb(exchange(server.url))
        assert len(server.requests) == 1


@streams
def test_blank_lines_before_a_stream_are_pings(verb):
    steps = [head(200, {"transfer-encoding": "chunked"}), *[chunk(b"\n"), 0.02] * 30]
    error = fault(Answer(steps), RequestTimeout, verb, **quick(total=5, idle=0.1))
    assert error.which == "read"


@streams
def test_time_is_linear_in_blank_lines(verb):
    steps = [head(200, {"transfer-encoding": "chunked"}), *[chunk(b"\n" * 10_000)] * 1600]
    begun = time.monotonic()
    fault(Answer([*steps, chunk(b"")]), InvalidResponse, verb)
    assert time.monotonic() - begun < 2


@verbs
def test_redirect_names_the_host_only(verb):
    script = answer(b"", 307, {"location": "https://elsewhere.example/path?token=hush-hush"})
    error = fault(script, UnexpectedRedirect, verb)
    assert "elsewhere.example" in str(error)
    assert "hush" not in str(error)
    assert "path" not in str(error)


@verbs
def test_html_with_200(verb):
    script = answer("<!DOCTYPE html><title>Login</title>", 200, {"content-type": "text/html"})
    error = fault(script, InvalidResponse, verb)
    assert "HTML page" in str(error)
    assert "Login" not in str(error)


@verbs
@pytest.mark.parametrize("body", ["", "nonsense", '{"text":', "[]", "null", '{"text": NaN}', '"just text"', "{}"])
def test_unreadable_200(verb, body):
    error = fault(answer(body), ProviderError, verb)
    assert isinstance(error, InvalidResponse | StreamInterrupted)
    assert error.attempts == 1


@verbs
def test_error_hidden_in_a_200(verb):
    error = fault(json_answer({"error": {"code": "oops", "message": "no"}}, 200), ServerFailed, verb)
    assert error.code == "oops"


@verbs
def test_content_type_is_only_a_hint(verb):
    with LoopbackServer(json_answer(HI, headers={"content-type": "text/event-stream"})) as server:
        assert verb(exchange(server.url)).reply == "hi"
    with LoopbackServer(sse_answer({"t": "h"}, {"t": "i"}, "[DONE]", headers={"content-type": "x/y"})) as server:
        assert verb(exchange(server.url)).reply == "hi"


@verbs
@pytest.mark.parametrize(
    "encoded",
    [
        ("gzip", gzip.compress(b'{"text": "hi"}')),
        ("gzip", gzip.compress(b'{"text": ') + gzip.compress(b'"hi"}')),
        ("deflate", zlib.compress(b'{"text": "hi"}')),
        ("deflate", zlib.compress(b'{"text": "hi"}')[2:-4]),
        ("identity", b'\xef\xbb\xbf{"text": "hi"}'),
    ],
)
def test_encodings(verb, encoded):
    coding, body = encoded
    with LoopbackServer(answer(body, headers={"content-encoding": coding})) as server:
        assert verb(exchange(server.url)).reply == "hi"


@verbs
def test_unknown_encoding_and_broken_gzip(verb):
    fault(answer(b"???", headers={"content-encoding": "br"}), InvalidResponse, verb)
    fault(answer(b"not gzip at all", headers={"content-encoding": "gzip"}), InvalidResponse, verb)


@streams
@pytest.mark.parametrize("end", [True, False], ids=["ended", "cut"])
def test_a_stream_without_its_end_mark(verb, end):
    error = fault(sse_answer({"t": "half"}, end=end), StreamInterrupted, verb)
    assert error.partial.content == "half"
    assert not error.retryable


@streams
def test_an_error_in_mid_stream(verb):
    script = sse_answer({"t": "half"}, {"error": {"code": "overloaded"}})
    error = fault(script, StreamInterrupted, verb, retry=RetryPolicy())
    assert error.partial.content == "half"
    assert error.code == "overloaded"
    assert isinstance(error.__cause__, ServerFailed)
    assert error.attempts == 1


@streams
def test_a_stream_that_stalls_after_an_event(verb):
    script = raw(head(200, {"transfer-encoding": "chunked"}) + chunk(b'data: {"t":"half"}\n\n'), STALL)
    error = fault(script, StreamInterrupted, verb, **quick(total=0.1))
    assert error.partial.content == "half"
    assert isinstance(error.__cause__, RequestTimeout)


@streams
@pytest.mark.parametrize("frame", [b"data: {oops\n\n", b'data: {"t": 1}\n\n', b"data: 7\n\n", b'data: {"x": "y"}\n\n'])
def test_an_unreadable_frame(verb, frame):
    error = fault(sse_answer({"t": "half"}, frame, {"t": "more"}, "[DONE]"), StreamInterrupted, verb)
    assert error.partial.content == "half"
    assert isinstance(error.__cause__, InvalidResponse)


@streams
def test_odd_but_legal_streams(verb):
    body = (
        b'\xef\xbb\xbf: hello\r\nretry: 10\r\n\r\nevent: x\r\nid: 7\r\ndata:{"t":\r\ndata: "h"}\r\n\r\n'
        b': ping\n\ndata: {"t": "i"}\n\rdata: [DONE]'
    )
    pieces = [step for byte in body for step in (bytes([byte]),)]
    with LoopbackServer(Answer([head(200, {"connection": "close"}), *pieces, CLOSE])) as server:
        assert verb(exchange(server.url)).reply == "hi"


@streams
def test_the_end_mark_ends_the_reply_though_the_server_holds_on(verb):
    script = raw(head(200, {"transfer-encoding": "chunked"}) + chunk(b'data: {"t":"hi"}\n\ndata: [DONE]\n\n'), STALL)
    begun = time.monotonic()
    with LoopbackServer(script) as server:
        assert verb(exchange(server.url)).reply == "hi"
        assert server.wait_closed()
    assert time.monotonic() - begun < 1


@verbs
def test_insufficient_quota_is_not_repeated(verb):
    script = json_answer({"error": {"code": "insufficient_quota"}}, 429, {"x-should-retry": "true"})
    error = fault(script, QuotaExceeded, verb, retry=RetryPolicy())
    assert (error.attempts, error.retryable) == (1, False)
