"""The gate: decides when an item of a bulk run may start.

Theory of operation. Four things can hold back an item: the rate limiter, the current concurrency, a pause after a 429,
and the circuit breaker.

Rate limits. An item waits at the gate before its call begins, so that waiting does not count against the total timeout
of the call. Items queue on one lock; only the first in the queue asks the limiter, and it books a slot at most `_AHEAD`
seconds early. So tokens that a reply reserved and did not use are available to the next item at once. Retries and
further rounds of started items book directly at the limiter and therefore go before new items. The permit that an item
booked at the gate is used by its first request; a context variable carries it there.

Concurrency. It starts at the full capacity. A 429 or an overload halves it, at most once a second, because all requests
in flight report the same overload. Each success adds `_STEP / allowed`, so one full round of successes adds four. It is
never below one.

Circuit breaker. After `_STORM` retryable failures in a row it opens: no item starts for 5 seconds, then one item at a
time is tried. A failure doubles the wait, up to 60 seconds; a success closes the breaker. Items that were in flight
when it opened tell nothing about the time since, so their failures are ignored and the trial waits for them.

Waiting is one future for the head of the queue, woken by a timer or by any change: an item that left, or `stop`.
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
"""Seconds that a slot may be booked early, so that late timers do not reduce the rate."""
_DEFAULT_PAUSE = 0.5
"""Seconds that all requests pause after a 429 without a retry time."""
_STORM = 20
_FIRST_REST = 5.0
_LONGEST_REST = 60.0
_STEP = 4.0
_UNKNOWN_ANSWER = 500.0
"""Estimated tokens of an answer before the first one arrived."""

_admitted: ContextVar[list[Permit]] = ContextVar("lmagent_admitted")


class Gate:
    """Admit items to a run. Each run has its own gate, which is also the `Limiter` of the run's exchanges.

    Args:
        limits: Request and token limits; may be shared by all runs that use the same key.
        capacity: Maximum number of items in progress.
        adaptive: Whether to reduce concurrency after a 429 or an overload.
        clock: Returns seconds; the same clock as the limits use.
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
        self._queue = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None
        self._stopped = False
        self._last_cut = -1e9
        self._answer_tokens = _UNKNOWN_ANSWER
        self._failures = 0
        self._rest = 0.0
        self._closed_until = -1e9
        self._stragglers = 0
        """Items in flight that started before the breaker opened; the next trial waits for them."""
        self.allowed = float(capacity)
        """Current concurrency limit."""
        self.active = 0
        """Items in progress."""

    async def enter(self, tokens: float) -> bool:
        """Wait until an item may start. Return False if the run is stopping.

        Args:
            tokens: Estimated tokens of its prompt and answer; 0 if tokens are not limited.
        """
        while not self._stopped:
            async with self._queue:
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
            if self.active >= self._concurrency():
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

    def _concurrency(self) -> int:
        return 1 if self._rest else max(1, int(self.allowed))

    async def _sleep(self, seconds: float) -> None:
        """Wait for `seconds`, or until `_wake` is called."""
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
        """Record the end of an item; `error` is its failure, if any."""
        self.active -= 1
        for permit in _admitted.get(()):
            permit.refund()  # the item sent no request
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
        """False while the circuit breaker blocks items or tries them one at a time."""
        return not self._rest

    def stop(self) -> None:
        """Admit no more items."""
        self._stopped = True
        self._wake()

    def estimate(self, prompt_bytes: int, parameters: Mapping[str, Any]) -> float:
        """Return the number of tokens to reserve for an item; 0.0 if tokens are not limited."""
        if not self._limits.counts_tokens:
            return 0.0
        most = parameters.get("max_tokens")
        return prompt_bytes / 4 + (most if isinstance(most, int) else self._answer_tokens) + 1

    def learn(self, usage: Usage | None, requests: int) -> None:
        """Update the estimated answer length: close to the longest recent answers, so that it is rarely too low."""
        if usage is not None and requests:
            size = usage.output_tokens / requests
            self._answer_tokens = max(size, self._answer_tokens * 0.98 + size * 0.02)

    # The `Limiter` protocol, called by an exchange.

    def permit(self, now: float, content: bytes, parameters: Mapping[str, Any]) -> Permit:
        """Return the item's permit from the gate for its first request; book one for each further request."""
        mine = _admitted.get(())
        if mine:
            return mine.pop()  # type: ignore[union-attr]  # an empty tuple is never popped
        return self._limits.book(now, self.estimate(len(content), parameters))

    def answered(self, headers: Mapping[str, str], now: float) -> None:
        """Pause all requests if the headers say that the limit is used up."""
        self._pause(pause_from_headers(headers, now))

    def failed(self, error: ProviderError, max_pause: float) -> None:
        """After a 429 pause all requests; after a 429 or an overload reduce concurrency."""
        if not isinstance(error, RateLimited | Overloaded):
            return
        if isinstance(error, RateLimited):
            self._pause(pause_from_error(error, max_pause) or _DEFAULT_PAUSE)
        now = self._clock()
        if self._adaptive and now - self._last_cut > 1.0:
            self._last_cut = now
            self.allowed = max(1.0, min(self.allowed, self.active) / 2)

    def _pause(self, seconds: float) -> None:
        if seconds:
            self._limits.pause(seconds)
