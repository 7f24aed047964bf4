"""What `@function` costs: decorating, first schema, first validator, validated call, dispatch by the registry.

Run `python tests/benchmarks/bench_function.py`. Prints medians in microseconds beside their budgets and the ratio.
"""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any, Literal

from pydantic import BaseModel

from lmagent.core.messages import ToolCall
from lmagent.toolkit.arguments import BoundArguments
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.tool import function


def plain(city: str, days: int, units: Literal["c", "f"] = "c", hourly: bool = False, tags: list[str] | None = None):
    """Forecast the weather.

    The forecast is updated every hour.

    Args:
        city: Where to look.
        days: How many days ahead.
        units: Celsius or Fahrenheit.
        hourly: Whether to give every hour.
        tags: Words to look for.
    """
    return city


class Stop(BaseModel):
    """A place on the way."""

    city: str
    nights: int = 1


def rich(city: str, day: datetime.date, units: Literal["c", "f"] = "c", hourly: bool = False, stop: Stop | None = None):
    """Forecast the weather.

    Args:
        city: Where to look.
        day: Which day.
    """
    return city


TEXT = '{"city": "Shanghai", "days": 3, "units": "f", "hourly": true, "tags": ["rain", "wind"]}'


def median(work: Callable[[], Any], *, rounds: int, inner: int = 1) -> float:
    """Return microseconds per call."""
    times: list[float] = []
    for _ in range(rounds):
        started = perf_counter()
        for _ in range(inner):
            work()
        times.append((perf_counter() - started) / inner * 1e6)
    return statistics.median(times)


def main() -> None:
    tool = function(plain)
    call = ToolCall(id="c1", name="plain", arguments=TEXT)
    registry = ToolRegistry([tool])
    registry.run_one(call)
    function(rich).call('{"city": "x", "day": "2030-01-01"}')  # pydantic is imported from here on
    body = median(lambda: plain("Shanghai", 3, units="f", hourly=True, tags=["rain", "wind"]), rounds=200, inner=200)
    rows = [
        ("decorate", median(lambda: function(plain), rounds=500), 10.0),
        ("first schema, 5 plain parameters", median(lambda: function(plain).spec, rounds=200), 400.0),
        ("first schema, one pydantic model of 5", median(lambda: function(rich).spec, rounds=100), 500.0),
        ("first call, 5 plain parameters", median(lambda: function(plain).call(TEXT), rounds=100), 1000.0),
        ("validate", median(lambda: tool.validate(TEXT), rounds=200, inner=100), 5.0),
        ("validated call over the body", median(lambda: tool.call(TEXT), rounds=200, inner=100) - body, 5.0),
        ("dispatch by the registry", median(lambda: registry.run_one(call), rounds=200, inner=100) - body, 6.0),
        ("dispatch as the agent does", median(lambda: registry.run([call]), rounds=200, inner=100) - body, 6.0),
    ]
    assert isinstance(tool.validate(TEXT), BoundArguments)
    print(f"{'':36}{'median us':>10}{'budget':>10}{'ratio':>8}")
    for name, cost, budget in rows:
        print(f"{name:36}{cost:10.2f}{budget:10.0f}{cost / budget:8.2f}")


if __name__ == "__main__":
    main()
