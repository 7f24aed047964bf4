"""Where items wait to start: the rate limiter, adaptive concurrency, pauses for all, and the breaker of storms.

An item waits here, before its call begins, so that waiting never uses up a call's total time. Only the first in line
looks at the limiter and nothing is booked far ahead: what a reply gives back (tokens it did not need) is there for the
next one at once. Repeats and further rounds of started items book their places directly and so go before new ones.

Concurrency: full at the start; halved when the provider says 429 or overloaded (at most once a second), plus four for
each full round of successes, never below one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from lmagent.asking.limits import Permit, pause_from_error, pause_from_headers
from lmagent.core.messages import Usage
from lmagent.engines.bulk.work import SharedLimiter
from lmagent.errors import Overloaded, ProviderError, RateLimited

__all__ = ["Gate"]

_AHEAD = 0.1
"""Seconds that a place may be booked ahead: late timers then do not add up to lost room."""
_OWN_PAUSE = 0.5
"""Seconds for all after a 429 that does not say how long."""
_STORM = 20
_FIRST_REST = 5.0
_LONGEST_REST = 60.0
_STEP = 4.0
_UNKNOWN_ANSWER = 500.0
"""Tokens of an answer while none has come."""

_admitted: ContextVar[list[Permit]] = ContextVar("lmagent_admitted")


class Gate:
    """Lets items start. One per run and never shared; it is the `Limiter` of the run's exchanges.

    Args:
        limits: Requests and tokens; may be shared by every run that uses the same key.
        capacity: Items at once, at most.
        adaptive: Whether concurrency gives way to 429s and overload.
        clock: Seconds, of the limits' clock.
    """

    def __init__(
        self,
        limits: SharedLimiter,
        capacity: int,
        *,
        adaptive: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._capacity = capacity
        self._adaptive = adaptive
        self._clock = clock
        self._line = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None
        self._stopped = False
        self._last_cut = -1e9
        self._answer_tokens = _UNKNOWN_ANSWER
        self._failures = 0
        self._rest = 0.0
        self._closed_until = -1e9
        self._stragglers = 0
        """Items that started before the breaker opened: they say nothing about the time since. No probe starts before
        the last of them is over."""
        self.allowed = float(capacity)
        """Items at once, for now."""
        self.active = 0
        """Items that have started and are not over."""

    async def enter(self, tokens: float) -> bool:
        """Wait until an item may start; False: nothing starts any more.

        Args:
            tokens: What its prompt and answer may cost; 0 when no one counts.
        """
        while not self._stopped:
            async with self._line:
                permit = await self._first_in_line(tokens)
                if permit is None:
                    break
                self.active += 1
            kept = False
            try:
                if permit.wait > 0:
                    await asyncio.sleep(permit.wait)
                kept = not (permit.revoked or self._stopped)
            finally:
                if not kept:
                    permit.refund()
                    self.active -= 1
                    self._wake()
            if kept:
                permit.started(self._clock())
                _admitted.set([permit])
                return True
        return False

    async def _first_in_line(self, tokens: float) -> Permit | None:
        while not self._stopped:
            now = self._clock()
            if self.active >= self._room():
                wait = 3600.0
            elif now < self._closed_until:
                wait = self._closed_until - now
            else:
                wait = self._limits.peek(now, tokens)
                if wait <= _AHEAD:
                    return self._limits.book(now, tokens)
                wait -= _AHEAD / 2
            await self._sleep(wait)
        return None

    def _room(self) -> int:
        return 1 if self._rest else max(1, int(self.allowed))

    async def _sleep(self, seconds: float) -> None:
        """Wait so long, or until something changes."""
        loop = asyncio.get_running_loop()
        self._change = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._change
        finally:
            timer.cancel()
            self._change = None

    def _wake(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    def leave(self, error: Exception | None) -> None:
        """An item is over; `error` is what it failed with."""
        self.active -= 1
        for permit in _admitted.get(()):
            permit.refund()  # it never came to a request
        _admitted.set([])
        if error is None:
            self.allowed = min(self.allowed + _STEP / self.allowed, self._capacity)
            self._failures, self._rest, self._stragglers = 0, 0.0, 0
        elif self._stragglers:
            self._stragglers -= 1
        elif isinstance(error, ProviderError) and error.retryable:
            self._failures += 1
            if self._failures >= _STORM or self._rest:
                self._rest = min(self._rest * 2 or _FIRST_REST, _LONGEST_REST)
                self._closed_until = self._clock() + self._rest
                self._failures, self._stragglers = 0, self.active
        self._wake()

    @property
    def is_open(self) -> bool:
        """False while the breaker rests or tries one item at a time."""
        return not self._rest

    def stop(self) -> None:
        """Let nobody in any more."""
        self._stopped = True
        self._wake()

    def estimate(self, prompt_bytes: int, parameters: Mapping[str, Any]) -> float:
        """Return the tokens to reserve for an item; 0.0 when tokens are not limited."""
        if not self._limits.counts_tokens:
            return 0.0
        most = parameters.get("max_tokens")
        return prompt_bytes / 4 + (most if isinstance(most, int) else self._answer_tokens) + 1

    def learn(self, usage: Usage | None, requests: int) -> None:
        """Hear what an answer was long: the guess follows the longest of late, so that it is hardly ever too low."""
        if usage is not None and requests:
            size = usage.output_tokens / requests
            self._answer_tokens = max(size, self._answer_tokens * 0.98 + size * 0.02)

    # What an exchange asks of its limiter.

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> Permit:
        """Give the permit that the item entered with to its first request; book others."""
        mine = _admitted.get(())
        if mine:
            return mine.pop()  # type: ignore[union-attr]  # an empty tuple is never popped
        return self._limits.book(now, self.estimate(len(content), parameters))

    def answered(self, headers: Mapping[str, str], now: float) -> None:
        """Pause when nothing is left."""
        self._pause(pause_from_headers(headers, now))

    def failed(self, error: ProviderError, max_pause: float) -> None:
        """Pause for all after a 429, and give way."""
        if not isinstance(error, RateLimited | Overloaded):
            return
        if isinstance(error, RateLimited):
            self._pause(pause_from_error(error, max_pause) or _OWN_PAUSE)
        now = self._clock()
        if self._adaptive and now - self._last_cut > 1.0:
            self._last_cut = now
            self.allowed = max(1.0, min(self.allowed, self.active) / 2)

    def _pause(self, seconds: float) -> None:
        if seconds:
            self._limits.pause(seconds)
