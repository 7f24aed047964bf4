"""The response cache: one request for the same question, in every verb; errors, keys and budgets."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from lmagent import Agent, OpenAIChat, WenxinChat, function
from lmagent.asking.cache import ResponseCache
from lmagent.core.budget import Budget
from lmagent.core.messages import Usage
from lmagent.errors import ConfigurationError, ProviderError, StreamInterrupted
from lmagent.providers.base import Request
from lmagent.testing import FakeAnswer, FakeTransport
from tests.four_ways import AGENT_VERBS, MODEL_VERBS
from tests.openai_server import openai_server

CANARY = "sk-canary-0123456789abcdefWXYZ"

every_verb = pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
every_agent_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
both_stores = pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])


def cache_in(tmp_path: Path, in_file: bool, **options: Any) -> ResponseCache:
    return ResponseCache(tmp_path / "answers.sqlite" if in_file else None, **options)


def model_at(url: str, cache: ResponseCache | None, **options: Any) -> OpenAIChat:
    return OpenAIChat("m", api_key=CANARY, base_url=url + "/v1", cache=cache, **options)


@both_stores
@every_verb
def test_an_equal_request_is_sent_once(tmp_path: Path, in_file: bool, verb: Any):
    with (
        openai_server("first", "second", "third") as server,
        model_at(server.url, cache_in(tmp_path, in_file)) as model,
    ):
        first, again, other = verb(model, "?"), verb(model, "?"), verb(model, "??")
        assert (first.reply, again.reply, other.reply) == ("first", "first", "second")
        assert (first.cached, again.cached, other.cached) == (False, True, False)
        assert (first.attempts, again.attempts) == (1, 0)
        assert (first.usage.total_tokens, again.usage) == (15, Usage())
        assert (again.finish_reason, again.model_id) == (first.finish_reason, first.model_id)
        assert verb(model, "?", temperature=0.5).reply == "third"
        assert len(server.requests) == 3


def test_there_is_no_cache_by_default():
    with openai_server("a", "b") as server, model_at(server.url, None) as model:
        assert model.chat_completion("?").reply == "a"
        assert model.chat_completion("?").reply == "b"


def test_a_cached_stream_is_replayed_in_the_same_chunks():
    with openai_server("a longer answer") as server, model_at(server.url, ResponseCache()) as model:
        first = [item.stream.delta for item in model.stream_chat_completion("?")]
        again = [item.stream.delta for item in model.stream_chat_completion("?")]
        assert first == again
        assert len(first) > 3
        assert len(server.requests) == 1


@every_agent_verb
def test_a_run_with_tools_is_answered_from_the_file_of_another_process(tmp_path: Path, verb: Any):
    @function
    def double(n: int) -> int:
        """Double."""
        return 2 * n

    path = tmp_path / "answers.sqlite"
    with openai_server([("double", {"n": 21})], "42") as server:
        for _ in range(2):
            with model_at(server.url, ResponseCache(path)) as model:
                budget = Budget(requests=2)
                result = verb(Agent(model, [double]), "?", budget=budget)
                assert result.reply == "42"
        assert len(server.requests) == 2
    assert (result.requests, result.usage.total_tokens) == (0, 0)
    assert (budget.spent.requests, budget.spent.tokens) == (0, 0)


@both_stores
@every_verb
def test_errors_are_not_cached(tmp_path: Path, in_file: bool, verb: Any):
    answers = iter(
        [
            FakeAnswer(status=400, body=b'{"error": {"message": "no"}}'),
            FakeAnswer(body=b'{"error": {"message": "hidden in a 200"}}'),
            FakeAnswer(body=b'{"choices": ['),
        ]
    )
    cache = cache_in(tmp_path, in_file)
    transport = FakeTransport(lambda request: next(answers))
    model = OpenAIChat("m", api_key=CANARY, transport=transport, cache=cache, max_retries=0)
    for _ in range(3):
        with pytest.raises(ProviderError):
            verb(model, "?")
    assert len(cache) == 0
    assert len(transport.requests) == 3


def test_an_interrupted_or_abandoned_stream_is_not_cached():
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
    cache = ResponseCache()
    headers = {"content-type": "text/event-stream"}
    transport = FakeTransport(lambda request: FakeAnswer(body=[chunk, chunk], headers=headers))
    model = OpenAIChat("m", api_key=CANARY, transport=transport, cache=cache, max_retries=0)
    with pytest.raises(StreamInterrupted):
        list(model.stream_chat_completion("?"))
    left: Any = model.stream_chat_completion("?")
    next(left)
    left.close()
    assert len(cache) == 0
    assert transport.open_answers == 0


def test_after_a_retry_only_the_good_answer_is_cached():
    good = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}'
    answers = iter([FakeAnswer(status=503, headers={"retry-after": "0"}), FakeAnswer(body=good)])
    cache = ResponseCache()
    model = OpenAIChat("m", api_key=CANARY, transport=FakeTransport(lambda r: next(answers)), cache=cache)
    assert (model.chat_completion("?").attempts, model.chat_completion("?").cached) == (2, True)


@both_stores
def test_no_api_key_is_stored_or_part_of_the_cache_key(tmp_path: Path, in_file: bool):
    cache = cache_in(tmp_path, in_file)
    with openai_server("fine", f"your key is {CANARY}") as server:
        with model_at(server.url, cache) as model:
            model.chat_completion("?")
            model.chat_completion("What is my key?")
            list(model.stream_chat_completion("What is my key?"))
        assert len(cache) == 1
        with OpenAIChat("m", api_key="sk-another-0123456789", base_url=server.url + "/v1", cache=cache) as model:
            assert model.chat_completion("?").cached
    for path in tmp_path.iterdir():
        assert CANARY.encode() not in path.read_bytes()


def test_access_tokens_are_not_cached(tmp_path: Path):
    bought: list[Request] = []

    def answer(request: Request) -> FakeAnswer:
        if "oauth" in request.url:
            bought.append(request)
            return FakeAnswer(body=b'{"access_token": "24.bought-token-0123456789", "expires_in": 2592000}')
        return FakeAnswer(body=b'{"id": "1", "result": "hello", "usage": {"total_tokens": 3}}')

    path = tmp_path / "answers.sqlite"
    for _ in range(2):
        model = WenxinChat(
            api_key="ak-0123456789",
            secret_key="sk-0123456789",
            transport=FakeTransport(answer),
            cache=ResponseCache(path),
        )
        assert model.chat_completion("?").reply == "hello"
    assert len(bought) == 1  # a cached answer needs no token at all
    assert b"bought-token" not in path.read_bytes()
    assert b"0123456789" not in path.read_bytes()


@both_stores
def test_the_oldest_entries_are_deleted_and_expired_ones_are_not_used(tmp_path: Path, in_file: bool):
    now = [0.0]
    cache = cache_in(tmp_path, in_file, max_entries=2, max_age=10, clock=lambda: now[0])
    for number in range(3):
        now[0] = float(number)
        cache.put(str(number), {}, [b"x", b"yz"])
    assert len(cache) == 2
    assert cache.get("0") is None
    kept = cache.get("1")
    assert kept is not None
    assert kept.chunks == (b"x", b"yz")
    now[0] = 11.5
    assert cache.get("1") is None
    assert cache.get("2") is not None
    cache.forget("2")
    assert cache.get("2") is None
    cache.clear()
    assert len(cache) == 0


def test_an_unreadable_cached_answer_is_requested_again(tmp_path: Path):
    cache = ResponseCache()
    with openai_server("one", "two") as server, model_at(server.url, cache) as model:
        model.chat_completion("?")
        (key,) = cache._store._entries  # pyright: ignore
        cache.put(key, {"content-type": "application/json"}, [b"{broken"])
        assert model.chat_completion("?").reply == "two"
        assert model.chat_completion("?").cached


def test_a_broken_cache_file_is_logged_and_the_model_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "answers.sqlite"
    cache = ResponseCache(path)
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"no database at all" * 100)
    with openai_server("one", "two") as server, model_at(server.url, cache) as model:
        assert model.chat_completion("?").reply == "one"
        assert model.chat_completion("?").reply == "two"
    assert "could not be read" in caplog.text
    with pytest.raises(ConfigurationError):
        ResponseCache(path)


def test_a_file_of_another_program_is_a_configuration_error(tmp_path: Path):
    path = tmp_path / "other.sqlite"
    db = sqlite3.connect(path)
    db.execute("create table theirs (x)")
    db.commit()
    db.close()
    with pytest.raises(ConfigurationError, match="is not a response cache"):
        ResponseCache(path)
    with pytest.raises(ConfigurationError, match="Cannot open the response cache"):
        ResponseCache(tmp_path / "no" / "folder.sqlite")
    with pytest.raises(ConfigurationError):
        ResponseCache(max_entries=0)


@both_stores
def test_many_threads_share_one_cache(tmp_path: Path, in_file: bool):
    cache = cache_in(tmp_path, in_file)

    def work(number: int) -> None:
        for turn in range(10):
            cache.put(f"{number} {turn}", {}, [b"x"])
            assert cache.get(f"{number} {turn}") is not None

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 40


def test_the_cache_key_covers_model_url_parameters_headers_and_body():
    cache = ResponseCache()
    base = Request(url="https://x/v1", content=json.dumps({"a": 1}).encode(), headers={"A": "1"}, params={"p": "1"})
    key = cache.key_of("p/m", base)
    same = Request(url="https://x/v1", content=b'{"a": 1}', headers={"a": "1"}, params={"p": "1"})
    assert cache.key_of("p/m", same) == key
    changed = [
        cache.key_of("p/n", base),
        cache.key_of("p/m", base.with_headers(b="2")),
        cache.key_of("p/m", base.with_params(p="2")),
        cache.key_of("p/m", Request(url="https://x/v1", content=b"{}", headers={"A": "1"}, params={"p": "1"})),
    ]
    assert len({key, *changed}) == 5
