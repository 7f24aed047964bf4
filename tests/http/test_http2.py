"""HTTP/2 on request: one stream a connection, over TLS."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from lmagent.errors import ConfigurationError
from lmagent.http.transport import HttpTransport
from tests.asking.fakes import VERBS, exchange

CERTIFICATE = Path(__file__).resolve().parents[1] / "tools" / "pages_test_cert.pem"
verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))


class _Server(asyncio.Protocol):
    """Answers each request as `tests.asking.fakes` wants it; speaks only HTTP/2."""

    connections = 0
    requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _Server.connections += 1
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                _Server.requests += 1
                streamed = json.loads(self.bodies.pop(event.stream_id))["stream"]
                self.h2.send_headers(event.stream_id, [(":status", "200"), ("x-request-id", "two")])
                body = b'data: {"t":"hi"}\n\ndata: [DONE]\n\n' if streamed else b'{"text":"hi"}'
                self.h2.send_data(event.stream_id, body, end_stream=True)
        self.transport.write(self.h2.data_to_send())


@contextmanager
def http2_server() -> Iterator[int]:
    """Run the server in a thread; gives its port."""
    _Server.connections = _Server.requests = 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.set_alpn_protocols(["h2"])
    ready = threading.Event()
    found: list[int] = []
    loop = asyncio.new_event_loop()

    async def main() -> None:
        server = await loop.create_server(_Server, "127.0.0.1", 0, ssl=context)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    ready.wait(5)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def transport() -> HttpTransport:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    context.check_hostname = False
    return HttpTransport(http2=True, ssl_context=context, proxy="")


@verbs
def test_one_connection_serves_http2_requests(verb):
    with http2_server() as port:
        made = exchange(f"https://127.0.0.1:{port}", transport=transport())
        assert verb(made).reply == "hi"
        made.close()
        assert (_Server.connections, _Server.requests) == (1, 1)


def test_many_at_once_and_one_after_another():
    from tests.asking.fakes import CALL

    async def main() -> None:
        for _ in range(2):
            assert [each.reply for each in await asyncio.gather(*(made.async_ask(CALL) for _ in range(8)))] == [
                "hi"
            ] * 8
        await made.aclose()

    with http2_server() as port:
        made = exchange(f"https://127.0.0.1:{port}", transport=transport())
        asyncio.run(main())
        assert _Server.requests == 16
        for _ in range(3):
            assert made.ask(CALL).reply == "hi"
        made.close()


def test_a_missing_package_is_named(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr("lmagent.http.transport.find_spec", lambda name: None if name == "h2" else original(name))
    with pytest.raises(ConfigurationError, match=r"pip install 'lmagent\[http2\]'"):
        HttpTransport(http2=True)
