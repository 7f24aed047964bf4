"""Record and replay: whole and streamed, in every verb; no secret in a cassette; strict about what is asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lmagent import Agent, OpenAIChat, WenxinChat, function
from lmagent.errors import ConfigurationError, ConnectionFailed, RateLimited, StreamInterrupted
from lmagent.providers.base import Request
from lmagent.testing import FakeAnswer, FakeTransport, Recorder, Replayer, UnexpectedRequest
from tests.four_ways import AGENT_VERBS, MODEL_VERBS
from tests.openai_server import openai_server

CANARY = "sk-canary-0123456789abcdefWXYZ"

every_verb = pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
every_agent_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)


@function
def double(n: int) -> int:
    """Double."""
    return 2 * n


def recording(path: Path, url: str) -> OpenAIChat:
    return OpenAIChat("m", api_key=CANARY, base_url=url + "/v1", transport=Recorder(path))


def replaying(transport: Replayer, url: str) -> OpenAIChat:
    return OpenAIChat("m", api_key="none-needed", base_url=url + "/v1", transport=transport)


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@every_verb
def test_a_recorded_exchange_is_replayed_without_a_server(tmp_path: Path, verb: Any):
    path = tmp_path / "cassette.jsonl"
    with openai_server("Grüße, 世界!", "second") as server:
        model = recording(path, server.url)
        first, second = verb(model, "?"), verb(model, "?")
        model.close()
        url = server.url
    assert len(lines_of(path)) == 2
    with Replayer(path) as replayer:
        model = replaying(replayer, url)
        replies = [verb(model, "?"), verb(model, "?")]
    assert [reply.reply for reply in replies] == [first.reply, second.reply] == ["Grüße, 世界!", "second"]
    assert replies[0].usage == first.usage
    assert replies[0].response_id == first.response_id


@every_agent_verb
def test_a_run_with_tools_is_recorded_and_replayed(tmp_path: Path, verb: Any):
    path = tmp_path / "cassette.jsonl"
    with openai_server([("double", {"n": 21})], "42") as server:
        model = recording(path, server.url)
        first = verb(Agent(model, [double]), "?")
        model.close()
        url = server.url
    with Replayer(path) as replayer:
        again = verb(Agent(replaying(replayer, url), [double]), "?")
    assert again.messages == first.messages
    assert again.usage == first.usage


def test_a_replayed_stream_has_the_recorded_chunks(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    pieces = [b'data: {"choices": [{"index": 0, "delta": {"content": "h\xc3', b'\xb6"}}]}\n\n', b"data: [DONE]\n\n"]
    source = FakeTransport(lambda request: FakeAnswer(body=pieces, headers={"content-type": "text/event-stream"}))
    model = OpenAIChat("m", api_key=CANARY, transport=Recorder(path, source))
    list(model.stream_chat_completion("?"))
    assert source.open_answers == 0
    (line,) = lines_of(path)
    assert line["answer"]["ended"]
    assert "base64" in line["answer"]["pieces"][0]
    last: Any = list(OpenAIChat("m", api_key="x", transport=Replayer(path)).stream_chat_completion("?"))[-1]
    assert last.reply == "hö"


@every_verb
def test_a_cassette_contains_no_secret(tmp_path: Path, verb: Any):
    path = tmp_path / "cassette.jsonl"
    half = len(CANARY) // 2
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": f"key {CANARY}!"}, "finish_reason": "stop"}]})
    body = f"data: {chunk}\n\ndata: [DONE]\n\n".encode()
    cut = body.index(CANARY.encode()) + half
    message = {"role": "assistant", "content": f"key {CANARY}!"}
    whole = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()

    def answer(request: Request) -> FakeAnswer:
        headers = {"set-cookie": f"session={CANARY}", "x-request-id": "r-1"}
        if json.loads(request.content).get("stream"):
            return FakeAnswer(body=[body[:cut], body[cut:]], headers={**headers, "content-type": "text/event-stream"})
        return FakeAnswer(body=whole, headers={**headers, "content-type": "application/json"})

    source = FakeTransport(answer)
    verb(OpenAIChat("m", api_key=CANARY, transport=Recorder(path, source)), f"My key is {CANARY}")
    assert CANARY in str(source.requests[0].headers)
    written = path.read_text("utf-8")
    assert CANARY not in written
    assert CANARY[:half] not in written
    assert CANARY[half:-4] not in written
    assert "cookie" not in written
    assert "authorization" not in written.lower()
    with Replayer(path) as replayer:
        reply = verb(OpenAIChat("m", api_key=CANARY, transport=replayer), f"My key is {CANARY}")
    assert reply.reply == "key sk-…WXYZ!"
    assert reply.request_id == "r-1"


@every_verb
def test_an_access_token_is_masked_and_the_token_request_replayed(tmp_path: Path, verb: Any):
    def answer(request: Request) -> FakeAnswer:
        if "oauth" in request.url:
            return FakeAnswer(body=b'{"access_token": "24.bought-token-987654", "expires_in": 2592000}')
        if json.loads(request.content).get("stream"):
            chunk = b'data: {"result": "hello", "is_end": true, "usage": {"total_tokens": 3}}\n\n'
            return FakeAnswer(body=[chunk], headers={"content-type": "text/event-stream"})
        return FakeAnswer(body=b'{"id": "1", "result": "hello", "usage": {"total_tokens": 3}}')

    path = tmp_path / "cassette.jsonl"
    recorder = Recorder(path, FakeTransport(answer))
    model = WenxinChat(api_key="ak-0123456789", secret_key="secret-0123456789", transport=recorder)
    assert verb(model, "?").reply == "hello"
    written = path.read_text("utf-8")
    for secret in ("bought-token", "ak-0123456789", "secret-0123456789"):
        assert secret not in written
    with Replayer(path) as replayer:
        again = WenxinChat(api_key="another-key-1", secret_key="another-secret-1", transport=replayer)
        assert verb(again, "?").reply == "hello"


def test_the_token_field_of_log_probabilities_is_not_masked(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    body = b'{"data": {"token": "s3cr3t"}, "logprobs": [{"token": "Hello", "logprob": -0.1}]}'
    Recorder(path).write(Request(url="https://x/y"), status=200, pieces=[body], ended=True)
    (line,) = lines_of(path)
    assert line["answer"]["pieces"][0]["json"] == {
        "data": {"token": "…"},
        "logprobs": [{"token": "Hello", "logprob": -0.1}],
    }


def test_account_parameters_and_volatile_headers_are_not_compared(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    asked = Request(
        url="https://user:pass@host/v1?key=abc&alt=sse",
        content=b'{"b": 1, "a": [1]}',
        params={"GroupId": "77", "v": "2"},
        headers={"authorization": "Bearer abc", "x-date": "now", "accept": "text/event-stream"},
    )
    Recorder(path).write(asked, status=200, pieces=[b"ok"], ended=True)
    (line,) = lines_of(path)
    assert line["request"] == {
        "method": "POST",
        "url": "https://host/v1",
        "params": {"alt": "sse", "v": "2"},
        "headers": {"accept": "text/event-stream"},
        "body": {"json": {"b": 1, "a": [1]}},
    }
    from lmagent.http.base import Timeouts

    same = Request(url="https://host/v1?alt=sse", content=b'{"a":[1],"b":1}', params={"v": "2", "key": "other"})
    incoming = Replayer(path).open(same, Timeouts(), float("inf"))
    assert incoming.read(10) == b"ok"
    incoming.close()


def test_an_unexpected_request_names_the_first_difference(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    with openai_server("ok") as server:
        model = recording(path, server.url)
        model.chat_completion("Hello")
        model.close()
        url = server.url
    model = replaying(Replayer(path), url)
    with pytest.raises(UnexpectedRequest, match=r'body.json.messages\[0\].content is "Bye", in the recording "Hello"'):
        model.chat_completion("Bye")
    with pytest.raises(UnexpectedRequest, match=r"messages has 2 items, in the recording 1"):
        model.chat_completion(["Hello", "again"])
    with pytest.raises(UnexpectedRequest, match=r"body.json.stream"):
        list(model.stream_chat_completion("Hello"))
    assert model.chat_completion("Hello").reply == "ok"
    with pytest.raises(UnexpectedRequest, match="0 of 1 exchanges are left"):
        asyncio.run(model.async_chat_completion("Hello"))


def test_exchanges_left_over_fail_the_check(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    with openai_server("ok") as server:
        model = recording(path, server.url)
        model.chat_completion("Hello")
        model.close()
    with (
        pytest.raises(UnexpectedRequest, match=r"1 of 1 exchanges of cassette\.jsonl were not requested"),
        Replayer(path),
    ):
        pass

    async def main() -> None:
        async with Replayer(path):
            pass

    with pytest.raises(UnexpectedRequest):
        asyncio.run(main())
    with pytest.raises(ZeroDivisionError), Replayer(path):
        raise ZeroDivisionError
    assert Replayer(path).left == 1


@every_verb
def test_failures_are_recorded_and_replayed(tmp_path: Path, verb: Any):
    path = tmp_path / "cassette.jsonl"

    def refuse(request: Request) -> FakeAnswer:
        return FakeAnswer(status=429, body=b'{"error": {"message": "slow down"}}', headers={"retry-after": "7"})

    with pytest.raises(RateLimited):
        verb(OpenAIChat("m", api_key=CANARY, transport=Recorder(path, FakeTransport(refuse)), max_retries=0), "?")
    with pytest.raises(RateLimited) as caught:
        verb(OpenAIChat("m", api_key="x", transport=Replayer(path), max_retries=0), "?")
    assert caught.value.retry_after == 7

    def fail(request: Request) -> FakeAnswer:
        raise ConnectionFailed(f"no way to {CANARY}")

    with pytest.raises(ConnectionFailed):
        verb(OpenAIChat("m", api_key=CANARY, transport=Recorder(path, FakeTransport(fail)), max_retries=0), "?")
    assert CANARY not in path.read_text("utf-8")
    with pytest.raises(ConnectionFailed, match="no way to"), Replayer(path) as replayer:
        verb(OpenAIChat("m", api_key="x", transport=replayer, max_retries=0), "?")


def test_an_abandoned_or_interrupted_stream_is_replayed_as_such(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'

    def pieces() -> Any:
        yield chunk
        raise ConnectionFailed("gone")

    headers = {"content-type": "text/event-stream"}
    broken = FakeTransport(lambda request: FakeAnswer(body=pieces(), headers=headers))
    with pytest.raises(StreamInterrupted):
        list(OpenAIChat("m", api_key="x", transport=Recorder(path, broken)).stream_chat_completion("?"))
    with pytest.raises(StreamInterrupted, match="gone"), Replayer(path) as replayer:
        list(OpenAIChat("m", api_key="x", transport=replayer).stream_chat_completion("?"))

    endless = FakeTransport(lambda request: FakeAnswer(body=[chunk, chunk], headers=headers))
    left: Any = OpenAIChat("m", api_key="x", transport=Recorder(path, endless)).stream_chat_completion("?")
    next(left)
    left.close()
    (line,) = lines_of(path)
    assert not line["answer"]["ended"]
    with pytest.raises(StreamInterrupted, match="The recorded answer ends here"):
        list(OpenAIChat("m", api_key="x", transport=Replayer(path)).stream_chat_completion("?"))


def test_a_file_that_is_not_a_cassette_is_a_configuration_error(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="Cannot read the cassette"):
        Replayer(tmp_path / "missing.jsonl")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n', "utf-8")
    with pytest.raises(ConfigurationError, match="Cannot read the cassette"):
        Replayer(tmp_path / "other.jsonl")
