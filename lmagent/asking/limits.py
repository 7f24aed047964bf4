"""Rate limits of a key: when the next request may start. Waiting is computed here and slept elsewhere.

Starts are spaced evenly; `burst` lets some go at once. In no window, wherever it begins, are there more starts than
the limit allows, nor more tokens, unless a request took more than was booked for it: what follows then waits. One
limiter serves any number of threads, event loops and models of one process; other machines are beyond it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from lmagent.asking.retry import read_rate_limit_wait
from lmagent.core.messages import Usage
from lmagent.errors import ConfigurationError, ProviderError, RateLimited

__all__ = ["BookedPlace", "Limiter", "Permit", "RateLimiter", "pause_from_error", "pause_from_headers"]

_SLACK = 1e-3
"""Fraction of the window that is left free, so that a request which starts late by some milliseconds does not bring one
too many into a window."""
_BYTES_PER_TOKEN = 4
_NEVER = -inf
_LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class _Spend:
    at: float
    amount: float
    booked: bool = True
    """Whether it still counts."""


class _Budget:
    """So many units in any window, spaced."""

    __slots__ = ("_burst", "_interval", "_limit", "_next", "_spent", "_sum", "_window")

    def __init__(self, limit: float, burst: float, window: float, slack: float, pace: float) -> None:
        self._limit = limit
        self._burst = burst
        self._window = window * (1 + slack)
        self._interval = self._window / limit / pace
        self._spent: deque[_Spend] = deque()
        self._sum = 0.0
        self._next = _NEVER
        """When the spacing alone would let the next unit go (it may lie `burst` units in the past)."""

    def earliest(self, at: float, amount: float) -> float:
        """Return the first time from `at` on when `amount` fits. Times asked for never decrease."""
        at = max(at, self._next - (self._burst - 1) * self._interval)
        amount = min(amount, self._limit)
        self._drop(at)
        while self._spent and self._sum + amount > self._limit:
            at = max(at, self._spent[0].at + self._window)
            self._drop(at)
        return at

    def peek(self, now: float, at: float, amount: float) -> float:
        """`earliest`, for a question only: nothing is forgotten before its time.

        Args:
            now: The time it is; what has left the window by then is dropped.
            at: Not before.
            amount: What is to fit.
        """
        self._drop(now)
        at = max(at, self._next - (self._burst - 1) * self._interval)
        left = self._sum + min(amount, self._limit) - self._limit
        for entry in self._spent:
            if left <= 0 and entry.at + self._window > at:
                break
            at = max(at, entry.at + self._window)
            left -= entry.amount
        return at

    def _drop(self, at: float) -> None:
        spent = self._spent
        while spent and spent[0].at + self._window <= at:
            entry = spent.popleft()
            entry.booked = False
            self._sum -= entry.amount
        if not spent:
            self._sum = 0.0

    def spend(self, at: float, amount: float) -> _Spend:
        """Book `amount` at `at`."""
        self._next = max(self._next, at) + self._interval * min(amount, self._limit)
        entry = _Spend(at, min(amount, self._limit))
        self._spent.append(entry)
        self._sum += entry.amount
        return entry

    def correct(self, entry: _Spend, amount: float) -> None:
        """Change a booking after the fact."""
        if entry.booked:
            self._sum += amount - entry.amount
            self._next += self._interval * (amount - entry.amount)
            entry.amount = amount

    def forget_after(self, now: float) -> None:
        """Drop the bookings that have not begun."""
        while self._spent and self._spent[-1].at > now:
            entry = self._spent.pop()
            entry.booked = False
            self._sum -= entry.amount
            self._next -= self._interval * entry.amount


class Permit(Protocol):
    """One place in line, from whoever gives them."""

    @property
    def wait(self) -> float:
        """Seconds from the booking to the start."""
        ...

    @property
    def revoked(self) -> bool:
        """Whether a pause came in between: then take a new one after the wait."""
        ...

    def refund(self) -> None:
        """Give the place back: the request was never sent."""
        ...

    def started(self, now: float) -> None:
        """Say when the request really starts."""
        ...

    def settle(self, usage: Usage | None) -> None:
        """Replace the estimate of tokens by what the provider counted."""
        ...


class BookedPlace:
    """The `Permit` of a `RateLimiter`."""

    __slots__ = ("_limiter", "_request", "_tokens", "at", "revoked", "wait")

    def __init__(self, limiter: RateLimiter, at: float, wait: float, request: _Spend | None, tokens: _Spend | None):
        self._limiter = limiter
        self._request = request
        self._tokens = tokens
        self.at = at
        """When the request may start, on the limiter's clock."""
        self.wait = wait
        """Seconds from the booking to the start."""
        self.revoked = False
        """Whether a pause came in between: then take a new one after the wait."""

    def refund(self) -> None:
        """Give the place back: the request was never sent."""
        self._limiter.correct(self._request, 0, self._tokens, 0)

    def started(self, now: float) -> None:
        """Say when the request really starts; a late start counts in the window of its own time."""
        self._limiter.restamp(self._request, self._tokens, now)

    def settle(self, usage: Usage | None) -> None:
        """Replace the estimate of tokens by what the provider counted."""
        if usage is not None and self._tokens is not None:
            total = usage.total_tokens or usage.input_tokens + usage.output_tokens
            self._limiter.correct(None, 0, self._tokens, total)


def pause_from_headers(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds for which the headers of an answer, at `now` of the wall clock, say that nothing is left."""
    return min(read_rate_limit_wait(headers, now), _LONGEST_PAUSE)


def pause_from_error(error: ProviderError, max_pause: float) -> float:
    """Return the seconds, at most `max_pause`, that a server which refused a request asks all to wait."""
    return min(error.retry_after or 0.0, max_pause) if isinstance(error, RateLimited) else 0.0


class Limiter(Protocol):
    """What an exchange asks of whoever spaces its requests; bulk runs put their own in."""

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> Permit:
        """Book a request."""
        ...

    def answered(self, headers: Mapping[str, str], now: float) -> None:
        """Hear the headers of an answer, at `now` of the wall clock."""
        ...

    def failed(self, error: ProviderError, max_pause: float) -> None:
        """Hear of a failed attempt; a pause is at most `max_pause` seconds."""
        ...


class RateLimiter:
    """Spaces requests and tokens.

    Args:
        max_requests_per_minute: Most starts in any `window`; None for no such limit.
        max_tokens_per_minute: Most tokens, prompt and answer together; estimated first, corrected by the usage.
        burst: How many requests may start at once after a rest; they count all the same.
        window: Seconds that a limit is for.
        slack: Fraction of the window left free: requests may arrive by so much later than they start.
        pace: How much faster than the limit starts may follow each other while the window has room; above 1, what
            pauses lost is made up for.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        max_requests_per_minute: float | None = None,
        max_tokens_per_minute: float | None = None,
        *,
        burst: int = 1,
        window: float = 60.0,
        slack: float = _SLACK,
        pace: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = [limit for limit in (max_requests_per_minute, max_tokens_per_minute) if limit is not None]
        if not all(number > 0 for number in (*limits, window, pace)) or burst < 1:  # so that NaN is refused as well
            raise ConfigurationError("A rate limit, its window and its burst are greater than zero.")
        self._requests = (
            _Budget(max_requests_per_minute, burst, window, slack, pace) if max_requests_per_minute else None
        )
        self._tokens = (
            _Budget(max_tokens_per_minute, max_tokens_per_minute, window, slack, 1.0) if max_tokens_per_minute else None
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._last = _NEVER
        self._paused_until = _NEVER
        self._waiting: deque[BookedPlace] = deque()

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited."""
        return self._tokens is not None

    def peek(self, now: float, tokens: float = 0) -> float:
        """Return how long a request booked now would wait; no place is taken."""
        with self._lock:
            at = max(now, self._last, self._paused_until)
            before = None
            while at != before:
                before = at
                if self._requests is not None:
                    at = self._requests.peek(now, at, 1.0)
                if self._tokens is not None and tokens:
                    at = self._tokens.peek(now, at, tokens)
            return at - now

    def reserve(self, now: float, tokens: float = 0) -> float:
        """Return how long to wait before the next request may start. The place is taken either way.

        Args:
            now: Seconds, of the limiter's clock.
            tokens: How many it may cost.
        """
        return self.book(now, tokens).wait

    def book(self, now: float, tokens: float = 0) -> BookedPlace:
        """`reserve`, as a permit that can be given back, corrected, or revoked by a pause."""
        with self._lock:
            # First come, first served: nobody starts before one who asked earlier.
            at = max(now, self._last, self._paused_until)
            both = ((self._requests, 1.0), (self._tokens, float(tokens)))
            costs = [(budget, cost) for budget, cost in both if budget is not None and cost]
            before = None
            while at != before:
                before = at
                for budget, cost in costs:
                    at = budget.earliest(at, cost)
            self._last = at
            spends = {id(budget): budget.spend(at, cost) for budget, cost in costs}
            permit = BookedPlace(self, at, at - now, spends.get(id(self._requests)), spends.get(id(self._tokens)))
            while self._waiting and self._waiting[0].at <= now:
                self._waiting.popleft()
            if at > now:
                self._waiting.append(permit)
            return permit

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> BookedPlace:
        """Book a request, its tokens estimated from its size and from `max_tokens`."""
        if self._tokens is None:
            return self.book(now)
        most = parameters.get("max_tokens")
        return self.book(now, len(content) / _BYTES_PER_TOKEN + (most if isinstance(most, int) else 0) + 1)

    def correct(self, request: _Spend | None, requests: float, spent: _Spend | None, tokens: float) -> None:
        """Change what a permit booked; `Permit` calls it."""
        with self._lock:
            if request is not None and self._requests is not None:
                self._requests.correct(request, requests)
            if spent is not None and self._tokens is not None:
                self._tokens.correct(spent, tokens)

    def restamp(self, request: _Spend | None, tokens: _Spend | None, now: float) -> None:
        """Move a booking to when its request really started; `Permit` calls it."""
        with self._lock:
            for entry in (request, tokens):
                if entry is not None and now > entry.at:
                    entry.at = now

    def answered(self, headers: Mapping[str, str], now: float) -> None:
        """Pause when the headers of an answer say that nothing is left."""
        seconds = pause_from_headers(headers, now)
        if seconds:
            self.pause(seconds)

    def failed(self, error: ProviderError, max_pause: float) -> None:
        """Pause for all when the server asks one to wait."""
        seconds = pause_from_error(error, max_pause)
        if seconds:
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Let nobody start for so long: the server said so. Those in line get new places behind the pause."""
        with self._lock:
            now = self._clock()
            self._paused_until = max(self._paused_until, now + seconds)
            while self._waiting and self._waiting[-1].at > now:
                self._waiting.pop().revoked = True
            for budget in (self._requests, self._tokens):
                if budget is not None:
                    budget.forget_after(now)
            self._last = now
