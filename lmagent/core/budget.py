"""Budgets: limits on what one or several runs may spend together. Nested agents, retries and summaries share a budget.

Requests are counted as they are sent, failed and repeated ones included, because the server counts them as well. Prices
come from the user, never from code.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lmagent.core.messages import Reply, Usage
from lmagent.errors import ConfigurationError, LimitExceeded

__all__ = ["Budget", "Price", "Spent", "check_limit", "load_prices", "price_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a million tokens, in any currency."""

    input: float
    output: float
    cached: float | None = None
    """Price of cached input; None: the same as input."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            check_limit(f"Price({name}={getattr(self, name)!r})", getattr(self, name))

    def of(self, usage: Usage) -> float:
        """Return the cost of `usage`."""
        cached = usage.cached_tokens if self.cached is not None else 0
        fresh = usage.input_tokens - cached
        return (fresh * self.input + cached * (self.cached or 0.0) + usage.output_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The amounts spent so far."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tokens: int = 0
    cost: float = 0.0
    tool_calls: int = 0
    seconds: float = 0.0


class Budget:
    """Limits on spending, checked before each request and each tool call; safe to share between threads and tasks.

        budget = Budget(requests=50, tokens=200_000, cost=1.0, prices={"openai/*": Price(input=2.5, output=10)})
        agent.run("...", budget=budget)
        print(budget.spent)

    Args:
        requests: Limit on requests.
        tokens: Limit on input and output tokens together.
        cost: Limit on the cost, in the currency of `prices`.
        seconds: Limit on the time since the first request.
        tool_calls: Limit on tool calls.
        prices: Model id (shell patterns allowed) -> `Price`. A model without a price is an error if `cost` is set.
        at_limit: `stop`: the run ends with `LimitExceeded` and its partial result. `answer`: the model is asked once
            more, without tools, for its best answer (one request above the limit). A function: called with the budget;
            it may raise the limits and return True to continue.
        parent: A budget that contains this one: what is spent here is spent there too, and both limits apply.
        clock: Seconds from any monotonic clock.

    Raises:
        ValueError: A limit is not a number from 0 on, or `at_limit` is none of the above.
    """

    def __init__(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        cost: float | None = None,
        seconds: float | None = None,
        tool_calls: int | None = None,
        prices: Mapping[str, Price] | None = None,
        at_limit: Literal["stop", "answer"] | Callable[[Budget], bool] = "stop",
        parent: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits: dict[str, float | None] = {
            "requests": requests,
            "tokens": tokens,
            "cost": cost,
            "seconds": seconds,
            "tool_calls": tool_calls,
        }
        for name, value in self.limits.items():
            check_limit(f"Budget({name}={value!r})", value)
        """By name; a function passed as `at_limit` may raise them."""
        if not callable(at_limit) and at_limit not in ("stop", "answer"):
            raise ValueError(f"Budget(at_limit={at_limit!r}): it must be 'stop', 'answer' or a function.")
        self.at_limit = at_limit
        self._parent = parent
        self._prices = dict(prices or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = 0
        self._usage = Usage()
        self._cost = 0.0
        self._tool_calls = 0
        self._started: float | None = None
        self._elapsed = 0.0
        self._last_word = False

    @property
    def spent(self) -> Spent:
        """The amounts spent so far."""
        with self._lock:
            return Spent(
                requests=self._requests,
                input_tokens=self._usage.input_tokens,
                output_tokens=self._usage.output_tokens,
                tokens=self._usage.total_tokens,
                cost=self._cost,
                tool_calls=self._tool_calls,
                seconds=self._elapsed,
            )

    def before_request(self, model_id: str) -> None:
        """Count a request that is about to be sent.

        Raises:
            LimitExceeded: It would exceed a limit, or its cost is unknown.
        """
        now = self._clock()
        with self._lock:
            exceeded = self._exceeded(now)
            if exceeded and not self._last_word:
                raise exceeded
            limit = self.limits["cost"]
            if limit is not None and price_of(self._prices, model_id) is None:
                raise LimitExceeded(
                    f"There is no price for {model_id!r}, so its cost cannot be limited. Add it to Budget(prices=...).",
                    limit="cost",
                    value=limit,
                )
            if self._parent:
                self._parent.before_request(model_id)
            self._started = now if self._started is None else self._started
            self._requests += 1

    def after_reply(self, reply: Reply) -> None:
        """Count the tokens and the cost of a reply."""
        usage = reply.usage
        if usage is None:
            return
        price = price_of(self._prices, reply.model_id)
        with self._lock:
            self._usage += usage
            self._cost += price.of(usage) if price else 0.0
        if self._parent:
            self._parent.after_reply(reply)

    def take_tool_calls(self, count: int) -> None:
        """Count tool calls that are about to run.

        Raises:
            LimitExceeded: They would exceed the limit; none is counted.
        """
        with self._lock:
            limit = self.limits["tool_calls"]
            if limit is not None and self._tool_calls + count > limit:
                raise _error("tool_calls", limit, f"{self._tool_calls} were made, {count} more are requested.")
            if self._parent:
                self._parent.take_tool_calls(count)
            self._tool_calls += count

    def check(self) -> Literal["go", "last"]:
        """Return whether another request may be made; `last`: one more, without tools.

        Raises:
            LimitExceeded: A limit is reached and `at_limit` does not continue.
        """
        around = self._parent.check() if self._parent else "go"
        now = self._clock()
        with self._lock:
            exceeded = self._exceeded(now)
        if exceeded is None:
            return around
        if callable(self.at_limit):
            if self.at_limit(self):
                with self._lock:
                    exceeded = self._exceeded(now)
                if exceeded is None:
                    return around
        elif self.at_limit == "answer" and not self._last_word:
            self._last_word = True
            return "last"
        raise exceeded

    def _exceeded(self, now: float) -> LimitExceeded | None:
        self._elapsed = now - self._started if self._started is not None else 0.0
        spent = {
            "requests": self._requests,
            "tokens": self._usage.total_tokens,
            "cost": self._cost,
            "seconds": self._elapsed,
        }
        for name, value in spent.items():
            limit = self.limits[name]
            if limit is not None and value >= limit:
                return _error(name, limit, f"{value:g} were spent.")
        return None

    @property
    def has_prices(self) -> bool:
        """Whether there are prices, so that costs are counted."""
        return bool(self._prices)

    def cost_of(self, model_id: str, usage: Usage) -> float | None:
        """Return the cost of `usage`; None if there is no price for the model."""
        price = price_of(self._prices, model_id)
        return price.of(usage) if price else None


def _error(name: str, limit: float, hint: str) -> LimitExceeded:
    return LimitExceeded(
        f"The budget of {limit:g} {name.replace('_', ' ')} is used up: {hint} Pass a larger Budget({name}=...).",
        limit=name,
        value=limit,
    )


def check_limit(shown: str, value: Any) -> None:
    """Raise `ValueError` unless `value` is None or a number from 0 on; `shown` is the argument as it was written."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
        raise ValueError(f"{shown}: it must be a number from 0 on, or None.")


def price_of(prices: Mapping[str, Price] | None, model_id: str) -> Price | None:
    """Return the price of a model: the one of its id, else of the first pattern that matches."""
    if not prices:
        return None
    found = prices.get(model_id)
    if found is None:
        from fnmatch import fnmatchcase  # only with prices

        found = next((price for name, price in prices.items() if fnmatchcase(model_id, name)), None)
    return found


def load_prices(source: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Price]:
    """Return prices from plain JSON: `{"openai/gpt-5.4-mini": {"input": 0.25, "output": 2.0, "cached": 0.025}}`.

    Args:
        source: The JSON object, or the path of a file that contains it.

    Raises:
        ConfigurationError: It cannot be read, or has another form.
    """
    data: Any = source
    try:
        if not isinstance(source, Mapping):
            with open(source, encoding="utf-8") as file:
                data = json.load(file)
        return {name: Price(**facts) for name, facts in data.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        where = "" if isinstance(source, Mapping) else f" in {str(source)!r}"
        raise ConfigurationError(
            f"Cannot read prices{where}: {error}. Pass {{id: {{'input': ..., 'output': ...}}}}, per million tokens."
        ) from error
