"""Retries: whether a failed request is sent again, after how long, and what response headers say about waiting.

The only module that imports tenacity, and only after a failure. Two kinds of headers are read here, both without
knowing a provider: `Retry-After` and its relatives on a refusal, and rate limit headers on any answer
(`x-ratelimit-remaining-requests: 0`, `x-ratelimit-reset-requests: 6m0s` from OpenAI and compatible servers,
`anthropic-ratelimit-requests-remaining: 0`, `...-reset: 2026-11-23T10:00:00Z`; the same for tokens).

A request that failed after it left may be billed twice when it is repeated: model calls are not idempotent. For chat,
repeating is right all the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import ProviderError, QuotaExceeded, RequestTimeout
from lmagent.http.base import FAILURE_MODULES

if TYPE_CHECKING:
    from tenacity import AttemptManager, RetryCallState

__all__ = ["RetryPolicy", "attempts_after", "read_rate_limit_wait", "read_retry_after", "read_should_retry"]

FAILURE_MODULES.extend(("tenacity", "email.utils"))


@fast_dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a failed request is repeated, and how long to wait before each repeat."""

    max_retries: int = 2
    """Repeats after the first request; 0 for none."""
    initial: float = 0.5
    """Seconds before the first repeat; doubled for each further one."""
    maximum: float = 8.0
    """Seconds; the longest wait that we choose ourselves."""
    jitter: float = 0.25
    """How far a wait that we choose may differ from the computed one, as a fraction of it."""
    max_wait: float = 60.0
    """Seconds; a server that asks for a longer wait gets no repeat: the error is raised at once."""

    def applies_to(self, error: BaseException) -> bool:
        """Whether the same request may succeed later."""
        if not isinstance(error, ProviderError) or isinstance(error, QuotaExceeded):
            return False
        if isinstance(error, RequestTimeout) and error.which == "total":
            return False
        if error.retry_after is not None and error.retry_after > self.max_wait:
            return False
        return error.retryable

    def wait(self, error: BaseException, attempt: int, random: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after the `attempt`-th request (from 1) failed with `error`."""
        requested = error.retry_after if isinstance(error, ProviderError) else None
        if requested is not None and math.isfinite(requested) and requested > 0:
            return requested
        own = min(self.initial * 2 ** min(attempt - 1, 60), self.maximum)
        return own * (1 + self.jitter * (2 * random() - 1))


def attempts_after(
    policy: RetryPolicy, deadline: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterable[AttemptManager]:
    """Return tenacity's attempts, the failed first one included.

    Args:
        policy: What to repeat, how often, how long to wait.
        deadline: On `clock`; a wait that would end after it is not started.
        clock: Seconds.
        sleep: Called with the seconds to wait. Flows record them and let their driver wait, so that one iterator
            serves sync and async.
    """
    from tenacity import Retrying  # takes 40 ms to import; only a failure needs it

    def error_of(state: RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome else None
        assert error is not None
        return error

    waits: dict[int, float] = {}

    def wait(state: RetryCallState) -> float:
        # Computed once per attempt: `stop` needs the same figure that is then waited for.
        number = state.attempt_number
        if number not in waits:
            waits[number] = policy.wait(error_of(state), number)
        return waits[number]

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number > policy.max_retries or clock() + wait(state) >= deadline

    def retry(state: RetryCallState) -> bool:
        return state.outcome is not None and state.outcome.failed and policy.applies_to(error_of(state))

    return Retrying(retry=retry, stop=stop, wait=wait, sleep=sleep, reraise=True)


def read_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return the value of `x-should-retry`; None without one."""
    table: dict[str, bool] = {"true": True, "false": False}
    return table.get(headers.get("x-should-retry", "").strip().lower())


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a server asks to wait; None without a header or with one that makes no sense.

    Args:
        headers: Lower-case names.
        now: Wall clock, seconds since 1970, for a header that holds a date.
    """
    seconds = _positive(headers.get("retry-after-ms"), 1000)
    if seconds is None:
        text = headers.get("retry-after")
        seconds = _positive(text)
        if seconds is None and text:
            seconds = _until(text, now)
    return seconds if seconds is not None and seconds > 0 else None


def _positive(text: str | None, divisor: float = 1) -> float | None:
    value = _number(text or "")
    return value / divisor if value is not None and math.isfinite(value) and value > 0 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _until(text: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # takes 10 ms to import; few answers need it

    try:
        return parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


_RATE_LIMITS = (
    ("x-ratelimit-{}-requests", 1.0),
    ("x-ratelimit-{}-tokens", 1000.0),
    ("anthropic-ratelimit-requests-{}", 1.0),
    ("anthropic-ratelimit-tokens-{}", 1000.0),
)
"""Header names with a gap for `remaining`, `limit` and `reset`, and how much of the limit one request needs."""

_RATE_LIMIT_HEADERS = tuple(
    (name.format("remaining"), name.format("limit"), name.format("reset"), need) for name, need in _RATE_LIMITS
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def read_rate_limit_wait(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds until the rate limit allows another request; 0.0 if it does, or without such headers.

    `reset` is the time until the whole limit is available again, so the next request fits after its share of that time.

    Args:
        headers: Lower-case names.
        now: Wall clock, seconds since 1970, for times given as dates.
    """
    longest = 0.0
    for remaining, limit, reset, need in _RATE_LIMIT_HEADERS:
        if headers.get(remaining, "").strip() != "0":
            continue
        seconds = _duration(headers.get(reset, "").strip(), now)
        if seconds is None or seconds <= 0:
            continue
        size = headers.get(limit, "").strip()
        share = min(need / int(size), 1.0) if size.isascii() and size.isdigit() and int(size) else 1.0
        longest = max(longest, seconds * share)
    return longest


def _duration(text: str, now: float) -> float | None:
    """Read `6m0s`, `20ms`, `1.5`, or an ISO date."""
    if "T" in text:
        from datetime import datetime  # only needed when a limit is used up

        try:
            return datetime.fromisoformat(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    total, number, position = 0.0, "", 0
    while position < len(text):
        char = text[position]
        if char.isdigit() or char == ".":
            number += char
            position += 1
            continue
        unit = "ms" if text.startswith("ms", position) else char
        if unit not in _UNITS or not number:
            return None
        value = _number(number)
        if value is None:
            return None
        total, number = total + value * _UNITS[unit], ""
        position += len(unit)
    rest = _number(number) if number else 0.0
    return None if rest is None or not text else total + rest
