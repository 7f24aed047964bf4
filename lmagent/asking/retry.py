"""When a request is sent again, and after how long. The only place that imports tenacity, and only after a failure.

A retry after the request left may be paid twice: model calls are not idempotent. For chat it is right all the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import ProviderError, QuotaExceeded, RequestTimeout

if TYPE_CHECKING:
    from tenacity import AttemptManager, RetryCallState

__all__ = ["RetryPolicy", "attempts_after", "read_retry_after", "read_should_retry"]


@fast_dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently a failed request is repeated."""

    max_retries: int = 2
    """Repeats after the first request; 0 for none."""
    initial: float = 0.5
    """Seconds before the first repeat; doubled for each further one."""
    maximum: float = 8.0
    """Seconds; the longest wait of our own choosing."""
    jitter: float = 0.25
    """How far a wait of ours may differ from the computed one, as a fraction of it."""
    max_wait: float = 60.0
    """Seconds; a server that asks for a longer wait gets none: the error is raised at once."""

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
        asked = error.retry_after if isinstance(error, ProviderError) else None
        if asked is not None and math.isfinite(asked) and asked > 0:
            return asked
        own = min(self.initial * 2 ** min(attempt - 1, 60), self.maximum)
        return own * (1 + self.jitter * (2 * random() - 1))


def attempts_after(
    policy: RetryPolicy, deadline: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterable[AttemptManager]:
    """Return tenacity's attempts, the failed first one included.

    Args:
        policy: What to repeat, how often, how long to wait.
        deadline: On `clock`; a wait that would end after it is not begun.
        clock: Seconds.
        sleep: Told how long to wait; flows record it and let their driver wait, so one iterator serves sync and async.
    """
    from tenacity import Retrying  # 40 ms that only a failure is worth

    def error_of(state: RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome else None
        assert error is not None
        return error

    waits: dict[int, float] = {}

    def wait(state: RetryCallState) -> float:
        # Computed once an attempt: `stop` needs the same figure that is then waited for.
        number = state.attempt_number
        if number not in waits:
            waits[number] = policy.wait(error_of(state), number)
        return waits[number]

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number > policy.max_retries or clock() + wait(state) >= deadline

    def retry(state: RetryCallState) -> bool:
        return state.outcome is not None and state.outcome.failed and policy.applies_to(error_of(state))

    return Retrying(retry=retry, stop=stop, wait=wait, sleep=sleep, reraise=True)


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds a server asks to wait, or None when it does not say or what it says makes no sense.

    Args:
        headers: Lower-case names.
        now: Wall clock, seconds since 1970, for the form that is a date.
    """
    seconds = _number(headers.get("retry-after-ms"), 1000)
    if seconds is None:
        text = headers.get("retry-after")
        seconds = _number(text)
        if seconds is None and text:
            seconds = _until(text, now)
    return seconds if seconds is not None and seconds > 0 else None


def _number(text: str | None, divisor: float = 1) -> float | None:
    try:
        value = float(text or "") / divisor
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _until(text: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # 10 ms that hardly any answer needs

    try:
        return parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def read_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what `x-should-retry` says, if anything."""
    table: dict[str, bool] = {"true": True, "false": False}
    return table.get(headers.get("x-should-retry", "").strip().lower())
