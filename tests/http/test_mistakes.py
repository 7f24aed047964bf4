"""Programming errors below the transport leave as they are, at once; errors of the network become ours."""

from __future__ import annotations

import httpcore2
import pytest

from lmagent.errors import ConnectionFailed
from lmagent.http.transport import HttpTransport
from tests.asking.fakes import HI, VERBS, exchange, quick
from tests.loopback import LoopbackServer, Received, json_answer, sse_answer

verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))


def both(request: Received):
    return sse_answer({"t": "hi"}, "[DONE]") if request.json["stream"] else json_answer(HI)


@verbs
@pytest.mark.parametrize("where", ["handle", "body"])
@pytest.mark.parametrize("mistake", [TypeError, AttributeError, KeyError, RuntimeError, ValueError])
def test_a_programming_error_is_not_a_failure_of_the_network(verb, where, mistake, monkeypatch):
    calls: list[object] = []

    def slip(self, *_, **__):
        calls.append(self)
        raise mistake("a slip")

    if where == "handle":
        monkeypatch.setattr(httpcore2.HTTP11Connection, "handle_request", slip)
        monkeypatch.setattr(httpcore2.AsyncHTTP11Connection, "handle_async_request", slip)
    else:
        monkeypatch.setattr("lmagent.http.wire.Body.feed", slip)
        monkeypatch.setattr("lmagent.http.calls.Body.count", slip)
    with LoopbackServer(both) as server:
        made = exchange(server.url, transport=HttpTransport())
        with pytest.raises(Exception) as caught:
            verb(made)
        error = caught.value
        while not isinstance(error, mistake) and error.__cause__ is not None:
            error = error.__cause__
        assert type(error) is mistake
        assert not isinstance(caught.value, ConnectionFailed)
        assert len(calls) == 1
        assert server.wait_closed()


@verbs
@pytest.mark.parametrize("error", [OSError("no way"), httpcore2.ReadError("x"), httpcore2.ConnectError("x")])
def test_errors_of_the_network_are_ours(verb, error, monkeypatch):
    def fail(self, *_, **__):
        raise error

    monkeypatch.setattr(httpcore2.HTTP11Connection, "handle_request", fail)
    monkeypatch.setattr(httpcore2.AsyncHTTP11Connection, "handle_async_request", fail)
    with LoopbackServer(both) as server:
        with pytest.raises(ConnectionFailed):
            verb(exchange(server.url, transport=HttpTransport(), **quick()))
