"""Rate limits: no 60-second window exceeds them, and they are almost fully used. The clock is simulated."""

from __future__ import annotations

import asyncio
import heapq
import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmagent.asking.limits import RateLimiter
from lmagent.asking.retry import read_rate_limit_wait
from lmagent.core.messages import Usage
from lmagent.engines.bulk.gate import Gate
from lmagent.errors import RateLimited


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with simulated time: it jumps to the next timer when idle."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not ready and timers:
            self.now = max(self.now, timers[0]._when)
        super()._run_once()  # type: ignore[misc]


def virtually(main: Callable[[VirtualLoop], Awaitable[Any]]) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))  # type: ignore[arg-type]
    finally:
        loop.close()


def most_in_a_window(times: Sequence[float], amounts: Sequence[float], window: float = 60.0) -> float:
    """Return the largest sum of amounts in any half-open window."""
    sums = [0.0, *accumulate(amounts)]
    return max(sums[index + 1] - sums[bisect_right(times, end - window)] for index, end in enumerate(times))


class Play:
    """Simulated workers behind a gate, and a record of when the server got their requests."""

    def __init__(self, loop: VirtualLoop, limits: RateLimiter, capacity: int, seed: int) -> None:
        self.loop = loop
        self.gate = Gate(limits, capacity, clock=loop.time)
        self.capacity = capacity
        self.chance = random.Random(seed)
        self.times: list[float] = []
        self.tokens: list[float] = []
        self.refusals = 0.0
        self.late = 0.0

    async def run(self, until: float) -> None:
        workers = [asyncio.ensure_future(self.work(until)) for _ in range(self.capacity)]
        await asyncio.sleep(until)
        self.gate.stop()
        await asyncio.gather(*workers)

    async def work(self, until: float) -> None:
        parameters = {"max_tokens": 400}
        while self.loop.time() < until:
            prompt = self.chance.randrange(40, 4000)
            if not await self.gate.enter(self.gate.estimate(prompt, parameters)):
                return
            permit = self.gate.permit(self.loop.time(), b"", parameters)
            assert permit.wait <= 0.11
            usage = Usage(input_tokens=prompt // 4, output_tokens=self.chance.randrange(10, 400))
            await asyncio.sleep(self.chance.uniform(0, self.late))
            self.times.append(self.loop.time())
            self.tokens.append(usage.input_tokens + usage.output_tokens)
            await asyncio.sleep(self.chance.uniform(0.2, 2.0))
            if self.chance.random() < self.refusals:
                error = RateLimited("slow down", retry_after=self.chance.choice([None, 0.2]))
                self.gate.failed(error, 60)
                self.gate.leave(error)
            else:
                permit.settle(usage)
                self.gate.leave(None)


@pytest.mark.parametrize("rpm", [20, 500, 3000])
def test_requests_stay_within_every_minute_and_use_the_limit(rpm: int):
    async def main(loop: VirtualLoop) -> Play:
        play = Play(loop, RateLimiter(rpm, burst=2, slack=0.005, pace=1.05, clock=loop.time), 128, rpm)
        play.late = 0.2
        await play.run(300)
        return play

    play = virtually(main)
    times = sorted(play.times)
    assert most_in_a_window(times, [1] * len(times)) <= rpm
    assert len(times) >= 0.97 * rpm * 5
    assert most_in_a_window(times, [1] * len(times), 1.0) <= rpm / 60 * 1.05 + 2 + rpm / 60 * play.late


def test_tokens_stay_within_every_minute_and_use_the_limit():
    limit = 200_000

    async def main(loop: VirtualLoop) -> Play:
        play = Play(loop, RateLimiter(None, limit, burst=2, slack=0.005, pace=1.05, clock=loop.time), 128, 7)
        await play.run(300)
        return play

    play = virtually(main)
    assert most_in_a_window(play.times, play.tokens) <= limit
    assert sum(play.tokens) >= 0.97 * limit * 5


def test_both_limits_hold_with_429s():
    limit = 300_000

    async def main(loop: VirtualLoop) -> Play:
        play = Play(loop, RateLimiter(400, limit, burst=2, slack=0.005, pace=1.05, clock=loop.time), 128, 8)
        play.refusals = 0.01
        await play.run(600)
        return play

    play = virtually(main)
    assert most_in_a_window(play.times, [1] * len(play.times)) <= 400
    assert most_in_a_window(play.times, play.tokens) <= limit
    used = max(len(play.times) / 4000, sum(play.tokens) / (limit * 10))
    assert used >= 0.97


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1, 50),
    st.one_of(st.none(), st.floats(50, 500)),
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 60), st.floats(0, 1)), max_size=120),
)
def test_no_window_exceeds_the_limit_for_random_loads(
    rpm: float, tpm: float | None, burst: int, asks: list[tuple[float, float, float]]
):
    now = [0.0]
    limiter = RateLimiter(rpm, tpm, burst=burst, clock=lambda: now[0])
    times: list[float] = []
    tokens: list[float] = []
    for gap, cost, kept in asks:
        now[0] += gap
        peeked = limiter.peek(now[0], cost)
        permit = limiter.book(now[0], cost)
        assert permit.wait == pytest.approx(peeked, abs=1e-6), "asking tells what booking gives"
        times.append(permit.at)
        now[0] = max(now[0], permit.at)
        permit.settle(Usage(input_tokens=int(cost * kept)))
        tokens.append(int(cost * kept) or cost)
    if times:
        assert most_in_a_window(times, [1] * len(times)) <= max(rpm, 1)


def test_late_start_counts_at_its_actual_time():
    limiter = RateLimiter(2, burst=2, window=10, slack=0, clock=lambda: 0.0)
    permit = limiter.book(0)
    permit.started(4.0)
    limiter.book(5)
    assert limiter.peek(11) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "60s",
                "x-ratelimit-limit-requests": "60",
            },
            1,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1.5"}, 1.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1..2s"}, 0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "1970-01-01T00:01:40Z",
            },
            90,
        ),
        ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "Then"}, 0),
    ],
)
def test_rate_limit_headers_give_the_pause(headers: dict[str, str], seconds: float):
    assert read_rate_limit_wait(headers, 10.0) == pytest.approx(seconds)


def test_pause_applies_to_all_requests():
    async def main(loop: VirtualLoop) -> None:
        gate = Gate(RateLimiter(600, clock=loop.time), 10, clock=loop.time)
        assert await gate.enter(0)
        gate.failed(RateLimited("wait", retry_after=5.0), 60)
        gate.leave(None)
        assert await gate.enter(0)
        assert loop.time() >= 5.0

    virtually(main)


def test_cancelled_wait_releases_its_slot():
    async def main(loop: VirtualLoop) -> None:
        gate = Gate(RateLimiter(60, clock=loop.time), 10, clock=loop.time)
        assert await gate.enter(0)
        for _ in range(5):
            waiting = asyncio.ensure_future(gate.enter(0))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert await gate.enter(0)
        assert loop.time() < 1.2
        assert gate.active == 2

    virtually(main)
