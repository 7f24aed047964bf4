"""Rate limits of a key: when the next request may start. Waits are computed here; the caller sleeps.

Theory of operation. A limiter books start times in advance. `book(now)` takes the earliest time at which a request may
start, records it at once, and returns it as a permit; the caller sleeps for `permit.wait` seconds. Nothing runs in the
background, and no caller waits inside a lock.

Two limits, on requests and on tokens, are a `_Window` each. A window keeps two rules, and a request starts at the first
time that both rules of both windows allow:

- Spacing: starts follow each other at even intervals; `burst` starts may be made up for after a rest (`_next`).
- Sliding window: the bookings of the last `window` seconds add up to the limit at most, wherever the window begins.
  Bookings leave in the order in which they came, so each is added and removed once: O(1) per request, amortised.

Times never go back (`_last`): a request is not started before one that was booked earlier. Three corrections follow:

- `settle` replaces the estimated tokens of a request by the tokens that the provider counted. If they are more than the
  window allows, later requests wait.
- `refund` gives back the booking of a request that was never sent.
- `pause` (a 429, or headers that say nothing is left) cancels the bookings in the future. Their permits are `revoked`:
  each caller books again after its wait, behind the pause.

One limiter serves any number of threads, event loops and models of a process. It does not know of other processes.
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
"""Fraction by which a window is lengthened: a request that starts some milliseconds late must not be one too many."""
_BYTES_PER_TOKEN = 4
_NEVER = -inf
_LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class _Booking:
    at: float
    amount: float
    counts: bool = True
    """False once it has left the window or was cancelled."""


class _Window:
    """A limit of so many units in any window of time, evenly spaced."""

    __slots__ = ("_bookings", "_burst", "_interval", "_limit", "_next", "_sum", "_window")

    def __init__(self, limit: float, burst: float, window: float, slack: float, pace: float) -> None:
        self._limit = limit
        self._burst = burst
        self._window = window * (1 + slack)
        self._interval = self._window / limit / pace
        self._bookings: deque[_Booking] = deque()
        self._sum = 0.0
        self._next = _NEVER
        """When the spacing alone allows the next unit. Up to `burst` units of the past may be made up for."""

    def earliest(self, at: float, amount: float) -> float:
        """Return the first time from `at` on at which `amount` fits. `at` must not decrease from call to call."""
        at = max(at, self._next - (self._burst - 1) * self._interval)
        amount = min(amount, self._limit)
        self._drop(at)
        while self._bookings and self._sum + amount > self._limit:
            at = max(at, self._bookings[0].at + self._window)
            self._drop(at)
        return at

    def peek(self, now: float, at: float, amount: float) -> float:
        """Return the same time as `earliest` without a commitment: only bookings that left the window are dropped.

        Args:
            now: The current time; bookings that left the window by then are dropped.
            at: The earliest time that counts.
            amount: The units to fit in.
        """
        self._drop(now)
        at = max(at, self._next - (self._burst - 1) * self._interval)
        left = self._sum + min(amount, self._limit) - self._limit
        for entry in self._bookings:
            if left <= 0 and entry.at + self._window > at:
                break
            at = max(at, entry.at + self._window)
            left -= entry.amount
        return at

    def _drop(self, at: float) -> None:
        bookings = self._bookings
        while bookings and bookings[0].at + self._window <= at:
            entry = bookings.popleft()
            entry.counts = False
            self._sum -= entry.amount
        if not bookings:
            self._sum = 0.0

    def book(self, at: float, amount: float) -> _Booking:
        """Book `amount` at `at`."""
        self._next = max(self._next, at) + self._interval * min(amount, self._limit)
        entry = _Booking(at, min(amount, self._limit))
        self._bookings.append(entry)
        self._sum += entry.amount
        return entry

    def correct(self, entry: _Booking, amount: float) -> None:
        """Change a booking after the fact."""
        if entry.counts:
            self._sum += amount - entry.amount
            self._next += self._interval * (amount - entry.amount)
            entry.amount = amount

    def cancel_after(self, now: float) -> None:
        """Cancel the bookings that have not started."""
        while self._bookings and self._bookings[-1].at > now:
            entry = self._bookings.pop()
            entry.counts = False
            self._sum -= entry.amount
            self._next -= self._interval * entry.amount


class Permit(Protocol):
    """The permission to start one request at a booked time."""

    @property
    def wait(self) -> float:
        """Seconds from the booking to the start."""
        ...

    @property
    def revoked(self) -> bool:
        """True if a pause cancelled the booking; then take a new permit after the wait."""
        ...

    def refund(self) -> None:
        """Give the booking back: the request was never sent."""
        ...

    def started(self, now: float) -> None:
        """Record the actual start of the request."""
        ...

    def settle(self, usage: Usage | None) -> None:
        """Replace the estimated tokens by the number that the provider counted."""
        ...


class BookedPlace:
    """The `Permit` of a `RateLimiter`."""

    __slots__ = ("_limiter", "_request", "_tokens", "at", "revoked", "wait")

    def __init__(self, limiter: RateLimiter, at: float, wait: float, request: _Booking | None, tokens: _Booking | None):
        self._limiter = limiter
        self._request = request
        self._tokens = tokens
        self.at = at
        """When the request may start, on the limiter's clock."""
        self.wait = wait
        """Seconds from the booking to the start."""
        self.revoked = False
        """True if a pause cancelled the booking; then take a new permit after the wait."""

    def refund(self) -> None:
        """Give the booking back: the request was never sent."""
        self._limiter.correct(self._request, 0, self._tokens, 0)

    def started(self, now: float) -> None:
        """Record the actual start of the request; a late start counts in the window of its own time."""
        self._limiter.restamp(self._request, self._tokens, now)

    def settle(self, usage: Usage | None) -> None:
        """Replace the estimated tokens by the number that the provider counted."""
        if usage is not None and self._tokens is not None:
            total = usage.total_tokens or usage.input_tokens + usage.output_tokens
            self._limiter.correct(None, 0, self._tokens, total)


def pause_from_headers(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds to pause after an answer whose headers say that nothing is left; `now` is the wall clock."""
    return min(read_rate_limit_wait(headers, now), _LONGEST_PAUSE)


def pause_from_error(error: ProviderError, max_pause: float) -> float:
    """Return how many seconds, at most `max_pause`, all requests pause after a refusal."""
    return min(error.retry_after or 0.0, max_pause) if isinstance(error, RateLimited) else 0.0


class Limiter(Protocol):
    """What an exchange needs of a rate limiter; bulk runs pass their own."""

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> Permit:
        """Book a request."""
        ...

    def answered(self, headers: Mapping[str, str], now: float) -> None:
        """Called with the headers of an answer, at `now` of the wall clock."""
        ...

    def failed(self, error: ProviderError, max_pause: float) -> None:
        """Called after a failed attempt; a pause is at most `max_pause` seconds."""
        ...


class RateLimiter:
    """Spaces requests and tokens.

    Args:
        max_requests_per_minute: Most starts in any `window`; None for no such limit.
        max_tokens_per_minute: Most tokens, prompt and answer together; estimated at the start, corrected by the usage.
        burst: How many requests may start at once after a rest; they count towards the limit.
        window: Length of the window in seconds.
        slack: Fraction by which the window is lengthened, for requests that arrive later than they start.
        pace: How much faster than the limit starts may follow each other while the window allows it. Above 1, time
            lost in pauses is made up for.
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
            raise ConfigurationError(
                f"A rate limit of {limits}, window={window:g}, pace={pace:g}, burst={burst}: all must be above zero."
            )
        self._requests = (
            _Window(max_requests_per_minute, burst, window, slack, pace) if max_requests_per_minute else None
        )
        self._tokens = (
            _Window(max_tokens_per_minute, max_tokens_per_minute, window, slack, 1.0) if max_tokens_per_minute else None
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
        """Return how long a request booked now would wait; nothing is booked."""
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
        """Book a request and return how long to wait before it may start.

        Args:
            now: Seconds, of the limiter's clock.
            tokens: Its estimated tokens.
        """
        return self.book(now, tokens).wait

    def book(self, now: float, tokens: float = 0) -> BookedPlace:
        """Book a request; the permit can be given back, corrected, or revoked by a pause."""
        with self._lock:
            # First come, first served: no request starts before one that was booked earlier.
            at = max(now, self._last, self._paused_until)
            both = ((self._requests, 1.0), (self._tokens, float(tokens)))
            costs = [(window, cost) for window, cost in both if window is not None and cost]
            before = None
            while at != before:
                before = at
                for window, cost in costs:
                    at = window.earliest(at, cost)
            self._last = at
            booked = {id(window): window.book(at, cost) for window, cost in costs}
            permit = BookedPlace(self, at, at - now, booked.get(id(self._requests)), booked.get(id(self._tokens)))
            while self._waiting and self._waiting[0].at <= now:
                self._waiting.popleft()
            if at > now:
                self._waiting.append(permit)
            return permit

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> BookedPlace:
        """Book a request; its tokens are estimated from its size and from `max_tokens`."""
        if self._tokens is None:
            return self.book(now)
        most = parameters.get("max_tokens")
        return self.book(now, len(content) / _BYTES_PER_TOKEN + (most if isinstance(most, int) else 0) + 1)

    def correct(self, request: _Booking | None, requests: float, used: _Booking | None, tokens: float) -> None:
        """Change the amounts of a booking; called by its permit."""
        with self._lock:
            if request is not None and self._requests is not None:
                self._requests.correct(request, requests)
            if used is not None and self._tokens is not None:
                self._tokens.correct(used, tokens)

    def restamp(self, request: _Booking | None, tokens: _Booking | None, now: float) -> None:
        """Move a booking to the actual start of its request; called by its permit."""
        with self._lock:
            for entry in (request, tokens):
                if entry is not None and now > entry.at:
                    entry.at = now

    def answered(self, headers: Mapping[str, str], now: float) -> None:
        """Pause if the headers of an answer say that nothing is left of a limit."""
        seconds = pause_from_headers(headers, now)
        if seconds:
            self.pause(seconds)

    def failed(self, error: ProviderError, max_pause: float) -> None:
        """Pause all requests if the server asks one to wait."""
        seconds = pause_from_error(error, max_pause)
        if seconds:
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Block new requests for `seconds`. Callers that wait for their start must book again."""
        with self._lock:
            now = self._clock()
            self._paused_until = max(self._paused_until, now + seconds)
            while self._waiting and self._waiting[-1].at > now:
                self._waiting.pop().revoked = True
            for window in (self._requests, self._tokens):
                if window is not None:
                    window.cancel_after(now)
            self._last = now
