"""Replaceable parts of a bulk run: a custom work source, limiter and journal."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lmagent import Agent, CompletionEngine, function
from lmagent.asking.limits import BookedPlace, Permit, RateLimiter
from lmagent.core.messages import Usage
from lmagent.engines.bulk.journal import SQLiteJournal
from lmagent.engines.bulk.target import Target
from lmagent.engines.bulk.work import Journal, LocalSource, Row, SharedLimiter, Work, WorkSource, read_item
from lmagent.errors import BadRequest, ConfigurationError, JournalError, RateLimited, ServerFailed
from lmagent.models.fallback import FallbackModel
from lmagent.providers.base import Request
from lmagent.testing import FakeAnswer
from tests.engines.bulk.test_engine import SlowTransport, answer_to, collected, model, refusal, reply

COUNT = 200
PROMPTS = [f"p{number % 150}" for number in range(COUNT)]
"""Prompts, some of them twice."""


class MemoryJournal:
    """A minimal journal in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.begun: set[str] = set()
        self.fingerprint: Mapping[str, Any] | None = None
        self.known = self.in_doubt = 0

    def open(self, fingerprint: Mapping[str, Any], *, accept_change: bool) -> None:
        if self.fingerprint not in (None, fingerprint) and not accept_change:
            raise JournalError("of another run")
        self.fingerprint, self.seen = fingerprint, Counter[str]()
        self.known, self.in_doubt = len(self.rows), len(self.begun)

    def ordinal(self, base: str) -> int:
        self.seen[base] += 1
        return self.seen[base] - 1

    def find(self, key: str) -> Row | None:
        return self.rows.get(key)

    def is_in_doubt(self, key: str) -> bool:
        return key in self.begun

    async def begin(self, key: str) -> None:
        self.begun.add(key)

    async def put(self, row: Row) -> None:
        self.rows[row.key] = row
        self.begun.discard(row.key)

    def close(self) -> None:
        self.seen.clear()


class Owner:
    """A limiter in a separate thread with a separate clock, reached by messages only."""

    counts_tokens = True

    def __init__(self, requests: float, tokens: float, window: float) -> None:
        self._limiter = RateLimiter(requests, tokens, window=window, burst=10, clock=self._clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="owner")
        self.threads: set[int] = set()
        self.booked: list[BookedPlace] = []
        self.settled = 0
        self.pauses: list[float] = []

    @staticmethod
    def _clock() -> float:
        return time.perf_counter() + 1e6

    def tell(self, what: Callable[[], Any]) -> Any:
        def noted() -> Any:
            self.threads.add(threading.get_ident())
            return what()

        return self._thread.submit(noted).result()

    def peek(self, now: float, tokens: float) -> float:
        return self.tell(lambda: self._limiter.peek(self._clock(), tokens))

    def book(self, now: float, tokens: float) -> Permit:
        place: BookedPlace = self.tell(lambda: self._limiter.book(self._clock(), tokens))
        self.booked.append(place)
        return Handle(self, place)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.tell(lambda: self._limiter.pause(seconds))

    def close(self) -> None:
        self._thread.shutdown()


class Handle:
    """A permit of the remote limiter."""

    def __init__(self, owner: Owner, place: BookedPlace) -> None:
        self._owner = owner
        self._place = place
        self.wait = place.wait

    @property
    def revoked(self) -> bool:
        return self._owner.tell(lambda: self._place.revoked)

    def refund(self) -> None:
        self._owner.tell(self._place.refund)

    def started(self, now: float) -> None:
        self._owner.tell(lambda: self._place.started(self._owner._clock()))

    def settle(self, usage: Usage | None) -> None:
        self._owner.settled += 1
        self._owner.tell(lambda: self._place.settle(usage))


class Queue:
    """A work source that provides only every third item."""

    def __init__(self, prompts: list[str]) -> None:
        self._left = [read_item(prompt, index) for index, prompt in enumerate(prompts)][1::3]
        self._left.reverse()
        self.closed = False

    async def take(self) -> Work | None:
        return self._left.pop() if self._left else None

    async def aclose(self) -> None:
        self.closed = True


def test_local_and_custom_parts_satisfy_the_protocols(tmp_path: Path):
    local: tuple[WorkSource, SharedLimiter, Journal] = LocalSource([]), RateLimiter(), SQLiteJournal(tmp_path / "j")
    other: tuple[WorkSource, SharedLimiter, Journal] = Queue([]), Owner(1, 1, 1), MemoryJournal()
    for source, limiter, journal in (local, other):
        assert isinstance(source, WorkSource)
        assert isinstance(limiter, SharedLimiter)
        assert isinstance(journal, Journal)


def shown(items: list[Any]) -> list[Any]:
    return [(item.index, item.id, item.reply, type(item.error), item.attempts, item.from_journal) for item in items]


def flaky() -> Callable[[Request], FakeAnswer]:
    """Answer some prompts with a permanent error, and others with a temporary error at first."""
    seen: set[bytes] = set()

    def answer(request: Request) -> FakeAnswer:
        found = answer_to(request)
        if b're p13"' in found.body:
            return refusal(400)
        if b're p77"' in found.body and found.body not in seen:
            seen.add(found.body)
            return refusal(500)
        return found

    return answer


def two_runs(journal: Any, **options: Any) -> list[Any]:
    """Run all prompts twice; return the completions and requests of both runs."""
    transport = SlowTransport(flaky())
    asked: list[Any] = []
    for _ in range(2):
        engine = CompletionEngine(
            model(transport), 8, journal=journal, error_mode="return", track_in_doubt=True, max_tokens=16, **options
        )
        asked.append(shown(collected(engine, PROMPTS)))
        asked.append((len(transport.asked), engine.summary.from_journal, engine.summary.retried, engine.summary.unused))
    return asked


@pytest.mark.parametrize("share", [False, True])
def test_custom_journal_and_limiter_give_the_same_result(tmp_path: Path, share: bool):
    limits = {"requests": 100, "tokens": 4000, "window": 0.1}
    local = two_runs(
        tmp_path / "run.db", share_identical=share, limiter=RateLimiter(100, 4000, window=limits["window"], burst=10)
    )
    owner, journal = Owner(**limits), MemoryJournal()
    try:
        assert two_runs(journal, share_identical=share, limiter=owner) == local
    finally:
        owner.close()
    first, asked, second, asked_again = local
    assert {kind for *_, kind, _, _ in first} == {type(None), BadRequest, ServerFailed}
    assert asked[0] == (150 if share else COUNT)
    assert asked_again[0] == asked[0] + 1, "only what may pass is asked again"
    assert {kind for *_, kind, _, _ in second} == {type(None), BadRequest}
    assert journal.begun == set()
    assert threading.get_ident() not in owner.threads
    assert len(owner.threads) == 1
    assert len(owner.booked) >= asked_again[0]
    assert owner.settled == asked_again[0] - 1 - (1 if share else 2), "all but those that failed"
    starts = sorted(place.at for place in owner.booked)
    assert all(late - early > 0.1 for early, late in zip(starts, starts[100:], strict=False))


def test_shared_limiter_paces_and_pauses_two_engines():
    owner = Owner(1000, 1e6, 60)
    try:
        engines = [CompletionEngine(model(), limiter=owner), CompletionEngine(model(), limiter=owner)]
        for engine in engines:
            assert len(list(engine.run(["a", "b"]))) == 2
        assert len(owner.booked) == 4
        waiting = FakeAnswer(body=b"{}", status=429, headers={"retry-after": "0.05"})
        engine = CompletionEngine(model(SlowTransport(lambda _: waiting)), limiter=owner, error_mode="return")
        (item,) = engine.run(["a"])
        assert isinstance(item.error, RateLimited)
        assert owner.pauses == [0.05]
    finally:
        owner.close()


@pytest.mark.parametrize("in_order", [True, False])
def test_source_with_gaps_in_its_indexes(in_order: bool):
    source = Queue(PROMPTS)
    engine = CompletionEngine(model(), 4, in_order=in_order, ahead=4)
    items = collected(engine, source)
    assert sorted(item.index for item in items) == list(range(1, COUNT, 3))
    assert all(item.reply == f"re {PROMPTS[item.index]}" for item in items)
    if in_order:
        assert [item.index for item in items] == list(range(1, COUNT, 3))
    assert engine.summary.total is None
    assert source.closed


def test_custom_journal_decides_about_another_model():
    journal = MemoryJournal()
    list(CompletionEngine(model(), journal=journal).run(["a"]))
    with pytest.raises(JournalError, match="another run"):
        list(CompletionEngine(model(), journal=journal, temperature=0).run(["a"]))
    engine = CompletionEngine(model(), journal=journal, temperature=0, on_change="accept")
    list(engine.run(["a"]))
    assert engine.summary.requests == 1
    assert engine.summary.unused == 1


class Deaf:
    """A limiter that is not a `SharedLimiter`."""

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> Permit:
        raise AssertionError

    def answered(self, headers: Mapping[str, str], now: float) -> None: ...

    def failed(self, error: Any, max_pause: float) -> None: ...


def test_unsuitable_parts_are_rejected_at_construction():
    wrong: Any
    for wrong in ({"journal": 7}, {"limiter": 500}, {"limiter": Deaf()}):
        with pytest.raises(ConfigurationError, match=r"not (int|Deaf)"):
            CompletionEngine(model(), **wrong)
    with pytest.raises(ConfigurationError, match="peek, book"):
        CompletionEngine(model(limiter=Deaf()))
    both = FallbackModel([model(limiter=RateLimiter()), model(limiter=RateLimiter())])
    with pytest.raises(ConfigurationError, match="several limiters"):
        CompletionEngine(both)


def test_limiter_of_a_fallback_model_is_used():
    limiter = Owner(1000, 1e6, 60)
    try:
        models: Any = [model(limiter=limiter), model()]
        assert len(list(CompletionEngine(FallbackModel(models)).run(["a", "b"]))) == 2
        assert len(limiter.booked) == 2
    finally:
        limiter.close()


def test_nested_agent_bypasses_the_engine_limits_unless_the_models_share_a_limiter():
    def outer_answer(request: Request) -> FakeAnswer:
        messages = json.loads(request.content)["messages"]
        if messages[-1]["role"] == "tool":
            return reply(messages[-1]["content"])
        call = {"id": "c", "type": "function", "function": {"name": "expert", "arguments": '{"prompt": "why"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
        return FakeAnswer(body=json.dumps(body).encode())

    def asked_through(owner: Owner, engine: Mapping[str, Any], models: Mapping[str, Any]) -> tuple[int, int]:
        expert = Agent(model(**models), name="expert")
        outer = Agent(model(SlowTransport(outer_answer), **models), tools=[expert.as_function()])
        run = CompletionEngine(outer, **engine)
        assert [item.reply for item in run.run(["a"])] == ["re why"]
        return len(owner.booked), run.summary.requests

    owner = Owner(1000, 1e6, 60)
    local = RateLimiter(1000)
    booked: list[BookedPlace] = []
    book = local.book
    local.book = lambda now, tokens=0: booked.append(book(now, tokens)) or booked[-1]  # type: ignore[method-assign]
    try:
        assert asked_through(owner, {"limiter": owner}, {}) == (2, 3), "the nested agent's request is not counted"
        asked_through(owner, {}, {"limiter": local})
        assert len(booked) == 3
    finally:
        owner.close()


def test_token_estimate_includes_the_tools_of_an_agent():
    @function
    def tool(text: str) -> str:
        """Do something that takes many words to describe."""
        return text

    work = read_item("hello", 0)
    bare, armed = Target(Agent(model()), {}), Target(Agent(model(), tools=[tool]), {})
    assert armed.size(work) > bare.size(work) + 100
