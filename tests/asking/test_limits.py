"""The rate limiter: never more than the limit in any window, in order, spaced, without waiting longer than needed."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmagent.asking.limits import RateLimiter
from lmagent.core.messages import Usage
from lmagent.errors import ConfigurationError, RateLimited
from lmagent.http.base import Timeouts
from tests.asking.fakes import CALL, HI, RecordedSleeps, exchange
from tests.loopback import LoopbackServer, json_answer


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def most_in_any_window(starts: list[tuple[float, float]], window: float) -> float:
    """Return the largest sum of amounts in any half-open window; windows that begin at a start are enough."""
    return max((sum(cost for at, cost in starts if begin <= at < begin + window) for begin, _ in starts), default=0)


GAPS = st.lists(st.floats(0, 30), min_size=1, max_size=60)


@given(GAPS, st.integers(1, 20), st.integers(1, 10), st.floats(0.1, 100))
def test_no_window_has_more_requests_than_the_limit(gaps, limit, burst, window):
    limiter = RateLimiter(limit, burst=burst, window=window, clock=Time())
    now, starts = 0.0, []
    for gap in gaps:
        now += gap
        wait = limiter.reserve(now)
        assert wait >= 0
        starts.append((now + wait, 1.0))
    # `now + wait` is rounded, so equal starts may differ in the last digit.
    assert all(after - before > -1e-9 for (before, _), (after, _) in pairwise(starts))
    assert most_in_any_window(starts, window) <= limit


@given(GAPS, st.lists(st.integers(0, 150), min_size=60, max_size=60), st.integers(20, 100))
def test_no_window_has_more_tokens_than_the_limit(gaps, costs, limit):
    limiter = RateLimiter(max_tokens_per_minute=limit, clock=Time())
    now, starts = 0.0, []
    for gap, cost in zip(gaps, costs, strict=False):
        now += gap
        starts.append((now + limiter.reserve(now, cost), float(min(cost, limit))))
    assert most_in_any_window(starts, 60) <= limit + 1e-6


@given(GAPS, st.data())
def test_the_limit_holds_with_refunds_pauses_and_corrections(gaps, data):
    time = Time()
    limiter = RateLimiter(5, 100, burst=3, clock=time)
    permits = []
    for gap in gaps:
        time.now += gap
        match data.draw(st.integers(0, 5)):
            case 0:
                limiter.pause(data.draw(st.floats(0, 20)))
            case 1 if permits:
                permits.pop(data.draw(st.integers(0, len(permits) - 1))).refund()
            case 2 if permits:
                permits[-1].settle(Usage(total_tokens=data.draw(st.integers(0, 20))))
            case _:
                permits.append(limiter.book(time.now, data.draw(st.integers(0, 40))))
    starts = [(permit.at, 1.0) for permit in permits if not permit.revoked]
    assert most_in_any_window(starts, 60) <= 5


def test_starts_are_evenly_spaced_at_the_full_rate():
    limiter = RateLimiter(60, clock=Time())
    starts = [limiter.reserve(0.0) for _ in range(121)]
    assert starts[0] == 0
    assert all(0.99 < later - sooner < 1.01 for sooner, later in pairwise(starts))
    assert starts[120] <= 120 + 1


def test_a_burst_starts_at_once_and_counts_towards_the_limit():
    limiter = RateLimiter(10, burst=10, clock=Time())
    starts = [limiter.reserve(0.0) for _ in range(11)]
    assert starts[:10] == [0.0] * 10
    assert starts[10] >= 60


def test_usage_replaces_the_estimated_tokens():
    limiter = RateLimiter(max_tokens_per_minute=100, clock=Time())
    permit = limiter.book(0.0, 100)
    assert permit.wait == 0
    permit.settle(Usage(input_tokens=5, output_tokens=5))
    limiter = RateLimiter(max_tokens_per_minute=100, clock=Time())
    limiter.book(0.0, 100).refund()
    assert limiter.reserve(1.0, 100) < 60


def test_a_pause_revokes_waiting_permits():
    time = Time()
    limiter = RateLimiter(60, clock=time)
    permits = [limiter.book(0.0) for _ in range(3)]
    time.now = 0.5
    limiter.pause(10)
    assert [permit.revoked for permit in permits] == [False, True, True]
    assert limiter.reserve(0.5) == pytest.approx(10)
    assert 10.9 < limiter.reserve(0.5) < 11.1


@pytest.mark.parametrize("wrong", [{"burst": 0}, {"window": 0}, {"max_requests_per_minute": 0}])
def test_a_limit_must_be_above_zero(wrong):
    with pytest.raises(ConfigurationError):
        RateLimiter(**{"max_requests_per_minute": 5, **wrong})


def test_every_attempt_takes_a_permit_sync_and_async():
    for verb in ("ask", "async_ask"):
        naps = RecordedSleeps()
        with LoopbackServer([json_answer({}, 500), json_answer({}, 500), json_answer(HI)]) as server:
            made = exchange(server.url, naps=naps, limiter=RateLimiter(1, window=100))
            if verb == "ask":
                made.ask(CALL)
            else:
                asyncio.run(made.async_ask(CALL))
            made.close()
            # One start is free; each repeat waits for its back-off and for the limiter.
            assert len(naps.taken) == 4


def test_a_start_after_the_deadline_is_rate_limited_at_once():
    limiter = RateLimiter(1, window=1000)
    with LoopbackServer(json_answer(HI)) as server:
        made = exchange(server.url, limiter=limiter, timeouts=Timeouts(total=10))
        made.ask(CALL)
        with pytest.raises(RateLimited) as caught:
            made.ask(CALL)
        made.close()
        assert len(server.requests) == 1
    assert caught.value.retry_after > 10
    assert caught.value.attempts == 0


def test_threads_share_one_limiter():
    limiter = RateLimiter(1000, burst=1000, clock=Time())
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.extend(limiter.reserve(0.0) for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits == [0.0] * 400
