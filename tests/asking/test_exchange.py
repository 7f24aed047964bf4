"""The exchange's decisions: repeats, waits, credentials, what a reply and an error carry."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from email.utils import formatdate

import pytest

from lmagent import OpenAIChat
from lmagent.asking.exchange import Exchange
from lmagent.asking.retry import RetryPolicy
from lmagent.core.events import TextDelta, TextEnd, TextStart
from lmagent.core.messages import Reply
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    InvalidResponse,
    Overloaded,
    ProviderError,
    RateLimited,
    RequestTimeout,
    ServerFailed,
    StreamInterrupted,
)
from lmagent.http.base import Timeouts
from lmagent.http.transport import HttpTransport
from lmagent.providers.base import Auth, BearerAuth, Request
from tests.asking.fakes import ASKS, CALL, HI, STREAM, STREAMS, VERBS, EchoCodec, RecordedSleeps, exchange, quick
from tests.loopback import CLOSE, RESET, STALL, LoopbackServer, Received, json_answer, raw, sse_answer

verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
asks = pytest.mark.parametrize("verb", ASKS.values(), ids=list(ASKS))
streams = pytest.mark.parametrize("verb", STREAMS.values(), ids=list(STREAMS))
FAILED = {"error": {"code": "x", "message": "no"}}


@verbs
def test_a_reply_has_model_id_request_id_and_attempts(verb):
    with LoopbackServer(json_answer(HI, headers={"X-Request-Id": "r-1"})) as server:
        reply = verb(exchange(server.url))
        assert (reply.reply, reply.model_id, reply.request_id, reply.attempts) == ("hi", "echo/m", "r-1", 1)
        assert server.requests[0].headers["content-type"] == "application/json"
        assert "cookie" not in server.requests[0].headers


@streams
def test_a_stream_yields_events_and_then_the_reply(verb):
    with LoopbackServer(sse_answer({"t": "a"}, {"t": "b"}, "[DONE]")) as server:
        made = exchange(server.url)
        items = list(made.stream(STREAM))
        made.close()
    *events, last = items
    assert events == [TextStart("1-1"), TextDelta("a", "1-1"), TextDelta("b", "1-1"), TextEnd("1-1", "ab")]
    assert isinstance(last, Reply)
    assert last.reply == "ab"


@streams
def test_a_whole_body_in_place_of_a_stream_is_replayed_as_events(verb):
    with LoopbackServer(json_answer(HI)) as server:
        made = exchange(server.url)
        *events, last = made.stream(STREAM)
        made.close()
    assert events == [TextStart("1-1"), TextDelta("hi", "1-1"), TextEnd("1-1", "hi")]
    assert last.usage.total_tokens == 3


@verbs
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_retryable_statuses_are_retried_until_they_succeed(verb, status):
    naps = RecordedSleeps()
    busy = json_answer(FAILED, status, {"connection": "close"})
    with LoopbackServer([busy, raw(RESET), json_answer(HI)]) as server:
        reply = verb(exchange(server.url, naps=naps))
        assert len(server.requests) == 3
    assert (reply.reply, reply.attempts) == ("hi", 3)
    assert 0.375 <= naps.taken[0] <= 0.625
    assert 0.75 <= naps.taken[1] <= 1.25


@verbs
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_other_4xx_statuses_are_not_retried(verb, status):
    with LoopbackServer(json_answer(FAILED, status, {"request-id": "r-2"})) as server:
        with pytest.raises(Exception, match="no") as caught:
            verb(exchange(server.url))
        assert len(server.requests) == 1
    assert (caught.value.status, caught.value.request_id, caught.value.model) == (status, "r-2", "m")


@verbs
def test_the_last_error_is_raised_after_all_retries(verb):
    with LoopbackServer(json_answer(FAILED, 503)) as server:
        with pytest.raises(Overloaded) as caught:
            verb(exchange(server.url))
        assert len(server.requests) == 3
    assert caught.value.attempts == 3
    assert "3 attempts" in str(caught.value)


@asks
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": formatdate(1_000_009, usegmt=True)}, 9.0),
    ],
)
def test_the_wait_that_the_server_asks_for_is_used(verb, headers, wait):
    naps = RecordedSleeps()
    with LoopbackServer([json_answer(FAILED, 429, headers), json_answer(HI)]) as server:
        verb(exchange(server.url, naps=naps, wall_clock=lambda: 1_000_000.0))
    assert naps.taken == [wait]


@asks
@pytest.mark.parametrize("value", ["-3", "nan", "inf", "0", "soon", "", "1e999", formatdate(5), "Mon, 99 Nov 2026"])
def test_an_invalid_retry_after_is_replaced_by_our_own_wait(verb, value):
    naps = RecordedSleeps()
    with LoopbackServer([json_answer(FAILED, 429, {"retry-after": value}), json_answer(HI)]) as server:
        verb(exchange(server.url, naps=naps))
    assert 0.375 <= naps.taken[0] <= 0.625


@verbs
def test_a_retry_after_above_the_maximum_raises_at_once(verb):
    with LoopbackServer(json_answer(FAILED, 429, {"retry-after": "61"})) as server:
        with pytest.raises(RateLimited) as caught:
            verb(exchange(server.url))
        assert len(server.requests) == 1
    assert caught.value.retry_after == 61


@asks
def test_x_should_retry_overrides_the_status(verb):
    with LoopbackServer([json_answer(FAILED, 500, {"x-should-retry": "false"}), json_answer(HI)]) as server:
        with pytest.raises(ServerFailed):
            verb(exchange(server.url))
    with LoopbackServer([json_answer(FAILED, 400, {"x-should-retry": "true"}), json_answer(HI)]) as server:
        assert verb(exchange(server.url)).attempts == 2


@asks
def test_a_wait_that_ends_after_the_deadline_raises_at_once(verb):
    naps = RecordedSleeps()
    with LoopbackServer(json_answer(FAILED, 500, {"retry-after": "30"})) as server:
        with pytest.raises(ServerFailed):
            verb(exchange(server.url, naps=naps, timeouts=Timeouts(total=20)))
    assert naps.taken == []


@streams
def test_a_stream_is_retried_only_before_its_first_event(verb):
    broken = sse_answer({"error": {"code": "busy"}})
    with LoopbackServer([broken, sse_answer(end=False), sse_answer({"t": "ok"}, "[DONE]")]) as server:
        assert verb(exchange(server.url)).attempts == 3
    with LoopbackServer([sse_answer({"t": "x"}, end=False), sse_answer({"t": "ok"}, "[DONE]")]) as server:
        with pytest.raises(StreamInterrupted):
            verb(exchange(server.url))
        assert len(server.requests) == 1


def test_tenacity_is_imported_only_after_a_failure():
    import subprocess
    import sys

    code = """
import sys
from tests.loopback import LoopbackServer, json_answer
from tests.asking.fakes import HI, exchange, CALL
heavy = {"tenacity", "httpx", "httpcore", "rich", "pydantic", "click"}
with LoopbackServer([json_answer(HI), json_answer({}, 500), json_answer(HI)]) as server:
    made = exchange(server.url)
    made.ask(CALL)
    assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
    made.ask(CALL)
    assert "tenacity" in sys.modules
    made.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_retries_are_logged_without_secrets(caplog):
    key = Secret("sk-canary-key-000000-log")
    with LoopbackServer(
        [json_answer({"error": {"code": "k", "message": key.reveal()}}, 500), json_answer(HI)]
    ) as server:
        made = exchange(server.url, auth=BearerAuth(key))
        with caplog.at_level(logging.DEBUG):
            made.ask(CALL)
        made.close()
        assert server.requests[0].headers["authorization"] == f"Bearer {key.reveal()}"
    assert "attempt 1 failed" in caplog.text
    assert key.reveal() not in caplog.text


@verbs
def test_no_error_shows_the_api_key(verb):
    key = "sk-canary-0123456789-key"
    script = json_answer({"error": {"code": key, "message": f"bad key {key} {key}"}}, 401)
    with LoopbackServer(script) as server:
        codec = EchoCodec(server.url, params={"access_token": key})
        with pytest.raises(AuthenticationFailed) as caught:
            verb(exchange(server.url, codec=codec, auth=BearerAuth(Secret(key))))
    error = caught.value
    assert key not in str(error) + repr(error) + repr(error.to_dict()) + repr(error.args)


@verbs
@pytest.mark.parametrize("steps", [(RESET,), (STALL,), (b"SSH-2.0\r\n\r\n", CLOSE)])
def test_locals_in_a_traceback_show_no_api_key(verb, steps):
    key = "sk-canary-0123456789-locals"
    with LoopbackServer(raw(*steps)) as server:
        codec = EchoCodec(server.url, params={"access_token": Secret(key).reveal()})
        made = exchange(server.url, codec=codec, auth=BearerAuth(Secret(key)), **quick())
        del codec
        with pytest.raises(ProviderError) as caught:
            verb(made)
    assert key not in _all_locals(caught.value)


@verbs
def test_locals_in_a_traceback_of_a_rejected_header_show_no_api_key(verb):
    key = "sk-canary-0123456789-\x00locals"
    with pytest.raises(ConfigurationError, match="authorization") as caught:
        verb(exchange("http://127.0.0.1:1", auth=BearerAuth(Secret(key))))
    assert key not in _all_locals(caught.value).replace("\\x00", "\x00")


def _all_locals(error: BaseException | None) -> str:
    """Return what a report with local variables shows of the library's own frames."""
    shown = ""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "/lmagent/" in frame.f_code.co_filename:
                shown += "".join(f"{name} = {value!r}\n" for name, value in frame.f_locals.items())
        error = error.__cause__ or error.__context__
    return shown


class TokenAuth(Auth):
    """Fetches a token once; drops it when it is rejected."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token = ""

    @property
    def needs_exchange(self) -> bool:
        return not self.token

    def flow(self, request, now):
        if not self.token:
            body = yield Request(url=self.url + "/token", params={"client_secret": "s3cr3t-s3cr3t"})
            if "error_description" in body:
                raise AuthenticationFailed(body["error_description"])
            self.token = body["token"]
        return request.with_params(access_token=self.token)

    def forget(self, error, sent=None):
        if isinstance(error, AuthenticationFailed) and self.token:
            self.token = ""
            return True
        return False


def tokens(request: Received):
    if request.path == "/token":
        tokens.given += 1
        return json_answer({"token": f"t{tokens.given}"})
    good = request.target.endswith(f"access_token=t{tokens.good}")
    return json_answer(HI) if good else json_answer({"error": {"code": "expired"}}, 401)


@verbs
def test_a_token_is_fetched_once_and_renewed_once_when_rejected(verb):
    tokens.given, tokens.good = 0, 2
    with LoopbackServer(tokens) as server:
        auth = TokenAuth(server.url)
        assert verb(exchange(server.url, auth=auth)).attempts == 2
        assert [request.path for request in server.requests] == ["/token", "/chat", "/token", "/chat"]
        assert verb(exchange(server.url, auth=auth)).attempts == 1
        tokens.good = 99
        with pytest.raises(AuthenticationFailed):
            verb(exchange(server.url, auth=auth))
        assert len(server.requests) == 5 + 3


@verbs
def test_a_failing_token_endpoint_is_a_provider_error(verb):
    def script(request: Received):
        return json_answer({"error_description": "unknown client"}, 401)

    with LoopbackServer(script) as server:
        with pytest.raises(AuthenticationFailed, match="unknown client"):
            verb(exchange(server.url, auth=TokenAuth(server.url)))
    with LoopbackServer(json_answer({"odd": 1})) as server:
        with pytest.raises(InvalidResponse):
            verb(exchange(server.url, auth=TokenAuth(server.url)))
    with LoopbackServer(json_answer({}, 500)) as server:
        with pytest.raises(ServerFailed):
            verb(exchange(server.url, auth=TokenAuth(server.url)))
        assert len(server.requests) == 3


def test_threads_and_tasks_share_one_token_request():
    tokens.given, tokens.good = 0, 1
    with LoopbackServer(tokens) as server:
        made = exchange(server.url, auth=TokenAuth(server.url))

        async def many() -> None:
            await asyncio.gather(*(made.async_ask(CALL) for _ in range(20)))
            await made.aclose()

        threads = [threading.Thread(target=made.ask, args=(CALL,)) for _ in range(10)]
        threads.append(threading.Thread(target=asyncio.run, args=(many(),)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made.close()
        assert sum(request.path == "/token" for request in server.requests) == 1
        assert server.wait_closed()


def test_waiting_for_a_token_ends_at_the_deadline():
    with LoopbackServer(raw(5.0)) as server:
        made = Exchange(
            EchoCodec(server.url),
            transport=HttpTransport(),
            auth=TokenAuth(server.url),
            timeouts=Timeouts(total=0.1),
            retry=RetryPolicy(max_retries=0),
        )

        async def two() -> list[object]:
            found = await asyncio.gather(made.async_ask(CALL), made.async_ask(CALL), return_exceptions=True)
            await made.aclose()
            return found

        assert [type(each) for each in asyncio.run(two())] == [RequestTimeout, RequestTimeout]


def test_an_exception_in_a_codec_becomes_invalid_response():
    class Clumsy(EchoCodec):
        def parse_error(self, status, headers, body, text=""):
            raise LookupError("oops")

    with LoopbackServer(json_answer(HI)) as server:
        with pytest.raises(InvalidResponse):
            ASKS["ask"](exchange(server.url, codec=Clumsy(server.url)))


def test_errors_of_the_caller_are_not_wrapped():
    class Strict(EchoCodec):
        def build_request(self, call):
            raise TypeError("a number, please")

    with pytest.raises(TypeError, match="a number"):
        exchange("http://127.0.0.1:9", codec=Strict("http://127.0.0.1:9")).ask(CALL)


def test_an_invalid_header_is_reported_without_its_value():
    from lmagent.errors import ConfigurationError

    made = exchange("http://127.0.0.1:9", auth=BearerAuth(Secret("sk-canary-line\nbreak-key")))
    with pytest.raises(ConfigurationError) as caught:
        made.ask(CALL)
    assert "canary" not in str(caught.value)
    assert "authorization" in str(caught.value)


def test_bad_urls_are_configuration_errors():
    from lmagent.errors import ConfigurationError

    for url in ("ftp://host", "no url", "http://", "http://host:99999", "http://user:pw@host"):
        with pytest.raises(ConfigurationError):
            exchange(url).ask(CALL)


def test_an_invalid_base_url_is_reported_by_the_model():
    for url in ("http://[::1", "host:80", "ftp://host", "http://a b"):
        with pytest.raises(ConfigurationError, match="not a URL"):
            OpenAIChat("m", api_key="k", base_url=url).chat_completion("q")


def test_an_unknown_4xx_is_a_bad_request():
    with LoopbackServer(json_answer({}, 418)) as server:
        with pytest.raises(BadRequest):
            ASKS["ask"](exchange(server.url))
